/**
 * What the page plane costs besides time: processor time for each page that is moved, and memory of the pagers for each
 * gigabyte that is stretched. Both are differences between a longer and a shorter run of one program, so that starting,
 * filling and fixed buffers are left out.
 */

import type { Measure } from './measures.js'
import { programPath, wire } from './native.js'
import { runPair } from './pair.js'

const LIMIT_PAGES = 4096
const WINDOW_PAGES = 512
const BYTES_PER_PAGE = 4096
const GB = 2 ** 30

function scan(cpus: 1 | 2, pages: number, passes: number) {
  return runPair({
    cpus,
    memoryPages: LIMIT_PAGES,
    command: [programPath('scan'), ...[pages, LIMIT_PAGES, WINDOW_PAGES, passes].map(String)],
  })
}

export const CPU_PER_PAGE: Measure = {
  name: 'cpu-per-page',
  reports: ['bulkTlsCpu', 'cpu-per-page'],
  async round(rounds, quick) {
    rounds.add('bulkTlsCpu', await wire(rounds.cpus, { only: 'bulkTlsCpu', seconds: quick ? 0.3 : 1 }))
    const pages = quick ? 8192 : 24_576
    const runs = [await scan(rounds.cpus, pages, 1), await scan(rounds.cpus, pages, 3)]
    const [once, thrice] = runs.map(({ stats, usage }) => ({
      moved: (stats.pagesPulled ?? 0) + (stats.pagesPushed ?? 0),
      cpuUs: (usage.home.cpuNs + usage.peer.cpuNs) / 1000,
    }))
    if (once === undefined || thrice === undefined || thrice.moved - once.moved < pages)
      throw new Error('cpu-per-page: the memory was not remote')
    const us = (thrice.cpuUs - once.cpuUs) / (thrice.moved - once.moved)
    rounds.add('cpu-per-page', { p50: us, p99: us, unit: 'µs' })
  },
  report(rounds) {
    return [
      rounds.reference('bulkTlsCpu', 'one direction of a lane, 64 pages a frame: both sides, for a page'),
      rounds.figure(
        'cpu-per-page',
        'cpu-per-page',
        'bulkTlsCpu',
        'both pagers, for a page that is pulled or pushed by a scan: faults, protection, placing and punching included',
        p50Of => p50Of('bulkTlsCpu'),
      ),
    ]
  },
}

export const PAGER_MEMORY: Measure = {
  name: 'pager-memory',
  reports: ['pager-memory/home', 'pager-memory/peer', 'pager-memory/stretched'],
  async round(rounds, quick) {
    const sizes = [32_768, quick ? 98_304 : 163_840]
    const seen = []
    for (const pages of sizes) seen.push((await scan(rounds.cpus, pages, 1)).usage)
    const [small, large] = seen
    if (small === undefined || large === undefined) throw new Error('pager-memory: no runs')
    const bytes = (((sizes[1] ?? 0) - (sizes[0] ?? 0)) * BYTES_PER_PAGE) / GB
    for (const side of ['home', 'peer'] as const) {
      const each = (large[side].anonBytes - small[side].anonBytes) / bytes
      rounds.add(`pager-memory/${side}`, { p50: each / 2 ** 20, p99: each / 2 ** 20, unit: 'MB' })
    }
    rounds.add('pager-memory/stretched', { p50: 1024, p99: 1024, unit: 'MB' })
  },
  report(rounds) {
    const of = (side: string) =>
      rounds.figure(
        `pager-memory/${side}`,
        `pager-memory/${side}`,
        'the memory that is stretched',
        'resident memory that is no file’s, for each GB stretched, 16 MB of it at home',
        p50Of => p50Of('pager-memory/stretched'),
      )
    return [of('home'), of('peer')]
  },
}
