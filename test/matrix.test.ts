/**
 * A part of the correctness matrix in every test run, on real agents in processes of their own: each program, node
 * count and mode, and one row on hosts of their own (network namespaces). `npm run matrix` has the rest.
 */

import test from 'ava'
import { namespacesMissing } from './helpers/namespaces.js'
import { runMatrix } from './matrix/matrix.js'
import { runInNamespaces } from './matrix/namespaces.js'
import { PROGRAMS } from './matrix/programs.js'
import { repeatCommand } from './matrix/report.js'
import { allRows, type Row } from './matrix/rows.js'

const ROW_TIMEOUT_MS = 300_000

/** Program, share of its footprint, nodes, mode. */
const QUICK: readonly (readonly [string, number, number, string])[] = [
  ['sort', 25, 1, 'always-pull'],
  ['awk', 50, 1, 'always-pull'],
  ['sort-one-thread', 25, 2, 'jump-7'],
  ['sqlite-memory', 25, 2, 'always-pull'],
  ['python-dict', 50, 2, 'adaptive'],
  ['perl', 25, 2, 'jump-500'],
  ['shell-exec', 50, 2, 'jump-500'],
  ['counter', 25, 2, 'jump-1'],
  ['sqlite-memory', 50, 2, 'jump-1'],
  ['threads', 25, 2, 'jump-7'],
  ['zstd', 50, 3, 'always-pull'],
  ['python-list', 25, 3, 'adaptive'],
  ['sqlite-file', 50, 3, 'always-pull'],
  ['sort', 25, 3, 'jump-7'],
  ['linear-search', 25, 3, 'adaptive'],
  ['counter', 50, 3, 'jump-1'],
  ['bash-pipeline', 50, 1, 'always-pull'],
  ['python-processes', 50, 1, 'adaptive'],
  ['cc1', 50, 2, 'always-pull'],
  ['redis', 50, 2, 'always-pull'],
  ['vectors', 25, 2, 'jump-1'],
  ['timers', 25, 2, 'jump-7'],
  ['static-pie', 50, 2, 'jump-7'],
  ['unwinding', 25, 2, 'jump-1'],
  ['xz', 50, 3, 'always-pull'],
  ['pthreads', 25, 3, 'jump-7'],
  ['shared-maps', 25, 3, 'jump-7'],
]

function rowNamed([name, share, nodes, mode]: (typeof QUICK)[number]): Row | undefined {
  return allRows(PROGRAMS).find(
    row => row.program.name === name && row.share === share && row.nodes === nodes && row.mode.name === mode,
  )
}

test.serial('programs give the same bytes stretched as alone', async t => {
  t.timeout(1_200_000)
  const rows = QUICK.map(rowNamed).filter(row => row !== undefined)
  t.is(rows.length, QUICK.length, 'a row of the list is not in the matrix')
  const observer = { note: (text: string) => t.log(text), result: () => {} }
  const results = await runMatrix(rows, 'small', observer, { timeoutMs: ROW_TIMEOUT_MS })
  t.is(results.length, rows.length)
  for (const result of results) t.deepEqual(result.problems, [], repeatCommand(result, false))
})

const missing = namespacesMissing()
if (missing !== undefined) console.error(`the matrix in network namespaces is skipped: ${missing}`)

const hosts = missing === undefined ? test.serial : test.serial.skip
hosts('a program on three hosts of their own, joined by a bridge', async t => {
  t.timeout(ROW_TIMEOUT_MS * 2)
  const result = await runInNamespaces({ timeoutMs: ROW_TIMEOUT_MS })
  if (typeof result === 'string') return t.fail(result)
  t.deepEqual(result.problems, [])
})
