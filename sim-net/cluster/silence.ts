/**
 * Whom a simulated pager has not heard for a while: the twin of kmod/pager/src/silence.cpp. Its agent is told, finds out
 * what the silence means, and says so; without a verdict a node is given up after four seconds. Time in which this
 * pager itself did not run counts for nobody's silence.
 */

import type { PagerCommand } from '../../agent/executor/pagers.js'
import type { LaneEnd } from './lane.js'
import type { SimPager } from './pager.js'

const TELL_MS = 500
const SILENT_MS = 4_000
/** After a verdict that it stalls or runs; and of silence at most. */
const WAIT_MS = 2_000
const WAIT_MS_MAX = 35_000
const LOOK_MS = 100
const OWN_STALL_MS = 300

export class Silence {
  readonly #pager: SimPager
  #lookedAt: number

  constructor(pager: SimPager) {
    this.#pager = pager
    this.#lookedAt = pager.site.clock.now()
  }

  /** To be called every `LOOK_MS`; may end lanes. */
  look(): void {
    const pager = this.#pager
    const now = pager.site.clock.now()
    const since = now - this.#lookedAt
    const stalledMs = since - LOOK_MS
    this.#lookedAt = now
    for (const lane of [...pager.lanes.values()]) {
      if (since >= OWN_STALL_MS) {
        lane.heardAt = Math.min(now, lane.heardAt + stalledMs)
        lane.waitedUntil = Math.min(now + WAIT_MS, lane.waitedUntil + stalledMs)
      }
      const silentMs = now - lane.heardAt
      this.#tell(lane, silentMs)
      if (this.#isOver(lane, silentMs)) this.#giveUp(lane, 'no answer')
      if (!pager.alive) return
    }
  }

  onVerdict({ node, leaseId, verdict, reason }: PagerCommand & { kind: 'node-verdict' }): void {
    const { lanes, site } = this.#pager
    for (const lane of lanes.values()) {
      if (lane.node !== node || lane.lease.leaseId !== leaseId) continue
      if (verdict === 'dead' && site.planted !== 'waits-for-the-dead') this.#giveUp(lane, reason)
      else lane.waitedUntil = site.clock.now() + WAIT_MS
      return
    }
  }

  #isOver({ waitedUntil }: LaneEnd, silentMs: number): boolean {
    const { planted, clock } = this.#pager.site
    if (planted === 'gives-up-early') return silentMs > LOOK_MS / 2
    if (planted === 'waits-for-the-dead') return false
    return silentMs > SILENT_MS && (clock.now() > waitedUntil || silentMs > WAIT_MS_MAX)
  }

  #tell(lane: LaneEnd, silentMs: number): void {
    const isSilent = silentMs >= TELL_MS
    if (!isSilent && !lane.silenceTold) return
    lane.silenceTold = isSilent
    const { node, lease } = lane
    const ms = isSilent ? Math.floor(silentMs) : 0
    this.#pager.emit({ kind: 'node-silent', node, leaseId: lease.leaseId, silentMs: ms })
  }

  #giveUp(lane: LaneEnd, reason: string): void {
    this.#pager.site.checks.onGivenUp(lane)
    lane.close()
    this.#pager.onLaneEnded(lane, reason, false)
  }
}
