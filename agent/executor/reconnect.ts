/**
 * After a connection to a pager has ended: back to it, or certainty that it is gone. A connection also ends when this
 * agent was stopped for long or read too slowly, and a pager that is taken for dead loses all its leases.
 *
 * Limits: a socket that refuses five times within two seconds belongs to nobody; a pager that only does not answer is
 * tried every second for as long as its process lives.
 */

import { sleep } from '../ports/clock.js'
import type { Context } from './context.js'
import { type PagerConnection, PagerError } from './pagers.js'

/** Short at first: as a rule the pager has ended, and its process is gone a moment after its sockets. */
const PAUSES_MS = [10, 40, 450, 1_500]
const PAUSE_MS = 1_000

/** A new connection to the pager `pid` at `path`; undefined when there is none any more. */
export async function reconnect(
  { pagers, clock }: Pick<Context, 'pagers' | 'clock'>,
  path: string,
  pid: number,
): Promise<PagerConnection | undefined> {
  const pauses = [...PAUSES_MS]
  do {
    let pauseMs: number | undefined = PAUSE_MS
    try {
      const connection = await pagers.connect(path)
      if (connection.describe.pagerPid === pid) return connection
      connection.close()
      return undefined
    } catch (error) {
      if (!(error instanceof PagerError) || error.code === 'gone') pauseMs = pauses.shift()
    }
    if (pauseMs === undefined) return undefined
    await sleep(clock, pauseMs)
  } while (pagers.isAlive(pid))
  return undefined
}
