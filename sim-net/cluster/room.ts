/**
 * Memory of one simulated pager: what is there, what may come, and what leaves to make room. Pages that have been used
 * least recently leave first: from home to the participant with most room, else, and from elsewhere always, to the disk.
 *
 * Room for pushes is given as credit: each reader of a STATUS may push so many pages in all since the lane came up, and
 * what was given and not used counts as taken. So the limit holds at every moment.
 */

import type { Prefetch } from '../../kmod/ownership/types.js'
import { HOME, type NodeIndex, type PageNumber } from '../../placement/ids.js'
import type { LaneEnd } from './lane.js'
import type { SimPager } from './pager.js'

/** Evicted at once beyond what is needed. */
const EVICT_MORE = 24
/** Looked at for one eviction. */
const LOOK_MAX = 256
/** Home gives little: only working sets of threads that come home are pushed there. */
const HOME_CREDIT_MAX = 8
const CREDIT_MAX = 512

export class Room {
  readonly #pager: SimPager
  /** Resident pages, the least recently used first. */
  readonly #used = new Map<PageNumber, true>()
  limit: number

  constructor(pager: SimPager, limit: number) {
    this.#pager = pager
    this.limit = limit
  }

  touch(page: PageNumber): void {
    this.#used.delete(page)
    this.#used.set(page, true)
  }

  note(page: PageNumber): void {
    if (!this.#used.has(page)) this.#used.set(page, true)
  }

  /** Pages that are in memory, asked for, or allowed to come. */
  get taken(): number {
    const { residentPages, copiedPages, expectedPages } = this.#pager.ownership.counts
    let taken = residentPages + copiedPages + expectedPages
    for (const lane of this.#pager.lanes.values()) taken += lane.granted - lane.received
    return taken
  }

  get free(): number {
    return this.limit - this.taken
  }

  /** Tries to have room for `pages`; whether there is some for one at least. */
  make(pages: number): boolean {
    let lacking = pages - this.free
    if (lacking > 0 && this.#pager.ownership.counts.copiedPages > 0) {
      this.#pager.ownership.discardCopies()
      lacking = pages - this.free
    }
    if (lacking > 0) this.#evict(lacking + EVICT_MORE)
    return this.free > 0
  }

  /** Gives credit to those that may push here. */
  giveCredit(): void {
    const { lanes, node } = this.#pager
    const most = node === HOME ? HOME_CREDIT_MAX : CREDIT_MAX
    for (const lane of lanes.values()) {
      if (node !== HOME && lane.node !== HOME) continue
      const open = lane.granted - lane.received
      const more = Math.min(Math.floor(this.free / 2), most - open)
      if (more > 0) lane.granted += more
    }
  }

  /** Prefetch that asks for no more than there is room for. */
  bounded(inner: Prefetch): Prefetch {
    return {
      plan: (page, cause) => {
        const { count, down } = inner.plan(page, cause)
        return { count: Math.max(1, Math.min(count, this.free)), down }
      },
      fetched: (first, count) => inner.fetched(first, count),
    }
  }

  #evict(pages: number): void {
    const pager = this.#pager
    const lane = pager.node === HOME ? this.#roomiest() : undefined
    const pushed = lane === undefined ? 0 : Math.min(pages, roomOf(lane))
    if (lane !== undefined) this.#leave(pushed, lane.node)
    this.#leave(pages - pushed, 'disk')
  }

  #leave(pages: number, to: NodeIndex | 'disk'): void {
    const victims = this.#victims(pages)
    if (victims.length > 0) this.#pager.run(this.#pager.ownership.evict(victims, to, this.#pager.now))
  }

  #roomiest(): LaneEnd | undefined {
    let best: LaneEnd | undefined
    for (const lane of this.#pager.lanes.values()) {
      if (!this.#pager.mayUse(lane)) continue
      if (roomOf(lane) > 0 && (best === undefined || roomOf(lane) > roomOf(best))) best = lane
    }
    return best
  }

  #victims(most: number): PageNumber[] {
    const { ownership, now } = this.#pager
    const victims: PageNumber[] = []
    let looked = 0
    for (const page of this.#used.keys()) {
      if (victims.length >= most || ++looked > LOOK_MAX) break
      if (ownership.page(page).state !== 'resident') this.#used.delete(page)
      else if (ownership.mayLeave(page, now)) victims.push(page)
    }
    for (const page of victims) this.touch(page)
    return victims
  }
}

function roomOf({ pager, mayPush, pushed }: LaneEnd): number {
  return pager.site.planted === 'pushes-without-room' ? Number.POSITIVE_INFINITY : mayPush - pushed
}
