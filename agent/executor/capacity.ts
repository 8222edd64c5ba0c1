/**
 * How much memory an agent lends at the moment: what its owner allows, less under pressure. And what the kernel says of
 * the machine's memory: /proc/meminfo, and /proc/pressure/memory where there is one.
 *
 * Room that is promised stays promised unless the machine is nearly out of memory, or tasks wait for it; then leases give
 * a quarter back.
 */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { isStalling, type MachineMemory } from '../machines/pressure.js'

/** Share of the machine's memory that new promises leave alone. */
const RESERVE_SHARE = 1 / 16
/** Below this share even what is promised has to shrink. */
const PANIC_SHARE = 1 / 50
const SHRINK_TO = 3 / 4

/**
 * Pages to lend in all, what is promised included. What is promised and not yet used will be taken from what is
 * available now, so it is not available again. Pure.
 */
export function lendablePages(
  allowedPages: number,
  { promisedPages, residentPages }: { promisedPages: number; residentPages: number },
  memory: MachineMemory,
): number {
  const isShort = memory.availablePages < memory.totalPages * PANIC_SHARE || isStalling(memory)
  if (isShort) return Math.floor(promisedPages * SHRINK_TO)
  const unused = Math.max(0, promisedPages - residentPages)
  const room = Math.floor(memory.availablePages - memory.totalPages * RESERVE_SHARE) - unused
  return Math.min(allowedPages, promisedPages + Math.max(0, room))
}

/**
 * The machine's memory as its kernel tells; undefined where /proc cannot be read, and nobody waits where it does not tell
 * of that.
 */
export function machineMemory(pageSize: number, proc = '/proc'): MachineMemory | undefined {
  const meminfo = readText(join(proc, 'meminfo'))
  const pages = (field: string) =>
    Math.floor((Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(meminfo)?.[1]) * 1024) / pageSize)
  const [availablePages, totalPages] = [pages('MemAvailable'), pages('MemTotal')]
  if (Number.isNaN(availablePages + totalPages)) return undefined
  const stalls = readText(join(proc, 'pressure', 'memory'))
  const percent = (kind: string) =>
    Number(new RegExp(`^${kind} avg10=(\\d+\\.\\d+) `, 'm').exec(stalls)?.[1] ?? 0)
  return { availablePages, totalPages, some: percent('some'), full: percent('full') }
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
