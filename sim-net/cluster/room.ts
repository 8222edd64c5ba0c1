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
const NOT_IN = -1

export class Room {
  readonly #pager: SimPager
  readonly #used: Used
  limit: number

  constructor(pager: SimPager, limit: number) {
    this.#pager = pager
    this.limit = limit
    const { first, pages } = pager.process.plan.program
    this.#used = new Used(first, pages)
  }

  touch(page: PageNumber): void {
    this.#used.remove(page)
    this.#used.append(page)
  }

  note(page: PageNumber): void {
    if (!this.#used.has(page)) this.#used.append(page)
  }

  /** Pages that are in memory, asked for, or allowed to come. */
  get taken(): number {
    let taken = this.#pager.ownership.takenPages
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
      const more = most - (lane.granted - lane.received)
      if (more > 0) lane.granted += Math.max(0, Math.min(Math.floor(this.free / 2), more))
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
    let next = this.#used.next()
    for (let looked = 0; next !== undefined && victims.length < most && looked < LOOK_MAX; looked++) {
      const page = next
      next = this.#used.next(page)
      if (ownership.page(page).state !== 'resident') this.#used.remove(page)
      else if (ownership.mayLeave(page, now)) victims.push(page)
    }
    for (const page of victims) this.touch(page)
    return victims
  }
}

/** Pages, the least recently used first: a ring of links, which begins and ends behind the last page. */
class Used {
  readonly #first: number
  readonly #ring: number
  readonly #before: Int32Array
  readonly #after: Int32Array

  constructor(first: PageNumber, pages: number) {
    this.#first = first
    this.#ring = pages
    this.#before = new Int32Array(pages + 1).fill(NOT_IN)
    this.#after = new Int32Array(pages + 1).fill(NOT_IN)
    this.#link(pages, pages)
  }

  has(page: PageNumber): boolean {
    return this.#after[page - this.#first] !== NOT_IN
  }

  append(page: PageNumber): void {
    const at = page - this.#first
    this.#link(this.#before[this.#ring] as number, at)
    this.#link(at, this.#ring)
  }

  remove(page: PageNumber): void {
    const at = page - this.#first
    if (this.#after[at] === NOT_IN) return
    this.#link(this.#before[at] as number, this.#after[at] as number)
    this.#after[at] = NOT_IN
  }

  /** The one after `page`, or the first. */
  next(page?: PageNumber): PageNumber | undefined {
    const at = this.#after[page === undefined ? this.#ring : page - this.#first] as number
    return at === this.#ring ? undefined : ((at + this.#first) as PageNumber)
  }

  #link(one: number, other: number): void {
    this.#after[one] = other
    this.#before[other] = one
  }
}

function roomOf({ pager, mayPush, pushed }: LaneEnd): number {
  return pager.site.planted === 'pushes-without-room' ? Number.POSITIVE_INFINITY : mayPush - pushed
}
