/**
 * A small part of the correctness matrix in every test run, on real agents in processes of their own: each node count,
 * pulls, jumps and threads, with rows that are quick on two cores. `npm run matrix` has the rest.
 */

import test from 'ava'
import { runMatrix } from './matrix/matrix.js'
import { PROGRAMS } from './matrix/programs.js'
import { repeatCommand } from './matrix/report.js'
import { allRows, type Row } from './matrix/rows.js'

const ROW_TIMEOUT_MS = 120_000

/** Program, share of its footprint, nodes, mode. */
const QUICK: readonly (readonly [string, number, number, string])[] = [
  ['sort', 25, 1, 'always-pull'],
  ['sqlite-memory', 50, 1, 'always-pull'],
  ['sqlite-memory', 25, 2, 'always-pull'],
  ['sort', 50, 2, 'jump-500'],
  ['linear-search', 25, 2, 'adaptive'],
  ['counter', 25, 2, 'jump-1'],
  ['threads', 25, 2, 'jump-7'],
  ['linear-search', 50, 3, 'always-pull'],
  ['sqlite-file', 50, 3, 'always-pull'],
]

function rowNamed([name, share, nodes, mode]: (typeof QUICK)[number]): Row | undefined {
  return allRows(PROGRAMS).find(
    row => row.program.name === name && row.share === share && row.nodes === nodes && row.mode.name === mode,
  )
}

test('programs give the same bytes stretched as alone', async t => {
  t.timeout(900_000)
  const rows = QUICK.map(rowNamed).filter(row => row !== undefined)
  t.is(rows.length, QUICK.length, 'a row of the list is not in the matrix')
  const observer = { note: (text: string) => t.log(text), result: () => {} }
  const results = await runMatrix(rows, 'small', observer, { timeoutMs: ROW_TIMEOUT_MS })
  t.is(results.length, rows.length)
  for (const result of results) t.deepEqual(result.problems, [], repeatCommand(result, false))
})
