/**
 * What goes on at the moment of a fork and while children get their memory: calls of other threads that change it
 * (programs/fork_races.c), and what the kernel itself writes into it (programs/fork_writes.c). No byte is wrong.
 */

import test from 'ava'
import type { TestCluster } from '../helpers/cluster.js'
import { buildProgram } from '../helpers/programs.js'
import { startCluster } from '../matrix/matrix.js'

const TIMEOUT_MS = 180_000
const MEMORY = ['--memory', '4M']
const TWO = [...MEMORY, '--participants-min', '2', '--wait', '15s']

const SETTINGS: readonly { name: string; flags: readonly string[] }[] = [
  { name: 'alone, the rest on disk', flags: [...MEMORY, '--participants', '1'] },
  { name: 'two agents', flags: TWO },
  { name: 'two agents, a jump at every remote fault', flags: [...TWO, '--jump-every', '1'] },
]

const CASES: readonly { title: string; command: readonly string[] }[] = [
  { title: 'a buffer moves to and fro while children are forked', command: ['fork_races', 'moves'] },
  { title: 'mappings are replaced while children are forked', command: ['fork_races', 'replaces'] },
  ...['1000', '30000'].flatMap(delay => [
    {
      title: `children read and die (after ${delay} µs) while they get what is unmapped`,
      command: ['fork_races', 'unmaps', delay],
    },
    {
      title: `children read and die (after ${delay} µs) while they get what an exec ends`,
      command: ['fork_races', 'executes', delay],
    },
  ]),
  { title: 'results of calls, and the frame of a signal', command: ['fork_writes', 'results'] },
  { title: 'words of futexes', command: ['fork_writes', 'futexes'] },
  { title: 'a lock that a thread waits for', command: ['fork_writes', 'waiter'] },
  { title: 'numbers of threads, and their ends', command: ['fork_writes', 'threads'] },
  { title: 'locks of a thread that ends', command: ['fork_writes', 'robust'] },
]

let cluster: TestCluster

test.before(async t => {
  t.timeout(TIMEOUT_MS)
  cluster = await startCluster(2)
  for (const name of ['fork_races', 'fork_writes']) buildProgram(name, cluster.directory)
})

test.after.always(async t => {
  t.deepEqual(await cluster?.stop(), [])
})

for (const { name, flags } of SETTINGS) {
  for (const { title, command } of CASES) {
    test.serial(`${name}: ${title}`, async t => {
      t.timeout(TIMEOUT_MS)
      const [program = '', ...words] = command
      const limits = { timeoutMs: TIMEOUT_MS }
      const end = await cluster.run('a', flags, [cluster.path(program), ...words], limits).outcome
      t.is(end.stdout.toString(), 'done\n', end.stderr)
      t.is(end.stderr, '')
      t.is(end.status, 0)
    })
  }
}
