/**
 * Three agents on this machine, each with its own data directory and socket, sharing one network key that exists only
 * for the demo. They listen on loopback and find each other by discovery.
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { ControlClient } from '../../control/client.js'
import { generateKey } from '../../key.js'
import { CliFailure } from '../failure.js'
import { isMemoryFileSystem, scratchParents } from '../paths.js'
import { elasticosCommand, killLater } from './child.js'

const NAMES = ['home', 'left', 'right'] as const
const READY_TIMEOUT_MS = 30_000
const JOIN_TIMEOUT_MS = 20_000
const POLL_MS = 100
/** A peer pager frees everything and exits within 3 s of the end of its process. */
const PAGERS_GONE_TIMEOUT_MS = 5000
const LOG_CHARACTERS_MAX = 2000

export class Cluster {
  readonly #agents: ChildProcess[] = []

  private constructor(readonly directory: string) {}

  /** Makes the directory; nothing runs yet. */
  static make(): Cluster {
    for (const parent of scratchParents()) {
      try {
        if (isMemoryFileSystem(parent)) continue
        return new Cluster(mkdtempSync(join(parent, 'elasticos-demo-')))
      } catch {
        // Not there, or not ours to write: the next one.
      }
    }
    throw new CliFailure('no directory on a real file system to work in; set TMPDIR to one')
  }

  /** Control socket of the agent where the programs are started. */
  get control(): string {
    return this.#control(NAMES[0])
  }

  /** Runtime directory of that agent. */
  get runtimeDir(): string {
    return join(this.directory, NAMES[0], 'run')
  }

  /** Starts the agents and returns when each sees the other two. Throws CliFailure. */
  async start(signal: AbortSignal): Promise<void> {
    const key = join(this.directory, 'network.key')
    await generateKey(key)
    await Promise.all(NAMES.map(name => this.#startAgent(name, key)))
    const attemptsMax = JOIN_TIMEOUT_MS / POLL_MS
    for (let attempt = 0; attempt < attemptsMax; attempt++) {
      signal.throwIfAborted()
      if (await this.#allJoined()) return
      await sleep(POLL_MS)
    }
    throw new CliFailure(
      `the agents do not find each other on loopback; see \`elasticos doctor\`${this.#logTail()}`,
    )
  }

  /** Ends agents and pagers, removes the directory. */
  async stop(): Promise<void> {
    const ends = this.#agents.map(
      agent =>
        new Promise(resolve =>
          (agent.exitCode ?? agent.signalCode) === null ? agent.once('exit', resolve) : resolve(null),
        ),
    )
    for (const agent of this.#agents) {
      agent.kill('SIGTERM')
      killLater(agent)
    }
    await Promise.all(ends)
    await this.#pagersGone()
    rmSync(this.directory, { recursive: true, force: true })
  }

  #control(name: string): string {
    return join(this.directory, `${name}.sock`)
  }

  async #startAgent(name: string, key: string): Promise<void> {
    const log = openSync(join(this.directory, `${name}.log`), 'a', 0o600)
    const command = elasticosCommand('agent', '--name', name, '--data', join(this.directory, name))
    const flags = ['--control', this.#control(name), '--key', key, '--listen', '/ip4/127.0.0.1/tcp/0']
    // A process group of its own: a Ctrl-C on the terminal ends the demo, and the demo ends the agents.
    const agent = spawn(command[0] ?? '', [...command.slice(1), ...flags], {
      detached: true,
      stdio: ['ignore', 'pipe', log],
    })
    closeSync(log)
    this.#agents.push(agent)
    let timer: NodeJS.Timeout | undefined
    const ready = await new Promise<boolean>(resolve => {
      agent.stdout?.once('data', () => resolve(true))
      agent.once('exit', () => resolve(false))
      agent.once('error', () => resolve(false))
      timer = setTimeout(() => resolve(false), READY_TIMEOUT_MS)
    })
    clearTimeout(timer)
    if (!ready)
      throw new CliFailure(`agent ${name} did not start; see \`elasticos doctor\`${this.#logTail(name)}`)
  }

  async #allJoined(): Promise<boolean> {
    const views = await Promise.all(
      NAMES.map(async name => {
        const client = await ControlClient.connect(this.#control(name))
        try {
          return await client.ask('nodes', {})
        } finally {
          client.close()
        }
      }),
    )
    return views.every(nodes => nodes.filter(node => node.state === 'joined').length >= NAMES.length)
  }

  #logTail(name: string = NAMES[0]): string {
    try {
      const text = readFileSync(join(this.directory, `${name}.log`), 'utf8').trim()
      return text === '' ? '' : `\nits log ends: ${text.slice(-LOG_CHARACTERS_MAX)}`
    } catch {
      return ''
    }
  }

  async #pagersGone(): Promise<void> {
    const attemptsMax = PAGERS_GONE_TIMEOUT_MS / POLL_MS
    for (let attempt = 0; attempt < attemptsMax && pagersOf(this.directory).length > 0; attempt++) {
      await sleep(POLL_MS)
    }
    for (const pid of pagersOf(this.directory)) process.kill(pid, 'SIGKILL')
  }
}

/** Pagers that were started with a socket below `directory`, which is ours alone. */
function pagersOf(directory: string): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter(pid => pid > 0)
    .filter(pid => {
      try {
        const isPager = basename(readlinkSync(`/proc/${pid}/exe`)).startsWith('elasticos-pager')
        return isPager && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(`${directory}/`)
      } catch {
        return false
      }
    })
}
