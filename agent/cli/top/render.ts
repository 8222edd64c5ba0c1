/**
 * The picture of `elasticos top` as lines of text. Pure.
 */

import { bytes, formatSize, PAGE_BYTES } from '../../../placement/units.js'
import type { NodeInfo, ProcessInfo } from '../../service.js'
import { type Column, printable, tableLines } from '../output.js'
import { type Rates, ratesOf, type Snapshot } from './snapshot.js'

const BAR_CELLS = 16

export interface Size {
  readonly columns: number
  readonly rows: number
}

/** At most `size.rows` lines of at most `size.columns` characters. */
export function screen(now: Snapshot, before: Snapshot | undefined, size: Size): string[] {
  const lines = pictureLines(now, before)
  const fitting = lines.length <= size.rows ? lines : cut(lines, size.rows)
  return fitting.map(line => line.slice(0, size.columns))
}

function cut(lines: readonly string[], rows: number): string[] {
  const shown = lines.slice(0, Math.max(0, rows - 1))
  return [...shown, `and ${lines.length - shown.length} more lines; a larger terminal shows them`].slice(
    0,
    rows,
  )
}

/** All of it, however wide and long. */
export function pictureLines(now: Snapshot, before: Snapshot | undefined): string[] {
  const self = now.nodes.find(node => node.self)
  const title = `elasticos ${self?.name ?? '(no agent)'}: ${now.nodes.length} machines, ${now.processes.length} processes`
  const nodes = now.nodes.length === 0 ? [] : ['', ...tableLines(NODE_COLUMNS, now.nodes)]
  return [printable(title), ...nodes, '', ...processLines(now, before)]
}

const NODE_COLUMNS: readonly Column<NodeInfo>[] = [
  { title: 'NODE', cell: node => (node.self ? `${node.name} (this one)` : node.name) },
  { title: 'STATE', cell: node => node.state },
  { title: 'LENT', cell: node => bar(node.capacityPages - node.freePages, node.capacityPages) },
  { title: 'FREE', cell: node => sizeOf(node.freePages), right: true },
  { title: 'OF', cell: node => sizeOf(node.capacityPages), right: true },
  { title: 'CPUS', cell: node => String(node.cpus), right: true },
  { title: 'PROCESSES', cell: node => String(node.processes), right: true },
]

/** `[####............]`; exported for tests. */
export function bar(used: number, whole: number): string {
  const share = whole <= 0 ? 0 : Math.min(1, Math.max(0, used / whole))
  const cells = Math.round(share * BAR_CELLS)
  return `[${'#'.repeat(cells)}${'.'.repeat(BAR_CELLS - cells)}]`
}

function sizeOf(pages: number): string {
  return formatSize(bytes(pages * PAGE_BYTES))
}

interface Row {
  readonly process: ProcessInfo
  readonly rates: Rates | undefined
}

const PROCESS_COLUMNS: readonly Column<Row>[] = [
  { title: 'ID', cell: ({ process }) => process.id },
  { title: 'ROLE', cell: ({ process }) => process.role },
  { title: 'HERE', cell: ({ process }) => sizeOf(process.residentPages), right: true },
  { title: 'PULLS/S', cell: ({ rates }) => rateText(rates?.pulls), right: true },
  { title: 'PAGES/S', cell: ({ rates }) => rateText(rates?.pages), right: true },
  { title: 'JUMPS/S', cell: ({ rates }) => rateText(rates?.jumps), right: true },
  {
    title: 'BYTES/S',
    cell: ({ rates }) => (rates === undefined ? '-' : formatSize(bytes(Math.round(rates.bytes)))),
    right: true,
  },
  { title: 'PROGRAM', cell: ({ process }) => process.program },
]

function rateText(rate: number | undefined): string {
  if (rate === undefined) return '-'
  return rate > 0 && rate < 10 ? rate.toFixed(1) : String(Math.round(rate))
}

/** Each process with its lanes below it. */
function processLines(now: Snapshot, before: Snapshot | undefined): string[] {
  if (now.processes.length === 0) return ['no elastic processes here']
  const rows = now.processes.map(process => ({ process, rates: ratesOf(process, now, before) }))
  const [titles = '', ...lines] = tableLines(PROCESS_COLUMNS, rows)
  const withLanes = lines.flatMap((line, at) => {
    const lanes = now.lanes.get(now.processes[at]?.id ?? '') ?? []
    return [
      line,
      ...lanes.map(lane => printable(`  lane to ${lane.node}: ${lane.state}, ${sizeOf(lane.pages)}`)),
    ]
  })
  return [titles, ...withLanes]
}
