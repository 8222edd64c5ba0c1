/**
 * What a program reads of its own mappings: the lines that it would read alone, without address randomisation, and
 * what the C library makes of them.
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
  program = buildProgram('proc_maps', cluster.directory)
})

test.after.always(async t => {
  t.deepEqual(await cluster?.stop(), [])
})

const CASES: readonly { name: string; title: string; jumps?: boolean }[] = [
  { name: 'image', title: "the image's own mappings, heap and stack" },
  { name: 'changes', title: 'each change of mappings shows at the next look' },
  { name: 'files', title: 'private mappings of files, written or not, and beyond the end' },
  { name: 'many', title: 'ten thousand mappings' },
  { name: 'names', title: 'all names of the list, and other files of that name' },
  { name: 'names', title: 'the same with jumps', jumps: true },
  { name: 'offsets', title: 'every open has an offset of its own' },
  { name: 'away', title: 'the path is in memory that is away' },
  { name: 'stack', title: 'pthread_getattr_np finds the stack of the main thread' },
]

for (const { name, title, jumps } of CASES) {
  test.serial(title, async t => {
    t.timeout(TIMEOUT_MS)
    const alone = spawnSync('setarch', ['-R', program, name], { timeout: TIMEOUT_MS, encoding: 'utf8' })
    t.is(alone.status, 0, alone.stdout)
    const flags = ['--memory', '5M', '--participants-min', '2', '--wait', '15s']
    if (jumps === true) flags.push('--jump-every', '1')
    const end = await cluster.run('a', flags, [program, name], { timeoutMs: TIMEOUT_MS }).outcome
    t.is(end.status, 0, `${end.stderr}${end.stdout.toString()}`)
    t.is(end.stdout.toString(), alone.stdout)
  })
}
