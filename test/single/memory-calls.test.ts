/**
 * Calls that change memory, one case at a time: what is read afterwards, and what is printed, is as it is alone.
 */

import { spawnSync } from 'node:child_process'
import test from 'ava'
import type { TestCluster } from '../helpers/cluster.js'
import { buildProgram } from '../helpers/programs.js'
import { startCluster } from '../matrix/matrix.js'

const TIMEOUT_MS = 60_000

let cluster: TestCluster
let program: string

test.before(async t => {
  t.timeout(TIMEOUT_MS)
  cluster = await startCluster(2)
  program = buildProgram('memory_calls', cluster.directory)
})

test.after.always(async t => {
  t.deepEqual(await cluster?.stop(), [])
})

interface Case {
  readonly name: string
  readonly title: string
  readonly jumps?: boolean
}

const CASES: readonly Case[] = [
  { name: 'fresh', title: 'new memory is zeros, whatever the kernel mapped there in between' },
  { name: 'convert', title: 'a file mapping that becomes writable is read by another thread all the while' },
  { name: 'robust', title: 'robust mutexes of a thread that ends are released, wherever they are' },
  { name: 'robust-group', title: 'robust mutexes are released at the end of a process, too' },
  { name: 'reserved', title: "the pager's own pages are out of the application's reach" },
  { name: 'traps', title: 'breakpoints and vsyscalls of a thread that is elsewhere', jumps: true },
]

for (const { name, title, jumps } of CASES) {
  test.serial(title, async t => {
    t.timeout(TIMEOUT_MS)
    const alone = spawnSync(program, [name], { timeout: TIMEOUT_MS, encoding: 'utf8' })
    t.is(alone.status, 0, alone.stdout)
    const flags = ['--memory', '5M', '--participants-min', '2', '--wait', '15s']
    if (jumps === true) flags.push('--jump-every', '1')
    const end = await cluster.run('a', flags, [program, name], { timeoutMs: TIMEOUT_MS }).outcome
    t.is(end.status, 0, `${end.stderr}${end.stdout.toString()}`)
    t.is(end.stdout.toString(), alone.stdout)
    if (jumps === true) t.true((end.stats?.jumps ?? 0) > 0)
  })
}
