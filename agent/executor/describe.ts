/**
 * An elastic process as `ps` shows it: what the agent knows, and what its pager says.
 */

import { type Clock, sleep } from '../ports/clock.js'
import type { ProcessInfo } from '../service.js'

const STATS_TIMEOUT_MS = 1_000

/** Adds what the pager says; a pager that does not answer within a second is listed without its numbers. */
export async function describe(
  clock: Clock,
  base: Pick<ProcessInfo, 'id' | 'program' | 'role' | 'home'>,
  client: { describe: { pagerPid: number }; requestStats(): Promise<Record<string, unknown>> },
  participants: string[],
): Promise<ProcessInfo> {
  const late = sleep(clock, STATS_TIMEOUT_MS).then(() => undefined)
  const stats = await Promise.race([client.requestStats().catch(() => undefined), late])
  const resident = stats?.residentPages
  const residentPages = typeof resident === 'number' ? resident : 0
  const info = { ...base, pid: client.describe.pagerPid, residentPages, participants }
  return stats === undefined ? info : { ...info, stats }
}
