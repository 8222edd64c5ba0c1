/**
 * The home pager as a direct child of `run`: standard descriptors and process group are the program's, descriptor 3 is
 * the run channel. When the channel closes the pager ends the program and itself.
 *
 * Limits: a pager that lives 3 s after it should have ended is killed (its program dies with it, PTRACE_O_EXITKILL).
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { Socket } from 'node:net'
import { constants } from 'node:os'
import { type ExitedEvent, PagerClient, PagerError } from '../../../kmod/pager-client.js'
import { homePagerArguments, pagerPath } from '../../../kmod/pager-host.js'
import type { PagerStats } from '../../../kmod/pager-messages.js'
import { EXIT_CANNOT_EXECUTE, EXIT_NOT_FOUND } from '../failure.js'
import { notice } from '../output.js'
import { failed, type RunEnding } from './ending.js'
import type { RunPlace } from './place.js'
import type { RunPlan } from './plan.js'

const END_TIMEOUT_MS = 3000

export class PagerProcess {
  /** How the run ended; resolves exactly once, never rejects. */
  readonly ended: Promise<RunEnding>
  /** The pager has introduced itself and can be attached to; false when it ended instead. */
  readonly ready: Promise<boolean>
  readonly #child: ChildProcess
  readonly #exit: Promise<string>
  readonly #verbose: boolean
  #client: PagerClient | undefined
  #started = false
  #stats: PagerStats | undefined
  #exited: ExitedEvent | undefined
  #lost: string | undefined
  #resolve: (ending: RunEnding) => void = () => {}

  /** Spawns the pager. Throws PagerError `not-built`. */
  constructor(plan: RunPlan, place: RunPlace) {
    this.#verbose = plan.verbose
    this.ended = new Promise(resolve => {
      this.#resolve = resolve
    })
    const args = homePagerArguments({ ...plan, ...place })
    this.#child = spawn(pagerPath(), args, { stdio: ['inherit', 'inherit', 'inherit', 'pipe'] })
    this.#exit = exitOf(this.#child)
    const channel = this.#child.stdio[3]
    this.ready = channel instanceof Socket ? this.#open(channel) : this.#neverOpened()
  }

  /** Lets the program go. */
  start(): void {
    this.#started = true
    this.#client?.send({ kind: 'start' })
  }

  signal(signal: number): void {
    this.#client?.send({ kind: 'signal', signal })
  }

  /** Ends the pager, and with it the program; the run's ending is `ending` unless it has one already. */
  async end(ending: RunEnding): Promise<void> {
    this.#resolve(ending)
    this.#client?.close()
    await this.#gone()
  }

  async #open(channel: Socket): Promise<boolean> {
    try {
      const client = await PagerClient.over(channel, 'run')
      this.#client = client
      client.onClose(reason => {
        this.#lost = reason
        void this.#finish()
      })
      client.on(event => {
        switch (event.kind) {
          case 'stats':
            this.#stats = event.stats
            break
          case 'exited':
            this.#exited ??= event
            void this.#finish()
            break
          case 'log':
            if (this.#verbose || event.level === 'error' || event.level === 'warning') notice(event.text)
            break
          case 'lane-up':
            if (this.#verbose) notice(`${event.nodeName} takes part`)
            break
          case 'lane-down':
            if (this.#verbose) notice(`${event.nodeName} takes part no longer: ${event.reason}`)
            break
          default:
            break
        }
      })
      return true
    } catch (error) {
      if (!(error instanceof PagerError)) throw error
      this.#exited = error.exited
      this.#lost = error.message
      await this.#finish()
      return false
    }
  }

  /** Spawning failed, so there never was a channel. */
  async #neverOpened(): Promise<boolean> {
    const how = await this.#exit
    this.#resolve(failed(`the pager did not start (${how}); see \`elasticos doctor\``, false))
    return false
  }

  async #finish(): Promise<void> {
    const how = (this.#exited?.childrenLeft ?? 0) > 0 ? this.#leave() : await this.#gone()
    const {
      kind: _kind,
      childrenLeft: _left,
      ...end
    } = this.#exited ?? { kind: '', childrenLeft: 0, ...this.#loss(how) }
    this.#resolve({ ...end, started: this.#started, stats: this.#stats })
  }

  /** The ending of a pager that did not say how it ended; its exit status may still tell. */
  #loss(how: string): RunEnding {
    const program = this.#child.spawnargs.slice(this.#child.spawnargs.indexOf('--') + 1)[0]
    const { exitCode } = this.#child
    const known = { code: 0, started: false } as const
    if (exitCode === EXIT_NOT_FOUND) return { ...known, how: 'not-found', message: `${program}: not found` }
    if (exitCode === EXIT_CANNOT_EXECUTE) {
      return { ...known, how: 'cannot-execute', message: `${program}: cannot be executed` }
    }
    return failed(this.#lossLine(how), this.#started)
  }

  #lossLine(how: string): string {
    if (!this.#started) return `the pager ended before the program started (${how}); see \`elasticos doctor\``
    // After a kill the closed channel says nothing more; otherwise it may be why (a malformed frame).
    const why = this.#lost === undefined || how.startsWith('killed') ? '' : `: ${this.#lost}`
    return `the pager ended (${how})${why}, and the program with it; run it again`
  }

  /** The program has ended, and children of it live on: the pager stays with them, nobody waits for it. */
  #leave(): string {
    this.#child.unref()
    this.#client?.close()
    return ''
  }

  /** Waits for the child's exit, killing it when it overstays; says how it ended. */
  async #gone(): Promise<string> {
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), END_TIMEOUT_MS)
    const how = await this.#exit
    clearTimeout(timer)
    this.#client?.close()
    return how
  }
}

async function exitOf(child: ChildProcess): Promise<string> {
  try {
    const [code, signal] = await once(child, 'exit')
    return signal === null ? `exit status ${code}` : `killed by ${signal}`
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

/** Number of a signal by name. */
export function signalNumber(name: NodeJS.Signals): number {
  return constants.signals[name]
}
