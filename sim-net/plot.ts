/** A run as a picture: time from left to right, a row for each host, and what happened there as marks. SVG. */

import type { TraceEvent } from './trace.js'

const WIDTH = 1_600
const LEFT = 80
const TOP = 60
const ROW = 18
/** More rows than this are too thin to see anything. */
const ROWS_MAX = 400

interface Mark {
  readonly colour: string
  readonly meaning: string
}

const MARKS: Readonly<Record<string, Mark>> = {
  start: { colour: '#2a9d3a', meaning: 'agent starts' },
  stopped: { colour: '#666', meaning: 'agent stops in order' },
  reset: { colour: '#d22', meaning: 'crash' },
  silent: { colour: '#800', meaning: 'crash, silent' },
  stall: { colour: '#e69500', meaning: 'stall' },
  'pager-stall': { colour: '#fc6', meaning: 'pager stalls' },
  'pager-death': { colour: '#f36', meaning: 'pager dies' },
  clock: { colour: '#b5a', meaning: 'clock jump' },
  process: { colour: '#15c', meaning: 'process begins' },
  finished: { colour: '#88c', meaning: 'process ends' },
  failed: { colour: '#000', meaning: 'run fails' },
}
const LINES: Readonly<Record<string, Mark>> = {
  jump: { colour: '#1a8cff', meaning: 'jump' },
  'lane-up': { colour: '#9c9', meaning: 'lane' },
  'lane-down': { colour: '#d88', meaning: 'lane ends' },
  contract: { colour: '#999', meaning: 'contraction' },
  cut: { colour: '#f50', meaning: 'cut' },
}
const BANDS: Readonly<Record<string, Mark>> = {
  partition: { colour: '#fa0', meaning: 'partition changes' },
  heal: { colour: '#3b3', meaning: 'all is mended' },
}

export function plot(names: readonly string[], events: readonly TraceEvent[], seconds: number): string {
  const rows = Math.min(names.length, ROWS_MAX)
  const height = TOP + rows * ROW + 20
  const x = (atMs: number) => (LEFT + ((WIDTH - LEFT - 20) * atMs) / (seconds * 1_000)).toFixed(1)
  const y = (row: number) => TOP + row * ROW + ROW / 2
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="11">`,
    `<rect width="${WIDTH}" height="${height}" fill="#fff"/>`,
    ...legend(),
  ]
  for (let row = 0; row < rows; row++)
    parts.push(
      `<text x="4" y="${y(row) + 4}">${names[row] ?? ''}</text>` +
        `<line x1="${LEFT}" x2="${WIDTH - 20}" y1="${y(row)}" y2="${y(row)}" stroke="#eee"/>`,
    )
  const isShown = (row: number) => row >= 0 && row < rows
  for (const { atMs, what, node, other, detail } of events) {
    const at = x(atMs)
    const title = `<title>${(atMs / 1000).toFixed(3)} s ${what} ${inXml(detail)}</title>`
    const [mark, line, band] = [MARKS[what], LINES[what], BANDS[what]]
    if (mark !== undefined && isShown(node))
      parts.push(`<circle cx="${at}" cy="${y(node)}" r="4" fill="${mark.colour}">${title}</circle>`)
    else if (line !== undefined && isShown(node) && isShown(other))
      parts.push(
        `<line x1="${at}" x2="${at}" y1="${y(node)}" y2="${y(other)}" stroke="${line.colour}" stroke-opacity=".6">${title}</line>`,
      )
    else if (band !== undefined)
      parts.push(
        `<line x1="${at}" x2="${at}" y1="${TOP}" y2="${height}" stroke="${band.colour}" stroke-width="2">${title}</line>`,
      )
  }
  return [...parts, axis(seconds, x, height), '</svg>', ''].join('\n')
}

function legend(): string[] {
  return Object.values({ ...MARKS, ...LINES, ...BANDS }).map(({ colour, meaning }, i) => {
    const [left, top] = [LEFT + 150 * (i % 10), 12 + 16 * Math.floor(i / 10)]
    return `<rect x="${left}" y="${top - 8}" width="9" height="9" fill="${colour}"/><text x="${left + 13}" y="${top}">${meaning}</text>`
  })
}

function axis(seconds: number, x: (atMs: number) => string, height: number): string {
  const step = Math.max(1, Math.round(seconds / 10))
  const parts: string[] = []
  for (let at = 0; at <= seconds; at += step)
    parts.push(`<text x="${x(at * 1_000)}" y="${height - 5}">${at} s</text>`)
  return parts.join('')
}

function inXml(text: string): string {
  return text.replace(/[<>&]/g, each => `&#${each.charCodeAt(0)};`)
}
