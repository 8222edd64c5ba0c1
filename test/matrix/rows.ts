/**
 * The rows of the matrix, and what each of them has to show.
 */

import type { RunStats } from '../helpers/cluster.js'
import type { MatrixProgram } from './program.js'

/** How it is decided where a fault is served. */
export interface Mode {
  readonly name: string
  readonly flags: readonly string[]
  /** The row is about jumps, at each so many remote faults of a thread: there must be some. */
  readonly jumpEvery?: number
  /** Every remote fault may jump: there need not be pulls. */
  readonly everyFault?: boolean
}

export interface Row {
  readonly program: MatrixProgram
  /** Percent of the footprint. */
  readonly share: number
  readonly nodes: number
  readonly mode: Mode
}

/** Of the programs here, those that fault much at the same time. */
const FAULTING_THREADS_MAX = 4

export const SHARES = [25, 50] as const
export const NODE_COUNTS = [1, 2, 3] as const

const ALWAYS_PULL: Mode = { name: 'always-pull', flags: ['--policy', 'always-pull'] }
const ADAPTIVE: Mode = {
  name: 'adaptive',
  flags: ['--policy', 'multinode-adaptive-lru'],
  everyFault: true,
}
const jumpEvery = (n: number): Mode => ({
  name: `jump-${n}`,
  flags: ['--jump-every', String(n)],
  jumpEvery: n,
  ...(n === 1 ? { everyFault: true } : {}),
})

export const MODES: readonly Mode[] = [ALWAYS_PULL, ADAPTIVE, jumpEvery(7), jumpEvery(500), jumpEvery(1)]

/** Modes on so many nodes; with one node there is nowhere to jump to. */
function modesOf(nodes: number): readonly Mode[] {
  return nodes === 1 ? [ALWAYS_PULL, ADAPTIVE] : MODES
}

/** Every row of the full matrix, those of one node count together. */
export function allRows(programs: readonly MatrixProgram[]): Row[] {
  return NODE_COUNTS.flatMap(nodes =>
    programs.flatMap(program =>
      modesOf(nodes).flatMap(mode => SHARES.map(share => ({ program, share, nodes, mode }))),
    ),
  )
}

/**
 * A sample: for each program one row on one node and some on two and three, so that over all programs every
 * combination of nodes, share and mode occurs.
 */
export function sampleRows(programs: readonly MatrixProgram[]): Row[] {
  return programs
    .flatMap((program, index) =>
      NODE_COUNTS.flatMap(nodes => {
        const modes = modesOf(nodes)
        const mode = modes[(index + nodes) % modes.length]
        const share = SHARES[(index + (index >> 2) + nodes) % SHARES.length]
        return mode === undefined || share === undefined ? [] : [{ program, share, nodes, mode }]
      }),
    )
    .sort((a, b) => a.nodes - b.nodes)
}

/** What a row's statistics fail to show; one line each. */
export function missing(row: Row, stats: RunStats | undefined): string[] {
  if (stats === undefined) return ['no statistics']
  const problems: string[] = []
  const need = (ok: boolean, text: string) => {
    if (!ok) problems.push(text)
  }
  const count = (value: unknown) => (typeof value === 'number' ? value : 0)
  need(stats.mode === 'stretched', `mode is ${stats.mode}, not stretched`)
  if (row.nodes === 1) {
    need(count(stats.pagesSpilled) > 0 && count(stats.unspills) > 0, 'nothing was spilled and read back')
    return problems
  }
  const holders = (stats.participants ?? []).filter(node => node.peakPages > 0)
  need(holders.length >= 2, `${holders.length} participants held pages`)
  need(count(stats.pushes) > 0 && count(stats.pagesPushed) > 0, 'no pushes')
  const moved = count(stats.pulls) + (row.mode.everyFault === true ? count(stats.jumps) : 0)
  need(moved > 0, row.mode.everyFault === true ? 'neither pulls nor jumps' : 'no pulls')
  const { jumpEvery } = row.mode
  // Prefetch leaves some programs fewer faults than that.
  const due = jumpEvery !== undefined && moved >= jumpEvery * FAULTING_THREADS_MAX
  if (due) {
    need(count(stats.jumps) > 0, 'no jumps')
    need(count(stats.pagesWithJumps) > 0, 'no pages went with the jumps')
  }
  if (row.program.threads === true && due) {
    const busy = (stats.participants ?? []).filter(node => node.threadsPeak > 0)
    need(busy.length >= 2, `threads ran on ${busy.length} node`)
  }
  return problems
}
