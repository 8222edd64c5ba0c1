/**
 * Calls that change memory, limits of it, and ends of threads, one case at a time: what is read afterwards, and what is
 * printed, is as it is alone.
 */

import { spawnSync } from 'node:child_process'
import test from 'ava'
import type { TestCluster } from '../helpers/cluster.js'
import { buildProgram } from '../helpers/programs.js'
import { startCluster } from '../matrix/matrix.js'

const TIMEOUT_MS = 60_000

let cluster: TestCluster

test.before(async t => {
  t.timeout(TIMEOUT_MS)
  cluster = await startCluster(2)
  for (const name of new Set(CASES.map(each => each.program))) buildProgram(name, cluster.directory)
})

test.after.always(async t => {
  t.deepEqual(await cluster?.stop(), [])
})

interface Case {
  readonly program: string
  readonly name: string
  readonly title: string
  readonly jumps?: boolean
  /** Words of the shell in front of the program. */
  readonly before?: string
}

const memory = (name: string, title: string): Case => ({ program: 'memory_calls', name, title })
const limit = (name: string, title: string, before?: string): Case => ({
  program: 'memory_limits',
  name,
  title,
  ...(before === undefined ? {} : { before }),
})
const ends = (name: string, title: string, jumps = false): Case => ({
  program: 'thread_ends',
  name,
  title,
  jumps,
})

const given = (name: string, title: string, jumps = false): Case => ({
  program: 'given_back',
  name,
  title,
  jumps,
})

const CASES: readonly Case[] = [
  memory('fresh', 'new memory is zeros, whatever the kernel mapped there in between'),
  memory('convert', 'a file mapping that becomes writable is read by another thread all the while'),
  memory('reserved', "the pager's own pages are out of the application's reach"),
  memory('own-data', "a program's own data is as in its file after MADV_DONTNEED"),
  memory('huge', 'files of huge pages'),
  memory('promises', 'promises about paging are refused where the kernel refuses them'),
  memory('fork-advice', 'what is said of a mapping for forks holds for what grows out of it'),
  limit('stack', 'the stack takes what its limit says, at the start and later'),
  limit('stack', 'a limit of the stack that was set for exec', 'ulimit -S -s 32768; '),
  limit('grows-down', 'the stack becomes executable'),
  limit('limits', 'limits of address space and data hold'),
  limit('never', 'memory that nobody could ever hold is refused where it is asked for'),
  given('heap', 'what lies beyond the end of the heap is as unmapped, and as new when it is taken again'),
  given('block', 'so is a block that was unmapped'),
  given('churn', 'a heap and blocks that come and go keep what they hold and are new where they are new'),
  given('churn', 'the same by a thread that is often elsewhere', true),
  ends('robust', 'robust mutexes of a thread that ends are released, wherever they are'),
  ends('robust-group', 'robust mutexes are released at the end of a process, too'),
  ends('traps', 'breakpoints and vsyscalls of a thread that is elsewhere', true),
]

for (const { program, name, title, jumps, before = '' } of CASES) {
  test.serial(title, async t => {
    t.timeout(TIMEOUT_MS)
    const words = ['-c', `${before}exec ${cluster.path(program)} ${name}`]
    const alone = spawnSync('/bin/sh', words, { timeout: TIMEOUT_MS, encoding: 'utf8' })
    t.is(alone.status, 0, alone.stdout)
    const flags = ['--memory', '5M', '--participants-min', '2', '--wait', '15s']
    if (jumps === true) flags.push('--jump-every', '1')
    const end = await cluster.run('a', flags, ['/bin/sh', ...words], { timeoutMs: TIMEOUT_MS }).outcome
    t.is(end.status, 0, `${end.stderr}${end.stdout.toString()}`)
    t.is(end.stdout.toString(), alone.stdout)
    if (jumps === true) t.true((end.stats?.jumps ?? 0) > 0)
  })
}
