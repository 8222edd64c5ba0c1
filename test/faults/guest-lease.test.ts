/**
 * A guest that does not want to leave (programs/endless_guest.c): it computes without a call or a fault, with more
 * threads, memory and processor time than was lent. It goes home when its lease ends, dies with its home and with its
 * pager, and has no more of anything than its lease says.
 */

import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import { PagerClient } from '../../kmod/pager-client.js'
import { peerSocketPath } from '../../kmod/pager-host.js'
import type { PagerStats } from '../../kmod/pager-stats.js'
import { type AgentStart, makeCluster, type Running, type TestCluster, until } from '../helpers/cluster.js'
import { alive } from '../helpers/processes.js'
import { buildProgram } from '../helpers/programs.js'

const TIMEOUT_MS = 150_000
const RUN_FAILED = 125
const TERMINATED = 128 + 15
const FLAGS = ['--memory', '8M', '--participants-min', '2', '--wait', '15s', '--jump-every', '1']
const AWAY_WITHIN_MS = 60_000
/** By the command-line contract, from the loss of a pager to the end of a run. */
const END_WITHIN_MS = 5000
const THREADS_LENT = 64
/** Most of them elsewhere, so that most threads end their walk there. */
const PAGES = 8000
/** Pages that go along with jumps, and what leaves again in the same round of the loop. */
const BEYOND_BYTES_MAX = 4 << 20
const NANOSECONDS = 1e9
/** Three times as many as a pager may have tables for. */
const FAR_APART_MEBIBYTES = 32_768

interface Away {
  readonly cluster: TestCluster
  readonly running: Running
  /** The shell process on b. */
  readonly shell: number
  readonly pager: number
}

/** Starts the program on two agents and waits until threads of it compute on b. */
async function away(
  t: ExecutionContext,
  program: { threads: number; pages: number },
  b: AgentStart = { flags: ['--capacity', '64M'] },
): Promise<Away> {
  t.timeout(TIMEOUT_MS)
  const cluster = await makeCluster(t)
  await cluster.startAgents(2, name => (name === 'b' ? b : {}))
  const path = buildProgram('endless_guest', cluster.directory)
  const command = [path, String(program.threads), String(program.pages)]
  const running = cluster.run('a', FLAGS, command, { timeoutMs: TIMEOUT_MS })
  t.teardown(() => {
    running.child.kill('SIGKILL')
  })
  await until('threads to be away', async () => (await threadsOnB(cluster)) > 0, AWAY_WITHIN_MS)
  const { id, pid } = cluster.pagerOf('b')
  const client = await PagerClient.connect(
    peerSocketPath(join(cluster.agent('b').dataDir, 'run'), id, 'b'),
    'observer',
  )
  const shell = client.describe.appPid
  client.close()
  t.true(alive(shell))
  return { cluster, running, shell, pager: pid }
}

async function threadsOnB(cluster: TestCluster): Promise<number> {
  const stats = (await cluster.processes('a'))[0]?.stats as PagerStats | undefined
  return (stats?.participants ?? []).find(each => each.node === 'b')?.threads ?? 0
}

async function terminate(t: ExecutionContext, running: Running): Promise<void> {
  running.child.kill('SIGTERM')
  const end = await running.outcome
  t.is(end.status, TERMINATED, end.stderr)
  t.is(end.stderr, '')
}

/** Of all its threads, in nanoseconds. */
function processorTime(pid: number): number {
  return readdirSync(`/proc/${pid}/task`)
    .map(tid => Number(readFileSync(`/proc/${pid}/task/${tid}/schedstat`, 'utf8').split(' ')[0]))
    .reduce((sum, each) => sum + each, 0)
}

/** What its file of elastic pages takes up, in bytes. */
function elasticBytes(pager: number): number {
  const files = readdirSync(`/proc/${pager}/fd`).map(fd => `/proc/${pager}/fd/${fd}`)
  const stats = files.map(path => statSync(path, { throwIfNoEntry: false }))
  return Math.max(...stats.map(stat => (stat !== undefined && stat.size >= 2 ** 46 ? stat.blocks * 512 : 0)))
}

/** Resident memory of a pager, in bytes; its file of elastic pages is not mapped. */
function ownBytes(pid: number): number {
  const [, pages = 0] = readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ').map(Number)
  return pages * 4096
}

test.serial('its lender stops: it goes home and computes there', async t => {
  const { cluster, running, shell } = await away(t, { threads: 4, pages: PAGES })
  await cluster.stopAgent('b')
  await until('its shell process to end', () => !alive(shell), END_WITHIN_MS)
  t.true(alive(running.pid))
  await terminate(t, running)
})

test.serial('its home is killed: it dies', async t => {
  const { cluster, running, shell } = await away(t, { threads: 4, pages: PAGES })
  process.kill(cluster.pagerOf('a').pid, 'SIGKILL')
  await until('its shell process to end', () => !alive(shell), END_WITHIN_MS)
  t.is((await running.outcome).status, RUN_FAILED)
})

test.serial('its home is killed, and no agent is left to say so: it dies', async t => {
  const { cluster, running, shell } = await away(t, { threads: 4, pages: PAGES })
  const home = cluster.pagerOf('a').pid
  await cluster.stopAgent('b', 'SIGKILL')
  await cluster.stopAgent('a', 'SIGKILL')
  process.kill(home, 'SIGKILL')
  await until('its shell process to end', () => !alive(shell), 2 * END_WITHIN_MS)
  t.is((await running.outcome).status, RUN_FAILED)
})

test.serial('its pager is killed: it dies, and the run ends', async t => {
  const { running, shell, pager } = await away(t, { threads: 4, pages: PAGES })
  process.kill(pager, 'SIGKILL')
  await until('its shell process to end', () => !alive(shell), END_WITHIN_MS)
  const end = await running.outcome
  t.is(end.status, RUN_FAILED)
  t.regex(end.stderr, /^elasticos: .+\bb\b.+\n$/)
})

test.serial('it wants more threads than are lent', async t => {
  const { cluster, running, shell } = await away(t, { threads: THREADS_LENT + 32, pages: PAGES })
  for (let look = 0; look < 20; look++) {
    // One more is the injector, which runs no code of the program.
    t.true(readdirSync(`/proc/${shell}/task`).length <= THREADS_LENT + 1)
    await sleep(100)
  }
  await terminate(t, running)
  const end = await running.outcome
  const peak = end.stats?.participants?.find(each => each.node === 'b')?.threadsPeak ?? 0
  t.true(peak > 0 && peak <= THREADS_LENT, `${peak} threads`)
  t.deepEqual(cluster.pagers(), [])
})

test.serial('it wants more memory than is lent', async t => {
  const capacity = 16 << 20
  const { running, pager } = await away(t, { threads: 4, pages: 16_000 }, { flags: ['--capacity', '16M'] })
  let most = 0
  for (let look = 0; look < 40; look++) {
    most = Math.max(most, elasticBytes(pager))
    await sleep(50)
  }
  t.log(`${most >> 10} KiB of ${capacity >> 10} lent`)
  t.true(most > capacity / 4 && most <= capacity + BEYOND_BYTES_MAX)
  await terminate(t, running)
})

test.serial('it wants more processor time than is lent', async t => {
  const share = 0.2
  const flags = ['--capacity', '64M', '--cpus', String(share)]
  const { running, shell } = await away(t, { threads: 8, pages: PAGES }, { flags })
  const [from, begun] = [processorTime(shell), performance.now()]
  await sleep(4000)
  const used = (processorTime(shell) - from) / NANOSECONDS
  const seconds = (performance.now() - begun) / 1000
  t.log(`${(used / seconds).toFixed(3)} processors of ${share} lent`)
  t.true(used > 0)
  t.true(used / seconds < 2 * share)
  await terminate(t, running)
})

test.serial('its pages lie so far apart that tables would take more than is lent', async t => {
  t.timeout(2 * TIMEOUT_MS)
  const cluster = await makeCluster(t)
  await cluster.startAgents(2, name => (name === 'b' ? { flags: ['--capacity', '16M'] } : {}))
  const path = buildProgram('far_apart', cluster.directory)
  const flags = ['--memory', '4M', '--participants-min', '2', '--wait', '15s']
  const running = cluster.run('a', flags, [path, String(FAR_APART_MEBIBYTES), '2'], { timeoutMs: TIMEOUT_MS })
  let most = 0
  const look = setInterval(() => {
    for (const { node, pid } of cluster.pagers()) if (node === 'b') most = Math.max(most, ownBytes(pid))
  }, 50)
  const end = await running.outcome
  clearInterval(look)
  t.is(end.status, 0, end.stderr)
  t.is(end.stdout.toString(), 'far apart: all right\n')
  t.log(`${most >> 20} MiB`)
  t.true(most > 32 << 20 && most < 90 << 20)
})
