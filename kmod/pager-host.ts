/**
 * Starts pagers and asks the pager program about the machine: the one place that knows where the executable lies,
 * what its arguments are called and where its sockets go.
 *
 * A peer pager is detached (its own session, log file 0600) because it has to outlive its agent; a home pager is
 * started by `run` itself, which only takes the arguments from here.
 * Limits: everything has a time limit; secrets never go into arguments or the environment.
 */

import { execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { PagerClient, PagerError } from './pager-client.js'

const START_TIMEOUT_MS = 5000
const START_POLL_MS = 4
const QUERY_TIMEOUT_MS = 10_000
const QUERY_OUTPUT_BYTES_MAX = 1 << 20
const LOG_TAIL_BYTES = 400
const DIRECTORY_LEVELS_MAX = 6

/** Directory of the installed package or checkout, found from this file (in kmod/ or in dist/kmod/). */
export function packageRoot(): string {
  let directory = dirname(fileURLToPath(import.meta.url))
  for (let level = 0; level < DIRECTORY_LEVELS_MAX; level++) {
    if (existsSync(join(directory, 'package.json'))) return directory
    directory = dirname(directory)
  }
  throw new PagerError(
    'not-built',
    'the elasticos package is damaged: package.json is missing; install it again',
  )
}

/** The pager executable; the environment variable ELASTICOS_PAGER names another one (for tests). */
export function pagerPath(): string {
  const override = process.env.ELASTICOS_PAGER
  const path =
    override !== undefined && override !== ''
      ? override
      : join(packageRoot(), 'kmod', 'pager', 'build', 'elasticos-pager')
  try {
    accessSync(path, constants.X_OK)
  } catch (error) {
    const remedy = 'run `npm rebuild` there, or `npm run build` in a checkout'
    throw new PagerError('not-built', `no pager at ${path}: ${remedy}`, { cause: error })
  }
  return path
}

export interface HomePagerOptions {
  readonly id: string
  readonly socketPath: string
  readonly memoryPages: number
  readonly spillDir: string
  readonly spillMaxBytes: number
  readonly policy: string
  /** 0: the policy decides. */
  readonly jumpEvery: number
  readonly nodeName: string
  readonly command: readonly string[]
}

/** Arguments of a home pager whose run channel is descriptor 3. */
export function homePagerArguments(options: HomePagerOptions): string[] {
  return [
    'home',
    ...['--id', options.id],
    ...['--socket', options.socketPath],
    ...['--memory-pages', String(options.memoryPages)],
    ...['--spill-dir', options.spillDir],
    ...['--spill-max-bytes', String(options.spillMaxBytes)],
    ...['--policy', options.policy],
    ...['--jump-every', String(options.jumpEvery)],
    ...['--run-fd', '3'],
    ...['--name', options.nodeName],
    '--',
    ...options.command,
  ]
}

export interface PeerPagerOptions {
  readonly id: string
  /** Runtime directory of the agent; the socket goes into its `pagers/`. */
  readonly runtimeDir: string
  readonly dataDir: string
  /** Name of the agent that starts it: several agents on one machine may hold the same process. */
  readonly agentName: string
  /** Index of this node in the elastic process. */
  readonly node: number
  readonly nodeName: string
  /** Address the lanes listen on. */
  readonly listenHost: string
  readonly memoryPages: number
  readonly spillMaxBytes: number
}

/** Where the sockets of the pagers of one runtime directory are. */
export function pagerSocketDir(runtimeDir: string): string {
  return join(runtimeDir, 'pagers')
}

export function homeSocketPath(runtimeDir: string, id: string): string {
  return join(pagerSocketDir(runtimeDir), `${id}.home.sock`)
}

export function peerSocketPath(runtimeDir: string, id: string, agentName: string): string {
  const hash = createHash('sha256').update(agentName).digest('hex').slice(0, 8)
  return join(pagerSocketDir(runtimeDir), `${id}.peer.${hash}.sock`)
}

/** Where a peer pager writes what it cannot tell its agent: `<data>/log/<id>.peer.log`. */
export function peerLogPath(dataDir: string, id: string): string {
  return join(dataDir, 'log', `${id}.peer.log`)
}

/** Where pages that find no room go: `<data>/spill`, made on first use. */
export function spillDirectory(dataDir: string): string {
  const directory = join(dataDir, 'spill')
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  return directory
}

/**
 * Starts a peer pager and connects to it as an agent. Throws PagerError `not-built`, `timeout`, or `failed` with the
 * last line of its log; nothing is left running then.
 */
export async function spawnPeerPager(
  options: PeerPagerOptions,
): Promise<{ client: PagerClient; pid: number; socketPath: string }> {
  const executable = pagerPath()
  const socketPath = peerSocketPath(options.runtimeDir, options.id, options.agentName)
  const logPath = peerLogPath(options.dataDir, options.id)
  mkdirSync(pagerSocketDir(options.runtimeDir), { recursive: true, mode: 0o700 })
  mkdirSync(dirname(logPath), { recursive: true, mode: 0o700 })
  const log = openSync(logPath, 'a', 0o600)
  const args = [
    'peer',
    ...['--id', options.id],
    ...['--socket', socketPath],
    ...['--node', String(options.node)],
    ...['--name', options.nodeName],
    ...['--listen', options.listenHost],
    ...['--memory-pages', String(options.memoryPages)],
    ...['--spill-dir', spillDirectory(options.dataDir)],
    ...['--spill-max-bytes', String(options.spillMaxBytes)],
  ]
  const child = spawn(executable, args, { detached: true, stdio: ['ignore', log, log], cwd: '/' })
  closeSync(log)
  let ended: string | undefined
  child.once('error', error => {
    ended = error.message
  })
  child.once('exit', (code, signal) => {
    ended = signal ?? `exit status ${code}`
  })
  child.unref()
  try {
    const client = await connectWhenUp(socketPath, () => ended)
    return { client, pid: client.describe.pagerPid, socketPath }
  } catch (error) {
    if (ended === undefined) child.kill('SIGKILL')
    const said = lastLine(logPath)
    const why = said ?? (error instanceof Error ? error.message : String(error))
    throw new PagerError('failed', `the pager did not start: ${why}`, { cause: error })
  }
}

async function connectWhenUp(socketPath: string, ended: () => string | undefined): Promise<PagerClient> {
  const attemptsMax = START_TIMEOUT_MS / START_POLL_MS
  for (let attempt = 0; attempt < attemptsMax; attempt++) {
    const reason = ended()
    if (reason !== undefined) throw new PagerError('failed', reason)
    if (existsSync(socketPath)) {
      try {
        return await PagerClient.connect(socketPath, 'agent')
      } catch (error) {
        if (!(error instanceof PagerError) || error.code !== 'gone') throw error
      }
    }
    await sleep(START_POLL_MS)
  }
  throw new PagerError('timeout', 'it made no socket within 5 s')
}

function lastLine(path: string): string | undefined {
  try {
    const lines = readFileSync(path, 'utf8').slice(-LOG_TAIL_BYTES).trim().split('\n')
    return lines.at(-1) || undefined
  } catch {
    return undefined
  }
}

const SOCKET_NAME = /^[0-9a-f]{16}\.(home|peer\.[0-9a-z]+)\.sock$/

/** Paths of all pager sockets in a runtime directory, sorted; stale ones included. */
export async function listPagerSockets(runtimeDir: string): Promise<string[]> {
  const directory = pagerSocketDir(runtimeDir)
  try {
    const names = readdirSync(directory).filter(name => SOCKET_NAME.test(name))
    return names.sort().map(name => join(directory, name))
  } catch {
    return []
  }
}

/** What decides whether two machines fit, as `elasticos-pager facts` says it. */
export interface Facts {
  readonly protocolVersion: number
  readonly pageSize: number
  readonly kernel: string
  readonly cpuVendor: string
  readonly cpuFeatures: readonly string[]
  readonly xcr0: string
  readonly arch: string
}

/** One thing the pager needs of the machine. `needed` false: it works without, only slower or less sealed off. */
export interface Check {
  readonly name: string
  readonly ok: boolean
  readonly needed: boolean
  readonly detail: string
  readonly remedy: string
}

/** Compatibility facts of this machine. Throws PagerError. */
export async function pagerFacts(): Promise<Facts> {
  const facts = await query(['facts'])
  if (!isFacts(facts)) throw new PagerError('malformed', 'the pager gives no usable facts; build it again')
  return facts
}

/** What the pager finds on this machine; `spillDir` is checked too when given. Throws PagerError. */
export async function pagerDoctor(spillDir?: string): Promise<Check[]> {
  const checks = await query(spillDir === undefined ? ['doctor'] : ['doctor', '--spill-dir', spillDir])
  if (!Array.isArray(checks) || !checks.every(isCheck)) {
    throw new PagerError('malformed', 'the pager gives no usable checks; build it again')
  }
  return checks.map(check => ({ ...check, needed: check.needed ?? true, remedy: check.remedy ?? '' }))
}

function query(args: string[]): Promise<unknown> {
  const executable = pagerPath()
  const limits = { timeout: QUERY_TIMEOUT_MS, maxBuffer: QUERY_OUTPUT_BYTES_MAX }
  return new Promise((resolve, reject) => {
    execFile(executable, args, limits, (error, stdout, stderr) => {
      try {
        resolve(JSON.parse(stdout))
      } catch {
        const why = stderr.trim().split('\n').at(-1) || error?.message || 'its output is not JSON'
        reject(new PagerError('failed', `\`elasticos-pager ${args[0]}\` failed: ${why}`))
      }
    })
  })
}

function isFacts(value: unknown): value is Facts {
  if (typeof value !== 'object' || value === null) return false
  const facts = value as { [Field in keyof Facts]?: unknown }
  return (
    Number.isInteger(facts.protocolVersion) &&
    Number.isInteger(facts.pageSize) &&
    [facts.kernel, facts.cpuVendor, facts.xcr0, facts.arch].every(text => typeof text === 'string') &&
    Array.isArray(facts.cpuFeatures) &&
    facts.cpuFeatures.every(name => typeof name === 'string')
  )
}

function isCheck(
  value: unknown,
): value is Omit<Check, 'needed' | 'remedy'> & { needed?: boolean; remedy?: string } {
  if (typeof value !== 'object' || value === null) return false
  const check = value as { [Field in keyof Check]?: unknown }
  return (
    typeof check.name === 'string' &&
    typeof check.ok === 'boolean' &&
    typeof check.detail === 'string' &&
    (check.remedy === undefined || typeof check.remedy === 'string') &&
    (check.needed === undefined || typeof check.needed === 'boolean')
  )
}
