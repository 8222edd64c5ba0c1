/**
 * Runs one program under a home pager that is joined by one peer pager over a lane on the loopback interface, both
 * started here directly and pinned: no agent is in the way, as none is in a running elastic process.
 *
 * Limits: everything ends when the program does, or after the time limit; a run that does not end with exit status 0
 * is an error.
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { PagerClient } from '../../kmod/pager-client.js'
import { homePagerArguments, pagerPath } from '../../kmod/pager-host.js'
import type { PagerEvent, PagerStats } from '../../kmod/pager-messages.js'

export interface PairOptions {
  readonly cpus: 1 | 2
  /** Memory limit at home. */
  readonly memoryPages: number
  readonly command: readonly string[]
  /** 0: the policy decides. */
  readonly jumpEvery?: number
  readonly peerPages?: number
  readonly environment?: Readonly<Record<string, string>>
  readonly secondsMax?: number
  /** Stands before the command of the home pager. */
  readonly homePrefix?: readonly string[]
}

export interface PairOutcome {
  readonly stdout: string
  readonly stats: PagerStats
  /** From the start of the program to its end. */
  readonly wallMs: number
  /** Of the home and the peer pager, to within LOOK_MS of their end. */
  readonly usage: { readonly home: Usage; readonly peer: Usage }
}

/** What a process has used. */
export interface Usage {
  /** Processor time of its first thread: a pager's page plane. */
  readonly cpuNs: number
  /** Most resident memory that is no file's: tables and buffers, not the pages themselves. */
  readonly anonBytes: number
}

const SPILL_BYTES_MAX = 4 * 2 ** 30
const LEASE_MS = 60_000
const STEP_MS = 20_000
const POLL_MS = 5
/** One that has ended, or has given its tables back before it does, is looked at in vain: so often each is. */
const LOOK_MS = 50
const LEASE_ID = 1
export const CPU_HOME = 0

/** CPU of the peer pager. */
export function peerCpu(cpus: 1 | 2): number {
  return cpus === 1 ? CPU_HOME : CPU_HOME + 1
}

/** A program and its arguments, kept on one CPU. */
export function pinned(cpu: number, command: readonly string[]): [string, string[]] {
  return ['taskset', ['-c', String(cpu), ...command]]
}

/** One process and what it wrote; killed by `end`. */
class Child {
  readonly exited: Promise<string>
  stdout = ''
  stderr = ''
  readonly process: ChildProcess

  constructor(cpu: number, command: readonly string[], environment: Readonly<Record<string, string>> = {}) {
    const [program, args] = pinned(cpu, command)
    const env = { ...process.env, ...environment }
    this.process = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe', 'pipe'], env })
    this.process.stdout?.on('data', (chunk: Buffer) => {
      this.stdout += chunk.toString()
    })
    this.process.stderr?.on('data', (chunk: Buffer) => {
      this.stderr += chunk.toString()
    })
    const closed = new Promise<string>(resolve => {
      this.process.once('close', (code, signal) => resolve(signal ?? `exit status ${code}`))
    })
    const failed = new Promise<string>(resolve => {
      this.process.once('error', error => resolve(error.message))
    })
    this.exited = Promise.race([closed, failed])
  }

  get channel(): Socket {
    return this.process.stdio[3] as Readable as Socket
  }

  end(): void {
    if (this.process.exitCode === null) this.process.kill('SIGKILL')
  }
}

/** Runs the program to its end. Throws Error with what the pagers said. */
export async function runPair(options: PairOptions): Promise<PairOutcome> {
  const directory = mkdtempSync(join(tmpdir(), 'elasticos-bench-'))
  const spillDir = join(directory, 'spill')
  mkdirSync(spillDir)
  const id = randomBytes(8).toString('hex')
  const peer = new Child(peerCpu(options.cpus), peerCommand(options, id, directory, spillDir))
  const home = new Child(CPU_HOME, homeCommand(options, id, directory, spillDir), options.environment)
  let looking: NodeJS.Timeout | undefined
  try {
    const peerClient = await connect(join(directory, 'peer.sock'), peer)
    const homeClient = await PagerClient.over(home.channel, 'run')
    const run = new Run(homeClient, last => ({
      home: usageOf(home, last?.home),
      peer: usageOf(peer, last?.peer),
    }))
    looking = setInterval(() => run.look(), LOOK_MS)
    introduce(homeClient, peerClient)
    await within(
      Promise.race([run.joined, run.ended]),
      STEP_MS,
      () => `the pagers did not join: ${home.stderr}${peer.stderr}`,
    )
    homeClient.send({ kind: 'start' })
    const limitMs = 1000 * (options.secondsMax ?? 120)
    const wallMs = await within(
      run.ended,
      limitMs,
      () => `${options.command[0]} took longer than ${limitMs} ms`,
    )
    await within(home.exited, STEP_MS, () => 'the home pager does not end')
    if (run.usage === undefined) throw new Error('the pagers ended before they could be looked at')
    return { stdout: home.stdout, stats: run.stats, wallMs, usage: run.usage }
  } catch (error) {
    const said = `${home.stderr}${peer.stderr}`.trim()
    throw new Error(`${error instanceof Error ? error.message : error}${said === '' ? '' : `: ${said}`}`)
  } finally {
    clearInterval(looking)
    home.end()
    peer.end()
    await Promise.all([home.exited, peer.exited])
    rmSync(directory, { recursive: true, force: true })
  }
}

/**
 * What the pager that this child has become has used so far. One that has just ended is looked at in vain: then it is
 * what was seen before.
 */
function usageOf(child: Child, before: Usage | undefined): Usage {
  const seen = { cpuNs: 0, anonBytes: 0, ...before }
  try {
    const of = (file: string) => readFileSync(`/proc/${child.process.pid}/${file}`, 'utf8')
    const cpuNs = Number(of('schedstat').split(' ')[0])
    const anonKb = /^RssAnon:\s+(\d+) kB$/m.exec(of('status'))?.[1]
    return { cpuNs, anonBytes: Math.max(seen.anonBytes, 1024 * Number(anonKb ?? 0)) }
  } catch {
    return seen
  }
}

/** What the home pager tells of one run. */
class Run {
  stats: PagerStats = {}
  usage: PairOutcome['usage'] | undefined
  readonly joined: Promise<void>
  readonly ended: Promise<number>
  readonly look: () => void

  constructor(client: PagerClient, look: (last: PairOutcome['usage'] | undefined) => PairOutcome['usage']) {
    this.look = () => {
      this.usage = look(this.usage)
    }
    let startedMs = 0
    let reason = ''
    let joined = () => {}
    let ended = (_wallMs: number) => {}
    let fail = (_text: string) => {}
    this.joined = new Promise(resolve => {
      joined = resolve
    })
    this.ended = new Promise((resolve, reject) => {
      ended = resolve
      fail = text => reject(new Error(text))
    })
    this.ended.catch(() => {})
    client.on((event: PagerEvent) => {
      if (event.kind === 'lane-up') joined()
      else if (event.kind === 'lane-down')
        reason = event.reason // an ending run says so too
      else if (event.kind === 'started') startedMs = performance.now()
      else if (event.kind === 'stats') {
        this.stats = event.stats
        this.look()
      } else if (event.kind === 'exited') {
        if (event.how === 'exit' && event.code === 0) ended(performance.now() - startedMs)
        else fail(`the program ended with ${event.how} ${event.code} ${event.message} ${reason}`)
      }
    })
    client.onClose(reason => fail(reason))
  }
}

function homeCommand(options: PairOptions, id: string, directory: string, spillDir: string): string[] {
  const args = homePagerArguments({
    id,
    socketPath: join(directory, 'home.sock'),
    memoryPages: options.memoryPages,
    spillDir,
    spillMaxBytes: SPILL_BYTES_MAX,
    policy: 'always-pull',
    jumpEvery: options.jumpEvery ?? 0,
    nodeName: 'home',
    command: options.command,
  })
  return [...(options.homePrefix ?? []), pagerPath(), ...args]
}

const PEER_PAGES = 2 ** 18

function peerCommand(options: PairOptions, id: string, directory: string, spillDir: string): string[] {
  return [
    pagerPath(),
    'peer',
    ...['--id', id, '--socket', join(directory, 'peer.sock'), '--node', '1', '--name', 'peer'],
    ...['--listen', '127.0.0.1', '--memory-pages', String(options.peerPages ?? PEER_PAGES)],
    ...['--spill-dir', spillDir, '--spill-max-bytes', String(SPILL_BYTES_MAX)],
  ]
}

async function connect(socketPath: string, child: Child): Promise<PagerClient> {
  for (let attempt = 0; attempt < STEP_MS / POLL_MS; attempt++) {
    try {
      return await PagerClient.connect(socketPath, 'agent')
    } catch {
      if (child.process.exitCode !== null) throw new Error('the peer pager did not start')
      await sleep(POLL_MS)
    }
  }
  throw new Error('the peer pager does not answer')
}

/** What two agents do for their pagers: one lane with a fresh key. */
function introduce(home: PagerClient, peer: PagerClient): void {
  const laneKey = new Uint8Array(randomBytes(32))
  const lane = {
    kind: 'lane',
    leaseId: LEASE_ID,
    pagesMax: PEER_PAGES,
    threadsMax: 8,
    ttlMs: LEASE_MS,
    host: '127.0.0.1',
    laneKey,
    peerId: 'bench',
  } as const
  peer.send({ ...lane, node: 0, port: 0, nodeName: 'home' })
  home.send({ ...lane, node: 1, port: peer.describe.lanePort, nodeName: 'peer' })
}

async function within<T>(promise: Promise<T>, limitMs: number, why: () => string): Promise<T> {
  const timer = new AbortController()
  const late = sleep(limitMs, undefined, { signal: timer.signal }).then(() => {
    throw new Error(why())
  })
  late.catch(() => {})
  try {
    return await Promise.race([promise, late])
  } finally {
    timer.abort()
  }
}
