/**
 * The state of one node: its table, its lanes, what waits here, and the effects of the event at hand; with the few
 * changes that everything else is made of. Twin of kmod/pager/src/table.cpp and of the ends of engine_serve.cpp.
 */

import { HOME, invariant, type NodeIndex, type PageNumber } from '../../placement/ids.js'
import type { Micros } from '../../placement/units.js'
import { Hints } from './hints.js'
import {
  type Effect,
  moved,
  type Page,
  type PageFrame,
  type PageState,
  type Prefetch,
  type Region,
  type Request,
  type Version,
  versionOfBirth,
} from './types.js'

export interface OwnershipOptions {
  readonly self: NodeIndex
  /** The elastic region around a page, if it is mapped. */
  readonly regionOf: (page: PageNumber) => Region | undefined
  /** One page at a time unless given. */
  readonly prefetch?: Prefetch
  /** At home: no thread ever runs elsewhere, so copies of what is read are worth keeping. */
  readonly threadsStay?: boolean
}

/** A GET that waits here; with a time: for the end of a hold. */
export interface Deferred extends Request {
  readonly notBefore: Micros | undefined
}

/** A page that just came stays a little, longer while the same nodes fight for it. */
interface Held {
  page: PageNumber
  until: number
  hold: number
  left: number
}

/** The pager's table of holds: two pages that share a slot forget one another. */
const HELD_SLOTS = 1024
const HOLD_US = 30
const HOLD_MAX_US = 10_000
const FIGHT_US = 20_000

const NOTHING: readonly Effect[] = []
const ONE_PAGE: Prefetch = { plan: () => ({ count: 1, down: false }), fetched: () => undefined }

function untouched(): Page {
  return {
    state: 'untouched',
    version: versionOfBirth(0),
    where: HOME,
    known: HOME,
    lastWrittenCut: 0,
    contents: 0,
    pinned: false,
    deferred: false,
    watched: false,
    prefetched: false,
    copyAt: HOME,
    offered: false,
  }
}

const UNTOUCHED: Readonly<Page> = Object.freeze(untouched())

export class State {
  readonly self: NodeIndex
  readonly regionOf: (page: PageNumber) => Region | undefined
  readonly prefetch: Prefetch
  readonly threadsStay: boolean
  readonly pages = new Map<PageNumber, Page>()
  /** Lanes that are up, ascending. */
  readonly peers: NodeIndex[] = []
  /** Lenders. */
  readonly hints = new Hints()
  deferred: Deferred[] = []
  /** The next `onTime`, if one is wanted. */
  timer: number | undefined
  now = 0
  birth = 0
  residentPages = 0
  /** Asked for, and not here yet. */
  expectedPages = 0
  copiedPages = 0
  offeredPages = 0
  /** Offered pages that somebody here waits to write to. */
  offerWaiters = new Set<PageNumber>()
  copiesPay = 0
  copiesDeclined = 0
  /** Does a thread run on this node's pages? Only then are pages held. */
  threadsHere = true
  /** Lenders: there is room for copies. */
  keepsCopies = true
  #held = new Map<number, Held>()
  #effects: Effect[] = []

  constructor(options: OwnershipOptions) {
    this.self = options.self
    this.regionOf = options.regionOf
    this.prefetch = options.prefetch ?? ONE_PAGE
    this.threadsStay = options.threadsStay ?? false
  }

  /** What the table says, without an entry for a page of which nothing is known. */
  peek(page: PageNumber): Readonly<Page> {
    return this.pages.get(page) ?? UNTOUCHED
  }

  entry(page: PageNumber): Page {
    const known = this.pages.get(page)
    if (known !== undefined) return known
    const entry = untouched()
    this.pages.set(page, entry)
    return entry
  }

  isUp(node: NodeIndex): boolean {
    return this.peers.includes(node)
  }

  emit(effect: Effect): void {
    this.#effects.push(effect)
  }

  /** What is said to a node without a lane is lost. */
  send(to: NodeIndex, bulk: boolean, frame: PageFrame): void {
    if (this.isUp(to)) this.emit({ kind: 'send', to, bulk, frame })
  }

  takeEffects(): readonly Effect[] {
    if (this.#effects.length === 0) return NOTHING
    const effects = this.#effects
    this.#effects = []
    return effects
  }

  /** The page is here from now on. */
  place(entry: Page, contents: number): void {
    entry.state = 'resident'
    entry.contents = contents
    entry.copyAt = HOME
    entry.offered = false
    this.residentPages++
  }

  /** The page is not here any more, or not in memory; who calls says what it is then. */
  remove(entry: Page, state: PageState): void {
    if (entry.state === 'resident') this.residentPages--
    if (entry.state === 'in-flight') this.expectedPages--
    if (entry.state === 'copied') this.copiedPages--
    if (state !== 'spilled' && state !== 'copied') entry.contents = 0
    entry.state = state
    entry.copyAt = HOME
    entry.offered = false
  }

  noteRemote(entry: Page, owner: NodeIndex, version: Version): void {
    this.remove(entry, 'remote')
    entry.where = owner
    entry.version = version
  }

  /** Ownership goes to another node; whoever has the page next has it under a newer version. */
  setGone(page: PageNumber, entry: Page, owner: NodeIndex): void {
    const held = this.#held.get(page % HELD_SLOTS)
    if (held?.page === page) held.left = this.now
    this.noteRemote(entry, owner, moved(entry.version))
  }

  startHold(page: PageNumber): void {
    const slot = page % HELD_SLOTS
    const held = this.#held.get(slot)
    const fight = held?.page === page && this.now - held.left < FIGHT_US
    const hold = fight ? Math.min(held.hold * 2, HOLD_MAX_US) : HOLD_US + 2 * this.self
    const next = { page, until: this.now + hold, hold, left: held?.left ?? 0 }
    if (held === undefined) this.#held.set(slot, next)
    else Object.assign(held, next)
  }

  /** When the page's hold ends, if it is held. */
  heldUntil(page: PageNumber): Micros | undefined {
    const held = this.#held.get(page % HELD_SLOTS)
    return held?.page === page && held.until > this.now ? (held.until as Micros) : undefined
  }

  keepCopy(page: PageNumber, contents: number): void {
    const entry = this.entry(page)
    invariant(entry.state === 'remote', 'a copy is of a page that was given away')
    entry.state = 'copied'
    entry.contents = contents
    this.copiedPages++
  }
}
