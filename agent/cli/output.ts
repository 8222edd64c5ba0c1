/**
 * What listings look like: aligned columns for people, JSON for programs; colours only on a terminal.
 *
 * Names, addresses and messages of other machines and programs pass through here: none of them may drive a terminal.
 */

import { writeSync } from 'node:fs'

export interface Column<Row> {
  readonly title: string
  readonly cell: (row: Row) => string
  /** Numbers go to the right. */
  readonly right?: boolean
}

/** Lines of a table, titles first; cells are padded to their column. */
export function tableLines<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string[] {
  const cells = [
    columns.map(column => column.title),
    ...rows.map(row => columns.map(column => printable(column.cell(row)))),
  ]
  const widths = columns.map((_, index) => Math.max(...cells.map(line => line[index]?.length ?? 0)))
  return cells.map(line =>
    line
      .map((cell, index) => {
        const width = widths[index] ?? 0
        return columns[index]?.right === true ? cell.padStart(width) : cell.padEnd(width)
      })
      .join('  ')
      .trimEnd(),
  )
}

/** Prints rows as JSON, as a table, or `empty` when there are none. */
export function printRows<Row>(
  columns: readonly Column<Row>[],
  rows: readonly Row[],
  json: boolean,
  empty: string,
) {
  if (json) print(JSON.stringify(rows, null, 2))
  else if (rows.length === 0) print(empty)
  else for (const line of tableLines(columns, rows)) print(line)
}

/** `text` as one line without control characters: each is shown as `\x1b` and the like. */
export function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, code => `\\x${code.charCodeAt(0).toString(16).padStart(2, '0')}`)
}

export function print(line: string): void {
  write(`${line}\n`)
}

/** Writes to standard output. Whoever read it may have gone (`| head`): then nobody is told, and nothing fails. */
export function write(text: string): void {
  if (!process.stdout.listeners('error').includes(onStdoutError)) process.stdout.on('error', onStdoutError)
  process.stdout.write(text)
}

function onStdoutError(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EPIPE') throw error
}

/** A warning or a notice of elasticos itself. */
export function notice(line: string): void {
  writeStderr(`elasticos: ${printable(line)}\n`)
}

/**
 * Writes to standard error without `process.stderr`: that would make a pipe non-blocking, for the program under `run`
 * too, which shares it.
 */
export function writeStderr(text: string): void {
  try {
    writeSync(2, text)
  } catch {
    // A closed or full standard error: there is nobody to tell.
  }
}

const SGR = { bold: 1, red: 31, green: 32, yellow: 33 } as const

/** `text` in a colour where `stream` is a terminal and NO_COLOR is not set. */
export function coloured(
  colour: keyof typeof SGR,
  text: string,
  stream: NodeJS.WriteStream = process.stdout,
): string {
  const plain = !stream.isTTY || (process.env.NO_COLOR ?? '') !== ''
  return plain ? text : `\u001b[${SGR[colour]}m${text}\u001b[0m`
}
