/**
 * One test for each thing a process may do that stretching has to take care of: the programs of test/programs, on two
 * agents in processes of their own, with pulls only and with a jump at every seventh remote fault. Each verifies what
 * it reads back itself; its output must be the same as alone.
 */

import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import test from 'ava'
import type { TestCluster } from '../helpers/cluster.js'
import { buildProgram } from '../helpers/programs.js'
import { startCluster } from '../matrix/matrix.js'

const PAGES_LIMIT = 1280
const MEMORY = '5M'
const TIMEOUT_MS = 120_000
const JUMP_EVERY = '7'

let cluster: TestCluster

test.before(async t => {
  t.timeout(TIMEOUT_MS)
  cluster = await startCluster(2)
})

test.after.always(async t => {
  t.deepEqual(await cluster?.stop(), [])
})

const PROGRAMS: readonly { name: string; title: string; args?: readonly string[] }[] = [
  { name: 'fork', title: 'fork copies memory, pages that are away included' },
  { name: 'exec', title: 'exec gives a new image, elastic as the first' },
  { name: 'mremap', title: 'mremap moves, grows and shrinks what is partly away' },
  { name: 'signals', title: 'signals reach threads wherever they are; faults on purpose are reported right' },
  { name: 'maps', title: 'brk, mmap, munmap, mprotect and madvise' },
  { name: 'statics', title: 'large .data and .bss, deep recursion' },
  { name: 'calls', title: 'system calls: EFAULT for bad pointers, whole buffers for good ones, futexes' },
  { name: 'filemap', title: 'private mappings of files' },
]

for (const { name, title } of PROGRAMS) {
  for (const mode of ['pulls', 'jumps'] as const) {
    test.serial(`${title} (${mode})`, async t => {
      t.timeout(TIMEOUT_MS)
      const program = buildProgram(name, cluster.directory)
      const args = name === 'filemap' ? [join(cluster.directory, 'mapped.dat')] : []
      const alone = spawnSync(program, args, { timeout: TIMEOUT_MS })
      t.is(alone.status, 0, alone.stdout.toString())
      const flags = ['--memory', MEMORY, '--participants-min', '2', '--wait', '15s']
      if (mode === 'jumps') flags.push('--jump-every', JUMP_EVERY)
      const end = await cluster.run('a', flags, [program, ...args], { timeoutMs: TIMEOUT_MS }).outcome
      t.is(end.status, 0, `${end.stderr}${end.stdout.toString()}`)
      t.is(end.stdout.toString(), alone.stdout.toString())
      const stats = end.stats ?? {}
      t.is(stats.mode, 'stretched')
      t.true((stats.pulls ?? 0) > 0 && (stats.pushes ?? 0) > 0)
      t.true((stats.pagesTouched ?? 0) > PAGES_LIMIT)
      t.true((stats.peakResidentPages ?? Number.POSITIVE_INFINITY) <= PAGES_LIMIT)
      if (mode === 'jumps') t.true((stats.jumps ?? 0) > 0)
    })
  }
}
