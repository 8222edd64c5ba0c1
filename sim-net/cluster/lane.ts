/**
 * One end of a simulated lane between two pagers: two connections, urgent and bulk, each in order by itself and in no
 * order with the other. As the real ones (docs/architecture.md, "A connection that breaks"), a connection that breaks is
 * resumed and loses nothing; a cut holds everything up; four seconds in which nothing gets through end the lane.
 *
 * Limits: each connection has the link's whole bandwidth; a frame counts as acknowledged as soon as it was read.
 */

import type { PageFrame, PageMeta } from '../../kmod/ownership/types.js'
import type { NodeIndex } from '../../placement/ids.js'
import type { Due } from '../clock.js'
import type { ThreadContext } from './guest.js'
import type { SimPager } from './pager.js'
import type { Site } from './site.js'

export type LaneFrame =
  | { readonly kind: 'page'; readonly frame: PageFrame }
  /** Renews the lease; `window` is how many pages the reader may have pushed here in all. */
  | { readonly kind: 'status'; readonly window: number }
  /** Home runs it or passes it on. */
  | { readonly kind: 'thread'; readonly context: ThreadContext; readonly to: NodeIndex }
  /** From home, on both connections: all threads and pages go home. */
  | { readonly kind: 'drain' }
  /** To the other participants, and their answer, on both connections. */
  | { readonly kind: 'no-more' }
  | { readonly kind: 'no-more-read' }
  | { readonly kind: 'empty' }
  | { readonly kind: 'failed'; readonly reason: string }
  | { readonly kind: 'bye' }

/** As the kernel's TCP does it. */
const RETRANSMIT_MS = 200
const CUT_LOOK_MS = 50
const STALL_LOOK_MS = 10
const REDIAL_MS_MIN = 10
const REDIAL_MS_MAX = 200
/** The lane's own bound, in frames: of 64 MiB of pages. */
const KEPT_MAX = 16_384
const FRAME_BYTES = 64
const META_BYTES = 32
const PAGE_BYTES = 4_096

export interface LaneLease {
  readonly leaseId: number
  pagesMax: number
  expiresAt: number
  revoked: boolean
}

export class LaneEnd {
  readonly #site: Site
  readonly #ways: readonly [Way, Way] = [new Way(this), new Way(this)]
  readonly pager: SimPager
  readonly node: NodeIndex
  readonly lease: LaneLease
  #other: LaneEnd | undefined
  isOpen = true
  heardAt: number
  /** Its agent was told that the other end is silent; until then it is waited for. */
  silenceTold = false
  waitedUntil = 0
  /** Pages pushed from here in all, and how many may be; the same of the other end. */
  pushed = 0
  mayPush = 0
  received = 0
  granted = 0
  /** How often a word was read that comes on both connections. */
  byes = 0
  empties = 0
  drains = 0
  noMoreRead = 0
  noMore = 0

  private constructor(site: Site, pager: SimPager, node: NodeIndex, lease: LaneLease) {
    this.#site = site
    this.pager = pager
    this.node = node
    this.lease = lease
    this.heardAt = site.clock.now()
  }

  static pair(
    site: Site,
    one: SimPager,
    other: SimPager,
    leases: readonly [LaneLease, LaneLease],
  ): readonly [LaneEnd, LaneEnd] {
    const ends = [
      new LaneEnd(site, one, other.node, leases[0]),
      new LaneEnd(site, other, one.node, leases[1]),
    ] as const
    ends[0].#other = ends[1]
    ends[1].#other = ends[0]
    return ends
  }

  /** What this end has sent and the other one has not read. */
  get unread(): readonly LaneFrame[] {
    return [...this.#ways[0].frames, ...this.#ways[1].frames]
  }

  send(bulk: boolean, frame: LaneFrame): void {
    if (!this.isOpen) return
    const way = this.#ways[bulk ? 1 : 0]
    if (way.frames.length >= KEPT_MAX) {
      this.#site.checks.report('queue', `a lane of ${this.pager.title} keeps ${KEPT_MAX} frames`)
      return
    }
    way.frames.push(frame)
    way.readyAt.push(this.#arrival(way, bytesOf(frame)))
    if (!way.busy) this.#await(way, way.readyAt[0] as number)
  }

  sendBoth(frame: LaneFrame): void {
    this.send(false, frame)
    this.send(true, frame)
  }

  /** A connection breaks and is made anew: what was not read is sent again. */
  breakOne(bulk: boolean): void {
    const way = this.#ways[bulk ? 1 : 0]
    const { rng, clock } = this.#site
    const until = clock.now() + rng.between(REDIAL_MS_MIN, REDIAL_MS_MAX)
    for (const [i, at] of way.readyAt.entries()) way.readyAt[i] = Math.max(at, until)
    way.arrivesAt = Math.max(way.arrivesAt, until)
  }

  /** Ends it in order: the other end reads what is under way, and that it was the last. */
  close(): void {
    this.sendBoth({ kind: 'bye' })
    this.isOpen = false
  }

  /** Ends it without a word. */
  vanish(): void {
    this.isOpen = false
    for (const way of this.#ways) way.frames.length = way.readyAt.length = 0
  }

  #arrival(way: Way, bytes: number): number {
    const { clock, network, rng } = this.#site
    const { other } = this
    const { latencyMs, jitterMs, loss, bytesPerMs } = network.link(this.pager.host, other.pager.host)
    let ms = latencyMs + jitterMs * rng.next()
    if (loss > 0 && rng.chance(loss)) ms += RETRANSMIT_MS
    way.leavesAt = Math.max(way.leavesAt, clock.now()) + bytes / bytesPerMs
    way.arrivesAt = Math.max(way.arrivesAt, way.leavesAt + ms)
    return way.arrivesAt
  }

  get other(): LaneEnd {
    if (this.#other === undefined) throw new Error('a lane with one end')
    return this.#other
  }

  #await(way: Way, time: number): void {
    way.busy = true
    this.#site.clock.soon(time, way)
  }

  /** For `Way`: the first frame on it may be there. */
  arrive(way: Way): void {
    const { clock, network } = this.#site
    const { other } = this
    const now = clock.now()
    const [frame] = way.frames
    const [readyAt = 0] = way.readyAt
    if (frame === undefined || !other.isOpen || !other.pager.alive) {
      way.busy = false // nobody reads it: what is left there is lost with the lane
    } else if (readyAt > now) {
      this.#await(way, readyAt)
    } else if (!network.isOpen(this.pager.host, other.pager.host)) {
      this.#await(way, now + CUT_LOOK_MS)
    } else if (other.pager.stalled) {
      this.#await(way, now + STALL_LOOK_MS)
    } else {
      way.frames.shift()
      way.readyAt.shift()
      this.#site.onFrame(this.pager.host, other.pager.host, frame)
      other.heardAt = now
      other.pager.onFrame(other, frame, way === this.#ways[1])
      if (way.frames.length > 0) this.#await(way, Math.max(now, way.readyAt[0] ?? 0))
      else way.busy = false
    }
  }
}

/** One connection, in one direction. */
class Way implements Due {
  readonly frames: LaneFrame[] = []
  readonly readyAt: number[] = []
  /** When the last byte that was sent leaves, and when it arrives. */
  leavesAt = 0
  arrivesAt = 0
  busy = false
  readonly #lane: LaneEnd

  constructor(lane: LaneEnd) {
    this.#lane = lane
  }

  due(): void {
    this.#lane.arrive(this)
  }
}

export function carriesPage({ kind }: PageMeta): boolean {
  return kind === 'data' || kind === 'zero'
}

/** About as many as on the wire. */
function bytesOf(frame: LaneFrame): number {
  if (frame.kind !== 'page') return FRAME_BYTES
  const { frame: inner } = frame
  if (inner.type !== 'pages' && inner.type !== 'push') return FRAME_BYTES
  return (
    FRAME_BYTES +
    inner.metas.reduce((sum, { kind }) => sum + META_BYTES + (kind === 'data' ? PAGE_BYTES : 0), 0)
  )
}

/** What must not be lost with a lane. */
export function isPrecious(frame: LaneFrame): boolean {
  if (frame.kind === 'thread') return true
  if (frame.kind !== 'page') return false
  const { frame: inner } = frame
  return (inner.type === 'pages' || inner.type === 'push') && inner.metas.some(carriesPage)
}
