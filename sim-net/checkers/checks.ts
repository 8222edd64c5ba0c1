/**
 * What must hold whatever happens, looked at whenever something happens that could break it: one owner for each page,
 * one running copy of each thread, reads that see the last write, versions that grow, memory and credit that are kept.
 *
 * A violation is a value; the run goes on. Limit: the first hundred are kept, the others counted.
 */

import type { Page, PageFrame, PageMeta } from '../../kmod/ownership/types.js'
import { HOME, type PageNumber } from '../../placement/ids.js'
import type { VirtualClock } from '../clock.js'
import type { ThreadContext } from '../cluster/guest.js'
import { carriesPage, type LaneEnd, type LaneFrame } from '../cluster/lane.js'
import type { SimPager } from '../cluster/pager.js'
import type { SimProcess } from '../cluster/process.js'

export type ViolationKind =
  | 'owner'
  | 'thread'
  | 'contents'
  | 'version'
  | 'memory'
  | 'credit'
  | 'lease'
  | 'queue'
  | 'error'
  | 'liveness'
  /** Somebody alive was taken for dead, or somebody dead for alive. */
  | 'detection'

export interface Violation {
  /** Virtual ms. */
  readonly at: number
  readonly kind: ViolationKind
  readonly text: string
  readonly seed: number
}

const KEPT_MAX = 100
/** A pager whose limit has sunk may hold more for so long: pages that came just now are held. */
const SHRINK_MS = 1_000
/** Two hosts that have run and reached each other for so long have heard each other. */
const SOUND_MS = 1_000
/** Then, too, their agents have found each other again, and one has said of its pager that it stalls. */
const SOUND_STALLED_MS = 15_000
const STALL_NOTICED_MS = 2_000
/** What a pager waits for another one without a verdict, and after one that was on its way when that one died. */
const DEAD_MS_MAX = 4_500 + 2_000

export class Checks {
  readonly violations: Violation[] = []
  left = 0
  readonly #seed: number
  readonly #clock: VirtualClock
  readonly #shrunk = new WeakMap<SimPager, number>()

  constructor(seed: number, clock: VirtualClock) {
    this.#seed = seed
    this.#clock = clock
  }

  report(kind: ViolationKind, text: string): void {
    if (this.violations.length >= KEPT_MAX) this.left++
    else this.violations.push({ at: this.#clock.now(), kind, text, seed: this.#seed })
  }

  /** A thread has come to a pager, or begins there. */
  onArrival(pager: SimPager, { thread, pc }: ThreadContext): void {
    const { process } = pager
    this.#isNext(pager, thread, pc)
    for (const other of process.pagers)
      if (other.guests.has(thread))
        this.report('thread', `thread ${thread} of ${pager.title} runs at node ${other.node} too`)
  }

  /** A thread has read or written a page that is here. */
  onAccess(pager: SimPager, { thread, pc }: ThreadContext, page: PageNumber, kind: 'read' | 'write'): void {
    const { process, ownership } = pager
    this.#isNext(pager, thread, pc)
    process.completed[thread] = pc + 1
    if (!process.isAlive(page, ownership.page(page).version)) {
      if (!isEnding(pager, page))
        this.report('contents', `page ${page} at ${pager.title} is of an older life`)
      return
    }
    if (kind === 'write') process.contents.set(page, ownership.read(page))
    const last = process.contents.get(page)
    const found = ownership.read(page)
    if (found !== last)
      this.report('contents', `page ${page} of ${pager.title} reads ${found}, and ${last} was written last`)
  }

  /** Home has ended pages for a thread. */
  onForget(pager: SimPager, { thread, pc }: ThreadContext, first: PageNumber, end: PageNumber): void {
    const { process, ownership } = pager
    this.#isNext(pager, thread, pc)
    process.completed[thread] = pc + 1
    for (let page = first; page < end; page = (page + 1) as PageNumber) {
      process.contents.set(page, 0)
      process.born.set(page, ownership.page(page).version)
    }
  }

  /** Pages are sent. */
  onFrame(pager: SimPager, frame: PageFrame): void {
    if (frame.type === 'pages' || frame.type === 'push')
      for (const { page } of frame.metas) this.#hasGrown(pager, page)
  }

  /** A page is in memory now. */
  onPage(pager: SimPager, page: PageNumber): void {
    this.#hasGrown(pager, page)
    const { holders } = pager.process
    if (!pager.holds(page)) return
    const before = holders.get(page)
    holders.set(page, pager)
    if (before === undefined || before === pager || !before.alive || !before.holds(page)) return
    if (before.ownership.page(page).offered || pager.ownership.page(page).offered) return
    this.report(
      'owner',
      `page ${page} of ${pager.process.title} is at nodes ${before.node} and ${pager.node}`,
    )
  }

  onPush(pager: SimPager, lane: LaneEnd): void {
    if (lane.received > lane.granted)
      this.report('credit', `${lane.received} pages pushed to ${pager.title}, ${lane.granted} were granted`)
  }

  /** A pager gives up one that it does not hear. */
  onGivenUp({ pager, other, heardAt }: LaneEnd): void {
    const { network, clock } = pager.site
    if (!other.pager.alive || !other.isOpen) return
    const now = clock.now()
    const hasStalled = now - other.pager.stalledUntil < STALL_NOTICED_MS
    const soundMs = now - network.troubledUntil(pager.host, other.pager.host)
    if (soundMs <= (hasStalled ? SOUND_STALLED_MS : SOUND_MS)) return
    const silentS = ((now - heardAt) / 1_000).toFixed(1)
    this.report('detection', `${pager.title} gives up ${other.pager.title}, silent for ${silentS} s`)
  }

  /** The limit of a pager has changed. */
  onLimit(pager: SimPager): void {
    this.#shrunk.set(pager, this.#clock.now())
  }

  onMemory(pager: SimPager): void {
    const { room, ownership } = pager
    if (ownership.takenPages > room.limit) this.#isShrinking(pager)
    const { deferredGets } = ownership.counts
    if (deferredGets > 4096) this.report('queue', `${deferredGets} requests wait at ${pager.title}`)
  }

  #isShrinking(pager: SimPager): void {
    const { residentPages, copiedPages } = pager.ownership.counts
    const { limit } = pager.room
    const since = this.#shrunk.get(pager) ?? Number.NEGATIVE_INFINITY
    if (residentPages + copiedPages > limit && this.#clock.now() - since > SHRINK_MS)
      this.report('memory', `${residentPages} + ${copiedPages} pages at ${pager.title}, ${limit} are allowed`)
  }

  /** Every page of a process: one owner, or one move under way. Costs a look at all of them. */
  sweep(process: SimProcess): void {
    const pagers = [...process.pagers]
    if (!process.runs) return
    for (const pager of pagers) this.#sweepLanes(pager)
    if (pagers.some(isTorn)) return
    const moving = movesOf(pagers)
    const { first, pages } = process.plan.program
    for (let page = first; page < first + pages; page = (page + 1) as PageNumber) {
      const moves = moving.get(page) ?? NOBODY_MOVES
      if (countOwners(process, pagers, page, moves) === 1) continue
      const owners = ownersOf(process, pagers, page, moves)
      this.report('owner', `page ${page} of ${process.title} belongs to: ${owners.join(', ') || 'nobody'}`)
    }
    this.#sweepThreads(process, pagers)
  }

  #sweepLanes({ lanes, title, stalledUntil, host }: SimPager): void {
    const now = this.#clock.now()
    if (host.stalled || now - Math.max(stalledUntil, host.soundSince) < SOUND_MS) return
    for (const { other, heardAt } of lanes.values()) {
      const deadMs = now - Math.max(other.pager.diedAt, heardAt)
      if (deadMs > DEAD_MS_MAX)
        this.report(
          'detection',
          `${title} waits for ${other.pager.title}, silent for ${Math.round(deadMs)} ms`,
        )
    }
  }

  #sweepThreads(process: SimProcess, pagers: readonly SimPager[]): void {
    for (const thread of process.completed.keys()) {
      const running = pagers.filter(({ guests }) => guests.has(thread as ThreadContext['thread'])).length
      let under = 0
      for (const { lanes } of pagers)
        for (const lane of lanes.values()) for (const frame of lane.unread) if (isOf(frame, thread)) under++
      if (running + under !== 1)
        this.report(
          'thread',
          `thread ${thread} of ${process.title} runs ${running} times and is moved ${under} times`,
        )
    }
  }

  #isNext(pager: SimPager, thread: number, pc: number): void {
    const completed = pager.process.completed[thread]
    if (completed !== pc)
      this.report('thread', `thread ${thread} of ${pager.title} is at ${pc}, and ${completed} are completed`)
  }

  #hasGrown(pager: SimPager, page: PageNumber): void {
    const { version } = pager.ownership.page(page)
    const before = pager.versions.get(page)
    if (version < before) this.report('version', `page ${page} at ${pager.title}: ${version} after ${before}`)
    pager.versions.set(page, version)
  }
}

/** Home has ended the page, and word of that is on its way. */
function isEnding({ lanes }: SimPager, page: PageNumber): boolean {
  const home = lanes.get(HOME)?.other
  if (home === undefined) return false
  return (
    !home.isOpen ||
    home.unread.some(frame => {
      if (frame.kind !== 'page' || frame.frame.type !== 'drop') return false
      const { first, count } = frame.frame
      return page >= first && page < first + count
    })
  )
}

/**
 * A lane is down at one end, and not at the other: what was on it is nowhere until home knows. Or home is just being
 * told that something was lost with a lane, which ends the run.
 */
function isTorn({ lanes }: SimPager): boolean {
  for (const lane of lanes.values()) {
    if (!lane.other.isOpen || !lane.other.pager.alive || lane.other.byes > 0) return true
    if (lane.unread.some(({ kind }) => kind === 'failed')) return true
  }
  return false
}

const NOBODY_MOVES: readonly Move[] = []

interface Move {
  readonly meta: PageMeta
  readonly from: SimPager
  readonly to: SimPager
}

function movesOf(pagers: readonly SimPager[]): Map<PageNumber, Move[]> {
  const moves = new Map<PageNumber, Move[]>()
  for (const from of pagers) {
    for (const lane of from.lanes.values()) {
      const to = lane.other.pager
      for (const frame of lane.unread) {
        for (const meta of metasOf(frame)) {
          const known = moves.get(meta.page)
          if (known === undefined) moves.set(meta.page, [{ meta, from, to }])
          else known.push({ meta, from, to })
        }
      }
    }
  }
  return moves
}

function countOwners(
  process: SimProcess,
  pagers: readonly SimPager[],
  page: PageNumber,
  moves: readonly Move[],
): number {
  let owners = 0
  for (const pager of pagers) if (owns(pager, page, moves)) owners++
  for (const { meta, to } of moves) if (counts(process, to, meta)) owners++
  return owners
}

/** For people. */
function ownersOf(
  process: SimProcess,
  pagers: readonly SimPager[],
  page: PageNumber,
  moves: readonly Move[],
): string[] {
  return [
    ...pagers.filter(pager => owns(pager, page, moves)).map(({ node }) => `node ${node}`),
    ...moves
      .filter(({ to, meta }) => counts(process, to, meta))
      .map(({ from, to }) => `from node ${from.node} to ${to.node}`),
  ]
}

function owns({ ownership, node, process }: SimPager, page: PageNumber, moves: readonly Move[]): boolean {
  const entry = ownership.page(page)
  const { state, version } = entry
  if (state === 'untouched') return node === HOME
  return (
    (state === 'resident' || state === 'spilled') && process.isAlive(page, version) && !isTaken(entry, moves)
  )
}

/** A page with its contents that will be accepted. */
function counts(process: SimProcess, to: SimPager, meta: PageMeta): boolean {
  if (!carriesPage(meta)) return false
  const { version, state } = to.ownership.page(meta.page)
  const wanted = to.node !== HOME || state === 'remote' || state === 'in-flight'
  return wanted && meta.version > version && process.isAlive(meta.page, meta.version)
}

/** On offer, and the answer is on its way: the lender has it again. */
function isTaken(entry: Readonly<Page>, moves: readonly Move[]): boolean {
  if (!entry.offered) return false
  return moves.some(({ meta, from, to }) => {
    const isAnswer = to.node === HOME && from.node === entry.copyAt && meta.kind === 'moved'
    return isAnswer && meta.version === entry.version + 1
  })
}

function metasOf(frame: LaneFrame): readonly PageMeta[] {
  if (frame.kind !== 'page') return []
  return frame.frame.type === 'pages' || frame.frame.type === 'push' ? frame.frame.metas : []
}

function isOf(frame: LaneFrame, thread: number): boolean {
  return frame.kind === 'thread' && frame.context.thread === thread
}
