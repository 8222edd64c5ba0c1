/**
 * What is claimed of pulls and jumps, measured: prefetching pays where access is sequential and costs nothing where it
 * is random, eviction is no worse than a queue for python, and pages go along with jumps.
 *
 * The queue is real: with ELASTICOS_EVICT=fifo the pager never looks which pages were used, so the order of eviction is
 * that of arrival, everything else being the same. Python runs single-threaded with a fixed hash seed, so both runs
 * make the same references; what differs between equal runs is when a batch of evictions falls in (SLACK).
 */

import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import type { RunStats, TestCluster } from '../helpers/cluster.js'
import { buildProgram } from '../helpers/programs.js'
import { startCluster } from '../matrix/matrix.js'

const TIMEOUT_MS = 180_000
const SLACK = 1.05
/** Equal runs differ by up to 5 % themselves: so many of each are added up. */
const RUNS = 3
/** Equal runs of the hot pages' program differ by up to 13 %; a pager that finds no page in use pulls a third more. */
const SLACK_HOT = 1.2
const SEQUENTIAL_PAGES_PER_PULL_MIN = 16
const RANDOM_PAGES_PER_PULL_MAX = 1.2

let cluster: TestCluster

test.before(async t => {
  t.timeout(TIMEOUT_MS)
  cluster = await startCluster(2)
})

test.after.always(async t => {
  t.deepEqual(await cluster?.stop(), [])
})

async function stretch(
  t: ExecutionContext,
  flags: readonly string[],
  command: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<RunStats> {
  const all = ['--participants-min', '2', '--wait', '15s', ...flags]
  const end = await cluster.run('a', all, command, { timeoutMs: TIMEOUT_MS, env }).outcome
  t.is(end.status, 0, `${end.stderr}${end.stdout.toString()}`)
  t.is(end.stats?.mode, 'stretched')
  return end.stats ?? {}
}

test.serial('a sequential scan pulls at least 16 pages at a time', async t => {
  t.timeout(TIMEOUT_MS)
  const program = buildProgram('linear_search', cluster.directory)
  const { pulls = 0, pagesPulled = 0 } = await stretch(t, ['--memory', '6M'], [program, '4000', '4'])
  t.log(`${pagesPulled} pages in ${pulls} pulls`)
  t.true(pulls > 0)
  t.true(pagesPulled >= SEQUENTIAL_PAGES_PER_PULL_MIN * pulls)
})

test.serial('random access pulls hardly more than what was asked for', async t => {
  t.timeout(TIMEOUT_MS)
  const program = buildProgram('random_access', cluster.directory)
  const { pulls = 0, pagesPulled = 0 } = await stretch(t, ['--memory', '6M'], [program, '3000', '8000'])
  t.log(`${pagesPulled} pages in ${pulls} pulls`)
  t.true(pulls > 1000)
  t.true(pagesPulled <= RANDOM_PAGES_PER_PULL_MAX * pulls)
})

test.serial('what is in use stays as well where pagemap is read for want of PAGEMAP_SCAN', async t => {
  t.timeout(2 * TIMEOUT_MS)
  const program = buildProgram('random_access', cluster.directory)
  const command = [program, '2000', '60000', '900']
  const old = { ELASTICOS_NO_PAGEMAP_SCAN: '1' }
  const scanned = await stretch(t, ['--memory', '5M'], command)
  const read = await stretch(t, ['--memory', '5M'], command, old)
  const queue = await stretch(t, ['--memory', '5M'], command, { ELASTICOS_EVICT: 'fifo' })
  t.log(`${scanned.pulls} pulls, ${read.pulls} from pagemap, ${queue.pulls} with a queue`)
  t.true((read.pulls ?? Number.POSITIVE_INFINITY) <= (scanned.pulls ?? 0) * SLACK_HOT)
  t.true((queue.pulls ?? 0) > (scanned.pulls ?? 0) * SLACK_HOT, 'what stays makes a difference here')
})

test.serial('pages go along with jumps', async t => {
  t.timeout(TIMEOUT_MS)
  const program = buildProgram('counter', cluster.directory)
  const flags = ['--memory', '5M', '--jump-every', '1']
  const { jumps = 0, pagesWithJumps } = await stretch(t, flags, [program, '60000', '3000'])
  t.log(`${pagesWithJumps} pages with ${jumps} jumps`)
  t.true(jumps > 0)
  t.true(Number(pagesWithJumps) > 0)
})

const PYTHON = `
table = {}
for i in range(30000):
    table["key%d" % (i * 7919 % 30000)] = [i, str(i * i)]
total = 0
for i in range(0, 30000, 3):
    total += len(table["key%d" % i][1])
numbers = sorted((i * 7919) % 100003 for i in range(60000))
print(total, len(table), numbers[5], sum(numbers))
`

test.serial('python at half its footprint pulls no more than with a queue', async t => {
  t.timeout(2 * TIMEOUT_MS)
  const script = join(cluster.directory, 'table.py')
  writeFileSync(script, PYTHON)
  // What PATH finds may be a script of a version manager.
  const code = 'import sys; print(sys.executable)'
  const python = execFileSync('python3', ['-c', code], { encoding: 'utf8' }).trim()
  const command = [python, script]
  const seed = { PYTHONHASHSEED: '1' }
  const whole = await stretch(t, ['--memory', '1G'], command, seed)
  const pages = whole.pagesTouched ?? 0
  const memory = `${Math.max(1024, Math.ceil(pages / 2)) * 4}K`
  const ours = { pulls: 0, pages: 0 }
  const queue = { pulls: 0, pages: 0 }
  for (let i = 0; i < RUNS; i++)
    for (const [sum, how] of [
      [ours, seed],
      [queue, { ...seed, ELASTICOS_EVICT: 'fifo' }],
    ] as const) {
      const stats = await stretch(t, ['--memory', memory], command, how)
      sum.pulls += stats.pulls ?? 0
      sum.pages += stats.pagesPulled ?? 0
    }
  t.log(`${pages} pages, ${memory}, ${RUNS} runs: ${ours.pulls} pulls of ${ours.pages} pages,`)
  t.log(`with a queue ${queue.pulls} of ${queue.pages}`)
  t.true(queue.pulls > 0)
  t.true(ours.pulls <= queue.pulls * SLACK)
  t.true(ours.pages <= queue.pages * SLACK)
})
