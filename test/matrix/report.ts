/**
 * Rows as people and scripts read them.
 */

import type { RowResult } from './row-run.js'

const sum = (result: RowResult, name: string): number =>
  result.stats.reduce((total, stats) => {
    const value = stats?.[name]
    return total + (typeof value === 'number' ? value : 0)
  }, 0)

function headroomKiB(result: RowResult): number {
  return Math.round(
    Math.max(0, ...result.residency.map(each => each.bytesMax - result.limitPages * 4096)) / 1024,
  )
}

/** One line: the row, what it did, and what was wrong. */
export function line(result: RowResult): string {
  const { row, problems } = result
  const what = `${row.program.name} ${row.share} % ${row.nodes} node${row.nodes > 1 ? 's' : ''} ${row.mode.name}`
  const did = `${sum(result, 'pulls')} pulls, ${sum(result, 'pushes')} pushes, ${sum(result, 'jumps')} jumps`
  const verdict = problems.length === 0 ? 'right' : `WRONG: ${problems.join('; ')}`
  return `${what}: ${did}, ${result.seconds.toFixed(1)} s: ${verdict}`
}

/** The shell command that carries out this row again. */
export function repeatCommand({ row }: RowResult, full: boolean): string {
  const flags = `--only ${row.program.name} --share ${row.share} --nodes ${row.nodes} --mode ${row.mode.name}`
  return `npm run matrix -- ${full ? '--full ' : ''}${flags}`
}

const COLUMNS = [
  'program',
  'footprint',
  'limit',
  'nodes',
  'mode',
  'pulls',
  'pulled',
  'pushed',
  'spilled',
  'jumps',
  'over KiB',
  'alone s',
  'stretched s',
  'right',
] as const

/** All rows as a table for people. */
export function table(results: readonly RowResult[]): string {
  const rows = results.map(result => [
    result.row.program.name,
    `${result.footprintPages >> 8} MB`,
    `${result.row.share} %`,
    String(result.row.nodes),
    result.row.mode.name,
    String(sum(result, 'pulls')),
    String(sum(result, 'pagesPulled')),
    String(sum(result, 'pagesPushed')),
    String(sum(result, 'pagesSpilled')),
    String(sum(result, 'jumps')),
    String(headroomKiB(result)),
    result.nativeSeconds.toFixed(2),
    result.seconds.toFixed(2),
    result.problems.length === 0 ? 'yes' : 'NO',
  ])
  const widths = COLUMNS.map((name, i) => Math.max(name.length, ...rows.map(row => row[i]?.length ?? 0)))
  const format = (cells: readonly string[]) => cells.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join('  ')
  return [format(COLUMNS), ...rows.map(format)].map(text => text.trimEnd()).join('\n')
}

/** One element of `--json`. */
export function asJson(result: RowResult): Record<string, unknown> {
  const { row, stats, residency, ...rest } = result
  return {
    program: row.program.name,
    share: row.share,
    nodes: row.nodes,
    mode: row.mode.name,
    right: result.problems.length === 0,
    ...rest,
    residency,
    stats,
  }
}
