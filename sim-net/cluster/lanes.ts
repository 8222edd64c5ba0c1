/** How lanes of a simulated pager come and go: keys and dialling, leases, contraction, the words at an end. */

import type { PagerCommand } from '../../agent/executor/pagers.js'
import { HOME, type NodeIndex } from '../../placement/ids.js'
import { LaneEnd, type LaneFrame, type LaneLease } from './lane.js'
import type { SimPager } from './pager.js'

export type LaneCommand = Extract<PagerCommand, { kind: 'lane' }>
type UpdateCommand = Extract<PagerCommand, { kind: 'lease-update' }>

const DIAL_MS = 200
const DIALS_MAX = 25
/** A dial and a TLS handshake. */
const HANDSHAKE_TRIPS = 4
const ACCEPTING_MAX = 64

export class Lanes {
  readonly #pager: SimPager
  /** Lanes that the agent has announced, by key. */
  readonly #accepting = new Map<string, LaneCommand>()

  constructor(pager: SimPager) {
    this.#pager = pager
  }

  make(command: LaneCommand): void {
    if (command.port !== 0) {
      this.#dial(command, DIALS_MAX)
      return
    }
    if (command.node === HOME) this.#pager.room.limit = command.pagesMax
    this.#accepting.set(textOf(command.laneKey), command)
    if (this.#accepting.size <= ACCEPTING_MAX) return
    const oldest = this.#accepting.keys().next()
    if (!oldest.done) this.#accepting.delete(oldest.value)
  }

  update({ leaseId, pagesMax, ttlMs }: UpdateCommand): void {
    const pager = this.#pager
    for (const lane of pager.lanes.values()) {
      if (lane.lease.leaseId !== leaseId) continue
      lane.lease.pagesMax = pagesMax
      if (ttlMs === 0) lane.lease.revoked = true
      if (lane.node !== HOME) continue
      pager.room.limit = pagesMax
      pager.site.checks.onLimit(pager)
      pager.room.make(0)
    }
  }

  /** Home: a participant gives everything back, and is then let go. */
  drop(node: NodeIndex): void {
    const pager = this.#pager
    const lane = pager.lanes.get(node)
    if (lane === undefined || pager.leaving.has(node)) return
    pager.leaving.add(node)
    pager.note('contract', node, '')
    lane.sendBoth({ kind: 'drain' })
  }

  onFrame(lane: LaneEnd, frame: LaneFrame, bulk: boolean): void {
    const pager = this.#pager
    switch (frame.kind) {
      case 'drain':
        if (++lane.drains === 2) this.#startDraining()
        return
      case 'no-more':
        lane.lease.revoked = true
        lane.send(bulk, { kind: 'no-more-read' })
        return
      case 'no-more-read':
        lane.noMoreRead++
        return
      case 'empty':
        lane.empties++
        this.endWhenEmpty(lane.node)
        return
      case 'failed':
        if (pager.node === HOME) pager.end(frame.reason)
        return
      case 'bye':
        if (++lane.byes === 2) this.#onBye(lane)
        return
      default:
        return
    }
  }

  /** A participant that leaves: tells home what it owns, and says so when that is nothing. */
  giveBack(): void {
    const pager = this.#pager
    const home = pager.lanes.get(HOME)
    if (home === undefined || home.empties > 0) return
    pager.guests.allGoHome()
    let owned = 0
    for (const [page, { state, version }] of pager.ownership.pages) {
      if (state !== 'resident' && state !== 'spilled') continue
      owned++
      home.send(false, {
        kind: 'page',
        frame: { type: 'owner', first: page, count: 1, version, owner: pager.node },
      })
    }
    const others = [...pager.lanes.values()].filter(lane => lane !== home)
    for (const lane of others) if (lane.noMore++ === 0) lane.sendBoth({ kind: 'no-more' })
    const { expectedPages } = pager.ownership.counts
    if (owned + expectedPages > 0 || others.some(lane => lane.noMoreRead < 2)) return
    home.empties = 1
    home.sendBoth({ kind: 'empty' })
  }

  /** Home: lets a participant go that is empty, and of which nothing is thought to own a page. */
  endWhenEmpty(node: NodeIndex): void {
    const pager = this.#pager
    const lane = pager.lanes.get(node)
    if (lane === undefined || lane.empties < 2 || this.isOwnerOfSomething(node)) return
    if ([...pager.away.values()].includes(node)) return
    lane.close()
    pager.onLaneEnded(lane, 'contracted', true)
  }

  /** Home: as far as the table says. */
  isOwnerOfSomething(node: NodeIndex): boolean {
    for (const { state, where } of this.#pager.ownership.pages.values())
      if (where === node && (state === 'remote' || state === 'in-flight')) return true
    return false
  }

  #startDraining(): void {
    const pager = this.#pager
    pager.draining = true
    this.giveBack()
  }

  #onBye(lane: LaneEnd): void {
    lane.close()
    const clean = lane.lease.revoked && this.#pager.node !== HOME
    this.#pager.onLaneEnded(lane, 'the other side has ended it', clean)
  }

  #dial(command: LaneCommand, left: number): void {
    const pager = this.#pager
    const { site, host } = pager
    const target = site.find(command.host, command.port)
    if (pager.leaving.has(command.node as NodeIndex)) {
      this.#giveUp(command, 'it is just leaving')
      return
    }
    if (target === undefined || target.stalled || !site.network.areOpen(host, target.host)) {
      if (left === 0) this.#giveUp(command, 'cannot be reached')
      else pager.later(DIAL_MS, () => this.#dial(command, left - 1))
      return
    }
    const { latencyMs } = site.network.link(host, target.host)
    pager.later(HANDSHAKE_TRIPS * latencyMs, () => this.#meet(command, target))
  }

  #meet(command: LaneCommand, target: SimPager): void {
    const pager = this.#pager
    const accepted = target.alive ? target.accepts(command.laneKey, pager.node) : undefined
    if (accepted === undefined || pager.lanes.has(target.node)) {
      this.#giveUp(command, 'the key is not known there')
      return
    }
    const ends = LaneEnd.pair(pager.site, pager, target, [this.#lease(command), this.#lease(accepted)])
    pager.onLaneUp(ends[0])
    target.onLaneUp(ends[1])
  }

  /** Takes a key that the agent has announced for that node; each is good for one lane. */
  accept(laneKey: Uint8Array, node: NodeIndex): LaneCommand | undefined {
    const key = textOf(laneKey)
    const command = this.#accepting.get(key)
    if (command === undefined || command.node !== node || this.#pager.lanes.has(node)) return undefined
    this.#accepting.delete(key)
    return command
  }

  #lease({ leaseId, pagesMax, ttlMs }: LaneCommand): LaneLease {
    return { leaseId, pagesMax, expiresAt: this.#pager.site.clock.now() + ttlMs, revoked: false }
  }

  #giveUp({ node, nodeName }: LaneCommand, reason: string): void {
    this.#pager.emit({ kind: 'lane-down', node, nodeName, reason })
  }
}

function textOf(laneKey: Uint8Array): string {
  return Buffer.from(laneKey).toString('latin1')
}
