/**
 * What passes on the lanes: the sums of what nodes sent and received agree, and a program that changes its mappings
 * faster than a lender reads of it waits for the lender, instead of filling the memory of home.
 */

import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import { TestCluster, until } from '../helpers/cluster.js'
import { buildProgram } from '../helpers/programs.js'

const TIMEOUT_MS = 90_000
const FLAGS = ['--memory', '16M', '--participants-min', '2', '--wait', '15s', '--policy', 'always-pull']
/** Less than the silence after which a participant counts as lost. */
const STOPPED_MS = 3000
const GROWTH_KB_MAX = 6144
/** What was on its way when the last counters were written. */
const IN_FLIGHT_BYTES_MAX = 1 << 20

let cluster: TestCluster

test.before(async t => {
  t.timeout(TIMEOUT_MS)
  cluster = await TestCluster.make()
  await cluster.startAgents(2, { flags: ['--capacity', '64M'] })
})

test.after.always(async t => {
  t.deepEqual(await cluster?.stop(), [])
})

test.serial('what was sent is what was received', async t => {
  t.timeout(TIMEOUT_MS)
  const program = buildProgram('linear_search', cluster.directory)
  const end = await cluster.run('a', FLAGS, [program, '8000', '2']).outcome
  t.is(end.status, 0, end.stderr)
  const { bytesSent = 0, bytesReceived = 0 } = (end.stats ?? {}) as Record<string, number>
  t.log(`sent ${bytesSent}, received ${bytesReceived}`)
  t.true(bytesSent > 32 << 20)
  t.true(Math.abs(bytesSent - bytesReceived) < IN_FLIGHT_BYTES_MAX)
})

function residentKb(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])
}

test.serial('layout waits for a lender that does not read it', async t => {
  t.timeout(TIMEOUT_MS)
  const program = buildProgram('map_storm', cluster.directory)
  const begin = join(cluster.directory, 'begin')
  execFileSync('mkfifo', [begin])
  const running = cluster.run('a', FLAGS, [program, '1000', begin], { timeoutMs: TIMEOUT_MS })
  await until('the program', () => running.stdout.includes('waiting'), 30_000)
  const [home, lender] = [cluster.pagerOf('a').pid, cluster.pagerOf('b').pid]
  const before = residentKb(home)
  process.kill(lender, 'SIGSTOP')
  await writeFile(begin, '')
  await sleep(STOPPED_MS)
  const growth = residentKb(home) - before
  process.kill(lender, 'SIGCONT')
  t.false(running.stdout.includes('done'), 'it waited')
  const end = await running.outcome
  t.is(end.status, 0, end.stderr)
  t.log(`home grew by ${growth} KiB`)
  t.true(growth < GROWTH_KB_MAX)
})
