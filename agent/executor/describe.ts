/**
 * Elastic processes as `ps` shows them: what the agent knows, and what their pagers say.
 */

import { type Clock, sleep } from '../ports/clock.js'
import type { ProcessInfo } from '../service.js'
import type { Homes } from './homes.js'
import type { Lending } from './lending.js'

const STATS_TIMEOUT_MS = 1_000

/** Those whose home is here, at the agent `name`, and those that something is lent to. */
export function describeAll(
  clock: Clock,
  name: string,
  homes: Homes | undefined,
  lending: Lending | undefined,
): Promise<ProcessInfo[]> {
  const own = (homes?.all() ?? []).map(home => {
    const { id, program } = home.attachment
    return describe(clock, { id, program, role: 'home', home: name }, home.client, home.participantNames())
  })
  const held = (lending?.held() ?? []).map(({ lease, process }) => {
    const { processId: id, program, homeName: home } = lease
    const names = process.members().map(member => member.name)
    return describe(clock, { id, program, role: 'participant', home }, process.client, names)
  })
  return Promise.all([...own, ...held])
}

/** Adds what the pager says; a pager that does not answer within a second is listed without its numbers. */
async function describe(
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
