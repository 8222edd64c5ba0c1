/**
 * How much memory an agent lends at the moment: what its owner allows, less under pressure. And what the kernel says of
 * the memory that there is for a process: /proc/meminfo, /proc/pressure/memory where there is one, and its control groups.
 *
 * Room that is promised stays promised unless the machine is nearly out of memory, or tasks wait for it; then leases give
 * a quarter back. Where a run is at home whose limit follows the machine's memory, it comes before the guests: they leave
 * alone what it may grow into, and give back what it needs of that.
 */

import { join } from 'node:path'
import { GROW_RESERVE_SHARE, isStalling, type MemoryState } from '../machines/pressure.js'
import { groupMemory, readText, stallsIn } from './control-groups.js'

/** Shares of the machine's memory: what new promises leave alone, and below what even those that were made shrink. */
const ALONE = { reserve: 1 / 16, short: 1 / 50 }
/** A limit that is to grow comes to rest before GROW_RESERVE_SHARE, by no more than a 32nd. */
const BESIDE_A_RUN = { reserve: GROW_RESERVE_SHARE + 1 / 16, short: GROW_RESERVE_SHARE + 1 / 32 }
const SHRINK_TO = 3 / 4

/**
 * Pages to lend in all, what is promised included. What is promised and not yet used will be taken from what is
 * available now, so it is not available again. Pure.
 *
 * @param besideRun a run is at home here whose limit follows this machine's memory
 */
export function lendablePages(
  allowedPages: number,
  { promisedPages, residentPages }: { promisedPages: number; residentPages: number },
  memory: MemoryState,
  besideRun: boolean,
): number {
  const { reserve, short } = besideRun ? BESIDE_A_RUN : ALONE
  const isShort = memory.availablePages < memory.totalPages * short || memory.isStalling
  if (isShort) return Math.floor(promisedPages * SHRINK_TO)
  const unused = Math.max(0, promisedPages - residentPages)
  const room = Math.floor(memory.availablePages - memory.totalPages * reserve) - unused
  return Math.min(allowedPages, promisedPages + Math.max(0, room))
}

/**
 * What there is for process `pid`: the least of what its machine and each of its control groups have. Undefined where
 * /proc cannot be read.
 */
export function memoryFor(pid: number | 'self', pageSize: number, proc = '/proc'): MemoryState | undefined {
  const meminfo = readText(join(proc, 'meminfo'))
  const pages = (field: string) =>
    Math.floor((Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(meminfo)?.[1]) * 1024) / pageSize)
  const [availablePages, totalPages] = [pages('MemAvailable'), pages('MemTotal')]
  if (Number.isNaN(availablePages + totalPages)) return undefined
  const machine = { availablePages, totalPages, ...stallsIn(join(proc, 'pressure', 'memory')) }
  const all = [machine, ...groupMemory(pid, pageSize, proc)]
  return {
    availablePages: Math.min(...all.map(each => each.availablePages)),
    totalPages: Math.min(...all.map(each => each.totalPages)),
    isStalling: all.some(isStalling),
  }
}
