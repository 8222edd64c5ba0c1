/**
 * `npm run matrix`: a sample of the correctness matrix at small sizes; with `--full` all of it at larger ones.
 * Exit status 0 only if every row is right. `--json` prints the results as one JSON array; progress is on stderr.
 */

import { parseArgs } from 'node:util'
import { type Observer, runMatrix } from './matrix.js'
import { runInNamespaces } from './namespaces.js'
import { PROGRAMS } from './programs.js'
import { asJson, line, repeatCommand, table } from './report.js'
import type { RowResult } from './row-run.js'
import { allRows, MODES, NODE_COUNTS, type Row, SHARES, sampleRows } from './rows.js'

const USAGE =
  'usage: npm run matrix -- [--full] [--only PROGRAM] [--share PERCENT] [--nodes N] [--mode MODE] [--no-namespaces] [--json]'
const ROW_TIMEOUT_MS = 300_000

interface Wish {
  readonly full: boolean
  readonly json: boolean
  readonly namespaces: boolean
  readonly rows: readonly Row[]
}

/** Throws an Error with one line. */
function readWish(args: string[]): Wish {
  const { values } = parseArgs({
    args,
    options: {
      full: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      only: { type: 'string' },
      share: { type: 'string' },
      nodes: { type: 'string' },
      mode: { type: 'string' },
      'no-namespaces': { type: 'boolean', default: false },
    },
  })
  const known = (flag: string, value: string | undefined, names: readonly string[]) => {
    if (value !== undefined && !names.includes(value))
      throw new Error(`${flag} is one of: ${names.join(', ')}`)
  }
  known(
    '--only',
    values.only,
    PROGRAMS.map(program => program.name),
  )
  known(
    '--mode',
    values.mode,
    MODES.map(mode => mode.name),
  )
  known('--share', values.share, SHARES.map(String))
  known('--nodes', values.nodes, NODE_COUNTS.map(String))
  // A part that is asked for by name is looked for among all rows.
  const chosen = values.share !== undefined || values.nodes !== undefined || values.mode !== undefined
  const rows = (values.full || chosen ? allRows(PROGRAMS) : sampleRows(PROGRAMS)).filter(
    row =>
      (values.only === undefined || row.program.name === values.only) &&
      (values.share === undefined || String(row.share) === values.share) &&
      (values.nodes === undefined || String(row.nodes) === values.nodes) &&
      (values.mode === undefined || row.mode.name === values.mode),
  )
  const namespaces = !values['no-namespaces'] && !chosen && values.only === undefined
  return { full: values.full, json: values.json, namespaces, rows }
}

async function main(): Promise<number> {
  let wish: Wish
  try {
    wish = readWish(process.argv.slice(2))
  } catch (error) {
    console.error(`matrix: ${error instanceof Error ? error.message : error}\n${USAGE}`)
    return 2
  }
  if (wish.rows.length === 0) {
    console.error('matrix: there is no such row')
    return 2
  }
  const start = performance.now()
  let done = 0
  const observer: Observer = {
    note: text => console.error(`matrix: ${text}`),
    result: result => {
      console.error(`${++done}/${wish.rows.length} ${line(result)}`)
      if (result.problems.length > 0) console.error(`  repeat: ${repeatCommand(result, wish.full)}`)
    },
  }
  const scale = wish.full ? 'full' : 'small'
  const results: RowResult[] = await runMatrix(wish.rows, scale, observer, { timeoutMs: ROW_TIMEOUT_MS })
  if (wish.namespaces) {
    const outcome = await runInNamespaces({ timeoutMs: ROW_TIMEOUT_MS })
    if (typeof outcome === 'string') observer.note(`in network namespaces: skipped: ${outcome}`)
    else {
      console.error(`in network namespaces: ${line(outcome)}`)
      results.push(outcome)
    }
  }
  const wrong = results.filter(result => result.problems.length > 0)
  if (wish.json) console.log(JSON.stringify(results.map(asJson), null, 2))
  else console.log(table(results))
  const minutes = ((performance.now() - start) / 60_000).toFixed(1)
  console.error(
    `matrix: ${results.length - wrong.length} of ${results.length} rows right in ${minutes} minutes`,
  )
  for (const result of wrong)
    console.error(`wrong: ${line(result)}\n  repeat: ${repeatCommand(result, wish.full)}`)
  return wrong.length === 0 ? 0 : 1
}

process.exitCode = await main()
