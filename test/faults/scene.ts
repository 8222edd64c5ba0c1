/**
 * What the fault tests have in common: a program in mid-run whose pages are spread over all nodes, and the checks that
 * every end has to pass.
 */

import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { PagerClient } from '../../kmod/pager-client.js'
import { homeSocketPath } from '../../kmod/pager-host.js'
import { type Running, type RunOutcome, type TestCluster, until } from '../helpers/cluster.js'
import { type Before, leftovers, snapshot } from '../helpers/leftovers.js'
import type { Hosts } from '../helpers/namespaces.js'
import { alive, census, commandLine, type ProcessSeen } from '../helpers/processes.js'
import { buildProgram } from '../helpers/programs.js'

/** From the kill to the end of `run`, by the command-line contract. */
export const END_WITHIN_MS = 5000
const MEGABYTES = 20
const PORT = 7421
const MEMORY = '8M'
const PATTERN_FACTOR = 0x9e3779b97f4a7c15n

export interface Scene {
  readonly cluster: TestCluster
  readonly running: Running
  readonly copy: string
  readonly before: Before
  /** All processes while it ran. */
  readonly during: readonly ProcessSeen[]
  readonly nodes: number
}

export interface SceneOptions {
  /** 0: until it is killed. */
  readonly rounds?: number
  /** The copier's process has a child that does nothing, which must not be orphaned. */
  readonly withChild?: boolean
  /** Words in front of `elasticos run`. */
  readonly prefix?: readonly string[]
}

/** One agent on each host; each is told of those before it. */
export async function startOnHosts(cluster: TestCluster, hosts: Hosts, count: number): Promise<void> {
  const names = ['a', 'b', 'c'].slice(0, count)
  const address = (index: number) => `/ip4/${hosts.address(index)}/tcp/${PORT}`
  await Promise.all(
    names.map((name, i) =>
      cluster.startAgent(name, {
        prefix: hosts.prefix(i),
        peers: names.slice(0, i).map((_, j) => address(j)),
        flags: ['--listen', address(i), '--capacity', '64M'],
      }),
    ),
  )
}

/** Starts the copier on `nodes` nodes and waits until it has been through its memory once. */
export async function startScene(
  cluster: TestCluster,
  nodes: number,
  options: SceneOptions = {},
): Promise<Scene> {
  await cluster.whenJoined(nodes)
  const before = snapshot(cluster)
  const program = buildProgram('copier', cluster.directory)
  const copy = cluster.path('copy')
  rmSync(copy, { force: true })
  const flags = [
    '--memory',
    MEMORY,
    '--participants-min',
    String(nodes),
    '--wait',
    '15s',
    '--jump-every',
    '20',
  ]
  const command = [program, String(MEGABYTES), copy, String(options.rounds ?? 0)]
  if (options.withChild === true) command.unshift('sh', '-c', 'sleep 1000 & exec "$@"', 'sh')
  const running = cluster.run('a', flags, command, { prefix: options.prefix ?? [] })
  const early = running.outcome.then(end => {
    throw new Error(`it ended before anything was killed: ${end.status} ${end.stderr}`)
  })
  await Promise.race([
    early,
    until('a round of the copier', () => running.stdout.includes('round 1'), 30_000),
  ])
  early.catch(() => {})
  return { cluster, running, copy, before, during: census(cluster.directory), nodes }
}

/** Kills at once what `pids` name; resolves to the end of the run, which has to come in time. */
export async function killAll(
  t: ExecutionContext,
  scene: Scene,
  pids: readonly number[],
): Promise<RunOutcome> {
  const killedAtMs = performance.now()
  for (const pid of pids) process.kill(pid, 'SIGKILL')
  const end = await scene.running.outcome
  const tookMs = end.endedAtMs - killedAtMs
  t.true(tookMs < END_WITHIN_MS, `run ended ${Math.round(tookMs)} ms after the kill`)
  return end
}

/** Nothing is left anywhere, and the file has not a wrong word. */
export async function expectClean(t: ExecutionContext, scene: Scene): Promise<void> {
  t.deepEqual(await leftovers(scene.cluster, scene.before, scene.during), [])
  t.is(wrongWord(scene.copy), undefined)
}

/** Pid of the application, as its pager says it. */
export async function applicationOf(scene: Scene): Promise<number> {
  const { id } = scene.cluster.pagerOf('a')
  const socket = homeSocketPath(join(scene.cluster.agent('a').dataDir, 'run'), id)
  const pager = await PagerClient.connect(socket, 'observer')
  pager.close()
  return pager.describe.appPid
}

/** Tells the home pager on `a` to do without a participant, as its agent would. `root`: that of `a`. */
export async function contract(cluster: TestCluster, name: string, root = ''): Promise<void> {
  const line = commandLine(cluster.pagerOf(name).pid)
  const node = Number(line[line.indexOf('--node') + 1])
  const socket = homeSocketPath(join(cluster.agent('a').dataDir, 'run'), cluster.pagerOf('a').id)
  const pager = await PagerClient.connect(root + socket, 'agent')
  pager.send({ kind: 'participant-drop', node })
  await pager.requestStats()
  pager.close()
}

/** The first word of the copy that is not the program's, undefined when there is none. */
export function wrongWord(path: string): string | undefined {
  const bytes = readFileSync(path)
  if (bytes.byteLength === 0) return 'the copy is empty'
  const words = new BigUint64Array(bytes.buffer, bytes.byteOffset, Math.floor(bytes.byteLength / 8))
  for (let i = 0; i < words.length; i++) {
    const right = BigInt.asUintN(64, BigInt(i + 1) * PATTERN_FACTOR) | 1n
    if (words[i] !== right) return `word ${i} is 0x${words[i]?.toString(16)}, not 0x${right.toString(16)}`
  }
  return undefined
}

/** Waits for more output of the program: it still runs. */
export async function expectProgress(t: ExecutionContext, scene: Scene, withinMs = 15_000): Promise<void> {
  const had = scene.running.stdout.length
  await until('the program to go on', () => scene.running.stdout.length > had, withinMs)
  t.true(alive(scene.running.pid))
}
