/**
 * Real agents in processes of their own on the loopback interface, and `elasticos run` beside them.
 *
 * Everything a cluster starts inherits an environment variable that names its directory, so that what is left over
 * can be told from what other tests run at the same time (processes.ts). Agents do not use discovery unless asked:
 * each later one is told of the first one. The directory lies on a real file system (spill refuses tmpfs) and has a
 * short path (unix sockets take 107 bytes).
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chownSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ExecutionContext } from 'ava'
import { generateKey } from '../../agent/key.js'
import type { NodeInfo, ProcessInfo } from '../../agent/service.js'
import type { PagerStats } from '../../kmod/pager-stats.js'
import { type Outcome, outcomeOf, until } from './outcome.js'
import { alive, commandLine, TAG, taggedPids } from './processes.js'

export { type Outcome, outcomeOf, until } from './outcome.js'

const MAIN_URL = new URL('../../agent/cli/main.js', import.meta.url).href
const READY_TIMEOUT_MS = 60_000
const RUN_TIMEOUT_MS = 60_000
const STOP_TIMEOUT_MS = 8_000
const POLL_MS = 20
/** statfs f_type of tmpfs (statfs(2)). */
const TMPFS = 0x01021994
const ANY_PORT = '/ip4/127.0.0.1/tcp/0'

export interface RunOutcome extends Outcome {
  readonly stats: RunStats | undefined
}

/** The `--stats` file. */
export type RunStats = PagerStats & { mode?: string; exitStatus?: number; message?: string }

export interface SpawnOptions {
  readonly env?: Readonly<Record<string, string>>
  /** Runs as this user and group. */
  readonly uid?: number
  readonly input?: string | Buffer
  readonly timeoutMs?: number
  readonly cwd?: string
  /** Words in front of the command: `ip netns exec NAME`, `setpriv ...`. */
  readonly prefix?: readonly string[]
}

export interface AgentStart extends SpawnOptions {
  readonly flags?: readonly string[]
  readonly key?: string
  /** Default: the agents that run already. */
  readonly peers?: readonly string[]
  readonly discovery?: boolean
}

export interface TestAgent {
  readonly name: string
  readonly child: ChildProcess
  readonly pid: number
  readonly peerId: string
  readonly address: string
  readonly control: string
  readonly dataDir: string
  readonly start: AgentStart
}

/** A pager of the cluster, as its command line says. */
export interface TestPager {
  readonly pid: number
  readonly role: 'home' | 'peer'
  readonly node: string
  readonly id: string
}

/** A run that goes on. */
export class Running {
  readonly outcome: Promise<RunOutcome>
  readonly pid: number
  /** What the program has written to standard output so far. */
  stdout = ''

  constructor(
    readonly child: ChildProcess,
    statsPath: string,
    timeoutMs: number,
  ) {
    this.pid = child.pid ?? 0
    child.stdout?.on('data', chunk => {
      this.stdout += chunk
    })
    this.outcome = outcomeOf(child, timeoutMs).then(end => ({ ...end, stats: readStats(statsPath) }))
  }
}

export class TestCluster {
  readonly agents = new Map<string, TestAgent>()
  readonly #launcher: string
  readonly #listen = new Map<string, string>()
  #runs = 0

  private constructor(
    readonly directory: string,
    mainUrl: string,
  ) {
    this.#launcher = join(directory, 'elasticos.mjs')
    const polyfill =
      'Promise.withResolvers ??= function () { let resolve, reject; const promise = new this((a, b) => { resolve = a; reject = b }); return { promise, resolve, reject } }'
    const start = `const { main } = await import('${mainUrl}')\nprocess.exitCode = await main(process.argv.slice(2))`
    writeFileSync(this.#launcher, `${polyfill}\n${start}\n`)
    mkdirSync(join(directory, 'home', 'run'), { recursive: true })
  }

  /**
   * Makes the directory and a network key; nothing runs yet. `owner`: the user (and group) whom it all belongs to.
   * `mainUrl`: another copy of the command line.
   */
  static async make(options: { owner?: number; mainUrl?: string } = {}): Promise<TestCluster> {
    const parent = ['/tmp', '/var/tmp'].find(path => existsSync(path) && statfsSync(path).type !== TMPFS)
    const directory = mkdtempSync(join(parent ?? '/tmp', 'el-'))
    const cluster = new TestCluster(directory, options.mainUrl ?? MAIN_URL)
    await generateKey(cluster.keyFile)
    const { owner } = options
    for (const path of owner === undefined ? [] : ['', 'home', 'home/run', 'network.key'])
      chownSync(join(directory, path), owner ?? 0, owner ?? 0)
    return cluster
  }

  get keyFile(): string {
    return join(this.directory, 'network.key')
  }

  /** Of everything that the cluster starts. */
  get environment(): Record<string, string> {
    const { PATH = '/usr/bin:/bin', ELASTICOS_PAGER } = process.env
    return {
      PATH,
      HOME: this.path('home'),
      XDG_STATE_HOME: this.path('home', 'state'),
      XDG_RUNTIME_DIR: this.path('home', 'run'),
      LC_ALL: 'C',
      [TAG]: this.directory,
      ...(ELASTICOS_PAGER === undefined ? {} : { ELASTICOS_PAGER }),
    }
  }

  path(...names: string[]): string {
    return join(this.directory, ...names)
  }

  /** Starts an agent and waits until it is ready. */
  async startAgent(name: string, start: AgentStart = {}): Promise<TestAgent> {
    const control = this.path(`${name}.sock`)
    const dataDir = this.path(name)
    const others = [...this.agents.values()].filter(agent => agent.name !== name && alive(agent.pid))
    const peers = start.peers ?? others.map(agent => agent.address)
    const args = ['agent', '--name', name, '--data', dataDir, '--control', control]
    args.push('--key', start.key ?? this.keyFile)
    if (!(start.flags ?? []).includes('--listen')) args.push('--listen', this.#listen.get(name) ?? ANY_PORT)
    if (start.discovery !== true) args.push('--no-discovery')
    for (const peer of peers) args.push('--peer', peer)
    const log = openSync(this.path(`${name}.log`), 'a', 0o600)
    const child = this.#spawn([...args, ...(start.flags ?? [])], start, ['ignore', 'pipe', log])
    closeSync(log)
    const line = await readyLine(child)
    const ready = /ready: (\S+), control .*, listening (\S+)/.exec(line)
    if (ready === null) {
      child.kill('SIGKILL')
      throw new Error(`agent ${name} did not start: ${line}\n${this.log(name).slice(-2000)}`)
    }
    const [, peerId = '', address = ''] = ready
    const agent = { name, child, pid: child.pid ?? 0, peerId, address, control, dataDir, start }
    this.agents.set(name, agent)
    return agent
  }

  /** Starts agents `a`, `b`, `c`, ... side by side and waits until each sees `joined` of them. */
  async startAgents(
    count: number,
    start: AgentStart | ((name: string) => AgentStart) = {},
    joined = count,
  ): Promise<void> {
    const names = ['a', 'b', 'c', 'd'].slice(0, count)
    const ports = await freePorts(count)
    names.forEach((name, i) => {
      this.#listen.set(name, `/ip4/127.0.0.1/tcp/${ports[i]}`)
    })
    const peersOf = (name: string) =>
      names.filter(each => each < name).map(each => this.#listen.get(each) ?? '')
    await Promise.all(
      names.map(name =>
        this.startAgent(name, {
          peers: peersOf(name),
          ...(typeof start === 'function' ? start(name) : start),
        }),
      ),
    )
    await this.whenJoined(joined)
  }

  /** Starts an agent again with the directories, port and flags it had. */
  async restartAgent(name: string): Promise<TestAgent> {
    const { address, start } = this.agent(name)
    this.#listen.set(name, address.replace(/\/p2p\/.*$/, ''))
    const peers = [...this.agents.values()].filter(each => each.name !== name).map(each => each.address)
    return await this.startAgent(name, { ...start, peers })
  }

  agent(name: string): TestAgent {
    const agent = this.agents.get(name)
    if (agent === undefined) throw new Error(`no agent ${name}`)
    return agent
  }

  log(name: string): string {
    return existsSync(this.path(`${name}.log`)) ? readFileSync(this.path(`${name}.log`), 'utf8') : ''
  }

  async whenJoined(count: number, names = [...this.agents.keys()]): Promise<void> {
    for (const name of names) {
      const joined = async () => {
        const nodes = await this.nodes(name)
        return nodes.filter(node => node.state === 'joined').length >= count
      }
      await until(`${count} agents seen by ${name}`, joined, READY_TIMEOUT_MS)
    }
  }

  async nodes(name: string): Promise<NodeInfo[]> {
    return this.#ask(name, 'nodes') as Promise<NodeInfo[]>
  }

  async processes(name: string): Promise<ProcessInfo[]> {
    return this.#ask(name, 'processes') as Promise<ProcessInfo[]>
  }

  /** Starts `elasticos run` against the agent `name`. */
  run(
    name: string,
    flags: readonly string[],
    command: readonly string[],
    options: SpawnOptions = {},
  ): Running {
    const stats = this.path(`stats-${++this.#runs}.json`)
    const args = ['run', '--control', this.agent(name).control, '--stats', stats, ...flags, '--', ...command]
    const child = this.#spawn(args, options, ['pipe', 'pipe', 'pipe'])
    child.stdin?.on('error', () => {})
    child.stdin?.end(options.input ?? '')
    return new Running(child, stats, options.timeoutMs ?? RUN_TIMEOUT_MS)
  }

  /** Any command of elasticos, to its end. */
  async cli(args: readonly string[], options: SpawnOptions = {}): Promise<Outcome> {
    const child = this.#spawn(args, options, ['pipe', 'pipe', 'pipe'])
    child.stdin?.on('error', () => {})
    child.stdin?.end(options.input ?? '')
    return await outcomeOf(child, options.timeoutMs ?? RUN_TIMEOUT_MS)
  }

  /** Pagers that run now, home first. */
  pagers(): TestPager[] {
    const found: TestPager[] = []
    for (const pid of taggedPids(this.directory)) {
      const line = commandLine(pid)
      const value = (flag: string) => line[line.indexOf(flag) + 1] ?? ''
      const role = line[1]
      if (!(line[0] ?? '').includes('elasticos-pager') || (role !== 'home' && role !== 'peer')) continue
      // The holder is a fork of its pager; its name tells them apart.
      if (readFileSync(`/proc/${pid}/comm`, 'utf8').startsWith('elasticos-hold')) continue
      found.push({ pid, role, node: value('--name'), id: value('--id') })
    }
    return found.sort((a, b) => a.role.localeCompare(b.role) || a.node.localeCompare(b.node))
  }

  pagerOf(node: string): TestPager {
    const pager = this.pagers().find(each => each.node === node)
    if (pager === undefined) throw new Error(`no pager on ${node}`)
    return pager
  }

  /** Ends one agent in order. */
  async stopAgent(name: string, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const { child } = this.agent(name)
    this.agents.delete(name)
    if (child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill(signal)
    const late = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT_MS)
    await ended
    clearTimeout(late)
  }

  /** Ends everything the cluster started, and removes its directory. Resolves to what had to be killed. */
  async stop(): Promise<string[]> {
    await Promise.all([...this.agents.keys()].map(name => this.stopAgent(name)))
    const deadline = performance.now() + STOP_TIMEOUT_MS / 2
    while (taggedPids(this.directory).length > 0 && performance.now() < deadline) await sleep(POLL_MS)
    const left = taggedPids(this.directory)
    const lines = left.map(pid => `${pid} ${commandLine(pid).join(' ')}`)
    for (const pid of left) if (alive(pid)) process.kill(pid, 'SIGKILL')
    rmSync(this.directory, { recursive: true, force: true })
    return lines
  }

  #spawn(
    args: readonly string[],
    options: SpawnOptions,
    stdio: ('ignore' | 'pipe' | number)[],
  ): ChildProcess {
    const [program = '', ...words] = [...(options.prefix ?? []), process.execPath, this.#launcher, ...args]
    return spawn(program, words, {
      env: { ...this.environment, ...options.env },
      stdio,
      cwd: options.cwd ?? this.directory,
      ...(options.uid === undefined ? {} : { uid: options.uid, gid: options.uid }),
    })
  }

  async #ask(name: string, what: 'nodes' | 'processes'): Promise<unknown> {
    const { ControlClient } = await import('../../agent/control/client.js')
    const client = await ControlClient.connect(this.agent(name).control)
    try {
      return await client.ask(what, {})
    } finally {
      client.close()
    }
  }
}

/** Ports of the loopback interface that were free a moment ago. */
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'))
  await Promise.all(servers.map(server => once(server, 'listening')))
  const ports = servers.map(server => (server.address() as AddressInfo).port)
  await Promise.all(servers.map(server => new Promise(resolve => server.close(resolve))))
  return ports
}

async function readyLine(child: ChildProcess): Promise<string> {
  let timer: NodeJS.Timeout | undefined
  const line = await new Promise<string>(resolve => {
    let text = ''
    child.stdout?.on('data', chunk => {
      text += chunk
      if (text.includes('\n')) resolve(text)
    })
    child.once('exit', (code, signal) => resolve(`it ended (${signal ?? code})`))
    child.once('error', error => resolve(error.message))
    timer = setTimeout(() => resolve('it said nothing in time'), READY_TIMEOUT_MS)
  })
  clearTimeout(timer)
  return line
}

function readStats(path: string): RunStats | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as RunStats
  } catch {
    return undefined
  }
}

/** A cluster for one test, stopped at its end; what is left over then fails the test. */
export async function makeCluster(t: ExecutionContext): Promise<TestCluster> {
  const cluster = await TestCluster.make()
  t.teardown(async () => {
    const left = await cluster.stop()
    if (left.length > 0) throw new Error(`left over: ${left.join('; ')}`)
  })
  return cluster
}
