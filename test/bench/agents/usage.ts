/** What processes use while nothing is asked of them, as /proc tells. */

import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

/** USER_HZ of every Linux on x86-64 (times(2)). */
const TICKS_PER_SECOND = 100
const UTIME_FIELD = 11

export interface Usage {
  /** Percent of one core. */
  readonly cpuPercent: number
  /** Resident memory; of pages that others map, too, all of it or its share. */
  readonly rssMb: number
  readonly pssMb: number
}

/** Watches processes for a while. */
export async function usageOf(pids: readonly number[], seconds: number): Promise<Usage[]> {
  const fromMs = performance.now()
  const before = pids.map(cpuSeconds)
  await sleep(seconds * 1000)
  const after = pids.map(cpuSeconds)
  const tookSeconds = (performance.now() - fromMs) / 1000
  return pids.map((pid, i) => ({
    cpuPercent: (((after[i] ?? 0) - (before[i] ?? 0)) / tookSeconds) * 100,
    ...memoryOf(pid),
  }))
}

/** User and system time of all its threads, ended ones included. */
function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[UTIME_FIELD]) + Number(fields[UTIME_FIELD + 1])) / TICKS_PER_SECOND
}

export function memoryOf(pid: number): { readonly rssMb: number; readonly pssMb: number } {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')
  const mb = (field: string) => Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(text)?.[1]) / 1024
  return { rssMb: mb('Rss'), pssMb: mb('Pss') }
}
