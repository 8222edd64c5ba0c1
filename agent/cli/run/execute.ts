/**
 * `elasticos run`, from flags to exit status.
 *
 * Order: plan, place (agent found, directories made), pager. With no minimum of participants the program starts as soon
 * as its pager is ready, and only then is an agent inside this process loaded; others join while it runs. With a
 * minimum both start side by side and the program waits. Whatever happens, pager, sockets and directories are gone at the end and `--stats` is written.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { isatty } from 'node:tty'
import { PagerError } from '../../../kmod/pager-client.js'
import { pagerPath } from '../../../kmod/pager-host.js'
import { AGENT_GONE } from '../../control/errors.js'
import { EXIT_RUN_FAILED, failureLine, reportFailure } from '../failure.js'
import { notice } from '../output.js'
import { uid } from '../paths.js'
import type { RunFlags } from '../run.js'
import { exitStatus, failed, type RunEnding, StatsFile, statistics } from './ending.js'
import { PagerProcess, signalNumber } from './pager-process.js'
import { openPeers, type Peers } from './peers.js'
import { placeRun, type RunPlace } from './place.js'
import { newProcessId, planRun, type RunPlan } from './plan.js'
import { SignalDesk } from './signals.js'

/** An agent that hangs on the way out does not keep the shell prompt; it holds nothing for others. */
const CLOSE_TIMEOUT_MS = 1500
/** A program that ends sooner than this needs no peers; loading an agent takes half a second of a CPU. */
const INSIDE_GRACE_MS = 150
const LAST_WORD_MS = 1000

/** Participants as they are got hold of, once. */
class PeersDesk {
  readonly #plan: RunPlan
  readonly #place: RunPlace
  #opened: Promise<Peers | undefined> | undefined
  #settled = true

  constructor(plan: RunPlan, place: RunPlace) {
    this.#plan = plan
    this.#place = place
  }

  open(): Promise<Peers | undefined> {
    if (this.#opened === undefined) {
      this.#settled = false
      this.#opened = openPeers(this.#plan, this.#place).finally(() => {
        this.#settled = true
      })
    }
    return this.#opened
  }

  /** Closes what is open. False when an agent inside was still starting: only the end of this process stops that. */
  async close(): Promise<boolean> {
    if (!this.#settled) return false
    const closed = this.#opened?.then(peers => peers?.close()).catch(() => {})
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<void>(resolve => {
      timer = setTimeout(resolve, CLOSE_TIMEOUT_MS)
    })
    await Promise.race([closed, late])
    clearTimeout(timer)
    return true
  }
}

/** What `run` exits with; `abandons` says that something is still starting and the process has to be ended. */
export interface Execution {
  readonly status: number
  readonly abandons: boolean
}

/** Runs `command`. Throws only when not even `--stats` could be opened. */
export async function execute(flags: RunFlags, command: readonly string[]): Promise<Execution> {
  const startedAtMs = performance.now()
  const id = newProcessId()
  const stats = flags.stats === undefined ? undefined : new StatsFile(flags.stats)
  const desk = new SignalDesk(isatty(0))
  let plan: RunPlan | undefined
  let ending: RunEnding
  let abandons = false
  const abandon = () => {
    abandons = true
  }
  try {
    plan = planRun(id, flags, command)
    ending = await runPlan(plan, desk, abandon)
    if (ending.message !== '' && ending.how !== 'exit' && ending.how !== 'signal') notice(ending.message)
  } catch (error) {
    reportFailure(error, flags.verbose === true)
    ending = failed(failureLine(error), false)
  } finally {
    desk.close()
  }
  stats?.write(statistics(id, plan, ending, performance.now() - startedAtMs))
  return { status: exitStatus(ending), abandons }
}

async function runPlan(plan: RunPlan, desk: SignalDesk, abandon: () => void): Promise<RunEnding> {
  const ending = await runStretched(plan, desk, abandon).catch((error: unknown) => {
    if (!plan.allowUnstretched || !(error instanceof PagerError)) throw error
    return failed(failureLine(error), false)
  })
  if (!plan.allowUnstretched || ending.how !== 'failed' || ending.started) return ending
  return await runUnstretched(plan, desk, ending.message)
}

async function runStretched(plan: RunPlan, desk: SignalDesk, abandon: () => void): Promise<RunEnding> {
  pagerPath()
  const place = await placeRun(plan)
  const peers = new PeersDesk(plan, place)
  try {
    const pager = new PagerProcess(plan, place)
    desk.abortWith(code => {
      void pager.end({ how: 'signal', code, message: '', started: false })
    })
    const gathered = plan.participantsMin > 1 ? gather(plan, place, pager, peers) : Promise.resolve()
    const together = Promise.all([pager.ready, gathered])
    together.catch((error: unknown) => pager.end(failed(failureLine(error), false)))
    const [up] = await Promise.race([together, pager.ended.then(() => [false])]).catch(() => [false])
    if (up) {
      desk.deliverTo(signal => pager.signal(signal))
      pager.start()
      if (plan.participantsMin <= 1) void lend(plan, place, pager, peers)
    }
    return await pager.ended
  } finally {
    if (!(await peers.close())) abandon()
    place.cleanUp()
  }
}

/** No minimum: participants join while the program runs, and their lack is no failure. */
async function lend(plan: RunPlan, place: RunPlace, pager: PagerProcess, desk: PeersDesk): Promise<void> {
  let over = false
  void pager.ended.then(() => {
    over = true
  })
  try {
    if (place.agent.kind === 'inside') await Promise.race([pager.ended, sleep(INSIDE_GRACE_MS)])
    if (over) return
    const peers = await desk.open()
    if (!over) await peers?.attach(attachment(plan, place))
  } catch (error) {
    // A pager that ends breaks what was being agreed, and its own word on that comes a moment later.
    await Promise.race([pager.ended, sleep(LAST_WORD_MS, undefined, { ref: false })])
    if (!over) notice(`no other machine takes part in this run: ${failureLine(error)}`)
  }
}

/** A minimum: returns when it is reached, or the pager has ended. Throws when the time is up. */
async function gather(plan: RunPlan, place: RunPlace, pager: PagerProcess, desk: PeersDesk): Promise<void> {
  const [peers, up] = await Promise.all([desk.open(), pager.ready])
  if (!up || peers === undefined) return
  let reached = 1
  let enough: () => void = () => {}
  const reachedMin = new Promise<void>(resolve => {
    enough = resolve
  })
  const hear = (count: number) => {
    reached = count
    if (count >= plan.participantsMin) enough()
  }
  await peers.attach(attachment(plan, place))
  hear(await peers.watch(plan.id, hear))
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<'late'>(resolve => {
    timer = setTimeout(() => resolve('late'), plan.waitMs)
  })
  const gone = peers.gone.then(() => 'gone' as const)
  const outcome = await Promise.race([reachedMin, late, pager.ended, gone])
  clearTimeout(timer)
  if (outcome === 'gone') throw new Error(AGENT_GONE)
  if (outcome !== 'late') return
  const refusals = await peers.refusals(plan.id).catch(() => [])
  const why = refusals.length > 0 ? refusals.join(', ') : 'no other machine answered; see `elasticos nodes`'
  const wanted = `--participants-min ${plan.participantsMin} not reached within ${plan.waitMs} ms`
  throw new Error(`${wanted}: ${Math.max(reached, 1)} take part (${why})`)
}

function attachment(plan: RunPlan, place: RunPlace) {
  return {
    id: plan.id,
    pagerSocket: place.socketPath,
    program: plan.command[0] ?? '',
    participantsMax: plan.participantsMax,
    memoryPages: plan.memoryPages,
    memoryFollows: plan.memoryFollows,
    uid: uid(),
  }
}

/** `--allow-unstretched`: the program beside us, with our descriptors and our signals. */
async function runUnstretched(plan: RunPlan, desk: SignalDesk, reason: string): Promise<RunEnding> {
  notice(`running unstretched, with no limit on its memory: ${reason}`)
  const child = spawn(plan.command[0] ?? '', plan.command.slice(1), { stdio: 'inherit' })
  desk.deliverTo(signal => child.kill(signal))
  try {
    const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null]
    const end = { message: '', started: true, unstretched: reason } as const
    if (signal !== null) return { ...end, how: 'signal', code: signalNumber(signal) }
    return { ...end, how: 'exit', code: code ?? EXIT_RUN_FAILED }
  } catch (error) {
    const missing = failureLine(error).includes('ENOENT')
    const message = `${plan.command[0]}: ${missing ? 'not found' : 'cannot be executed'}; check the name`
    return {
      how: missing ? 'not-found' : 'cannot-execute',
      code: 0,
      message,
      started: false,
      unstretched: reason,
    }
  }
}
