/**
 * The home side of leases: finding participants for one elastic process. Pure; one per attached home pager.
 *
 * Every peer that is joined is a candidate; the best ones (candidates.ts) are asked first, and as many at once as there
 * are places left. An offer always ends: granted, refused, timed out, or its peer went away. A peer
 * that said no is asked again after a while that depends on why (a full one soon, an incompatible one only when it
 * has been restarted), so that room which appears later is used.
 * A lane that is up belongs to the pagers: an agent that vanishes changes nothing here.
 * A peer that was contracted is asked no more until `stretch` names it (choice.ts).
 *
 * Limits: `participantsMax` nodes (64 at most), as many offers at a time; refusals of 1024 peers are remembered.
 */

import { type Candidate, Candidates, type Lender } from './candidates.js'
import { Choice, type Choices } from './choice.js'
import { type LeaseTerms, NODES_MAX, type PeerId, type Refusal, refusalText } from './types.js'

/** The lender starts a process before it answers. */
export const OFFER_TIMEOUT_MS = 6_000
/** From the grant to the lane: one dial and a TLS handshake. */
export const LANE_TIMEOUT_MS = 8_000
/** The most pages that a lease may grow to: as many as one node can hold (256 GiB). Lenders begin with a share. */
const PAGES_WANTED = 2 ** 26
const THREADS_WANTED = 64

export type HomeEvent =
  | { readonly kind: 'available'; readonly lenders: readonly Lender[] }
  | {
      readonly kind: 'unavailable'
      readonly peer: PeerId
      readonly why: 'suspected' | 'leaving' | 'forgotten'
    }
  | {
      readonly kind: 'granted'
      readonly peer: PeerId
      readonly leaseId: number
      readonly terms: LeaseTerms
      readonly host: string
      readonly port: number
    }
  | { readonly kind: 'refused'; readonly peer: PeerId; readonly leaseId: number; readonly refusal: Refusal }
  | {
      readonly kind: 'lease-update'
      readonly peer: PeerId
      readonly leaseId: number
      readonly terms: LeaseTerms
      readonly reason: string
    }
  | { readonly kind: 'lane-up'; readonly node: number }
  | { readonly kind: 'lane-down'; readonly node: number; readonly reason: string }
  | { readonly kind: 'restored'; readonly participant: Participant }
  /** Lets go of `peer`, or of all, once home has its pages again. */
  | { readonly kind: 'contract'; readonly peer: PeerId | undefined }
  /** The same of one that is of no use, until room is wanted; without `peer`: it is. */
  | { readonly kind: 'rest'; readonly peer: PeerId | undefined }
  /** Asks `peer` now, beyond the most participants there were to be. */
  | { readonly kind: 'stretch'; readonly peer: PeerId }
  /** Whoever has room is asked again, as before anybody was contracted. */
  | { readonly kind: 'automatic' }
  /** `seen`: its process is no more. Else it has said so, or cannot be reached. */
  | { readonly kind: 'ended'; readonly seen: boolean }
  | { readonly kind: 'tick' }

export type HomeEffect =
  | {
      readonly kind: 'offer'
      readonly peer: PeerId
      readonly leaseId: number
      readonly node: number
      readonly pages: number
      readonly threads: number
    }
  | {
      readonly kind: 'lane'
      readonly participant: Participant
      readonly terms: LeaseTerms
      readonly host: string
      readonly port: number
    }
  | { readonly kind: 'update'; readonly leaseId: number; readonly terms: LeaseTerms; readonly reason: string }
  | { readonly kind: 'drop'; readonly node: number }
  | {
      readonly kind: 'release'
      readonly peer: PeerId
      readonly leaseId: number
      readonly homeEnded: boolean
    }
  | { readonly kind: 'refusal'; readonly name: string; readonly text: string }
  /** The set of participants has changed. */
  | { readonly kind: 'participants'; readonly up: readonly Participant[] }

/** A node other than home that has a lease for this process. */
export interface Participant {
  readonly peer: PeerId
  readonly name: string
  readonly node: number
  readonly leaseId: number
}

export type SeatState = 'offered' | 'granted' | 'up' | 'leaving'

interface Seat extends Participant {
  state: SeatState
  deadline: number
}

export class LeaseHome {
  readonly #seats = new Map<number, Seat>()
  readonly #candidates = new Candidates()
  readonly #choice: Choice
  #seatsMax: number
  readonly #usedNodes = new Set<number>()
  #nextLeaseId: number
  #ended = false

  /** @param leaseIdBase where this process' lease ids start: random, so that ids of two processes differ */
  constructor(options: { participantsMax: number; leaseIdBase: number; choices?: Choices }) {
    this.#seatsMax = Math.min(options.participantsMax, NODES_MAX) - 1
    this.#choice = new Choice(options.choices)
    this.#nextLeaseId = options.leaseIdBase
  }

  /** Participants whose lane is up, home not included. */
  up(): Participant[] {
    return [...this.#seats.values()]
      .filter(seat => seat.state === 'up' || seat.state === 'leaving')
      .map(plain)
  }

  /** Leases that were granted, whether or not their lane is up: what has to be remembered over a restart. */
  leases(): Participant[] {
    return [...this.#seats.values()].filter(seat => seat.state !== 'offered').map(plain)
  }

  /** What has become of the offer to each peer that was made one. */
  seats(): { readonly peer: PeerId; readonly name: string; readonly state: SeatState }[] {
    return [...this.#seats.values()].map(({ peer, name, state }) => ({ peer, name, state }))
  }

  /** Whether that offer waits for its answer. */
  isOffered(leaseId: number): boolean {
    return this.#seats.get(leaseId)?.state === 'offered'
  }

  get choices(): Choices {
    return this.#choice.choices
  }

  /** Home included. */
  get participantsMax(): number {
    return this.#seatsMax + 1
  }

  onEvent(event: HomeEvent, now: number): HomeEffect[] {
    if (this.#ended) return event.kind === 'granted' ? [release(event.peer, event.leaseId)] : []
    switch (event.kind) {
      case 'available':
        this.#candidates.note(event.lenders, now)
        return this.#fill(now)
      case 'unavailable':
        return this.#onUnavailable(event.peer, event.why, now)
      case 'granted':
        return this.#onGranted(event, now)
      case 'refused':
        return this.#onRefused(event.peer, event.leaseId, event.refusal, now)
      case 'lease-update':
        return this.#onUpdate(event)
      case 'lane-up':
        return this.#onLaneUp(event.node)
      case 'lane-down':
        return this.#onLaneDown(event.node, event.reason, now)
      case 'restored':
        return this.#onRestored(event.participant, now)
      case 'contract':
        this.#choice.forbid(event.peer)
        return this.#onChoice(now)
      case 'rest':
        this.#choice.rest(event.peer)
        return this.#onChoice(now)
      case 'stretch':
        return this.#onStretch(event.peer, now)
      case 'automatic':
        this.#choice.automatic()
        return this.#fill(now)
      case 'ended':
        return this.#onEnded(event.seen)
      case 'tick':
        return this.#onTick(now)
    }
  }

  #onUnavailable(peer: PeerId, why: 'suspected' | 'leaving' | 'forgotten', now: number): HomeEffect[] {
    if (why === 'forgotten') this.#candidates.forget(peer)
    else this.#candidates.away(peer)
    const effects: HomeEffect[] = []
    for (const seat of this.#seats.values()) {
      if (seat.peer !== peer) continue
      if (seat.state === 'offered') this.#seats.delete(seat.leaseId)
      if (why === 'leaving' && seat.state !== 'offered' && seat.state !== 'leaving') {
        seat.state = 'leaving'
        effects.push({ kind: 'drop', node: seat.node })
      }
    }
    return [...effects, ...this.#fill(now)]
  }

  #onGranted(event: HomeEvent & { kind: 'granted' }, now: number): HomeEffect[] {
    const seat = this.#seats.get(event.leaseId)
    if (seat === undefined || seat.peer !== event.peer) return [release(event.peer, event.leaseId)]
    if (seat.state !== 'offered') return []
    seat.state = 'granted'
    seat.deadline = now + LANE_TIMEOUT_MS
    this.#usedNodes.add(seat.node)
    return [
      { kind: 'lane', participant: plain(seat), terms: event.terms, host: event.host, port: event.port },
    ]
  }

  #onRefused(peer: PeerId, leaseId: number, refusal: Refusal, now: number): HomeEffect[] {
    const seat = this.#seats.get(leaseId)
    if (seat === undefined || seat.peer !== peer || seat.state !== 'offered') return []
    this.#seats.delete(leaseId)
    return [this.#punish(seat, refusal, now), ...this.#fill(now)]
  }

  #onUpdate(event: HomeEvent & { kind: 'lease-update' }): HomeEffect[] {
    const seat = this.#seats.get(event.leaseId)
    if (seat === undefined || seat.peer !== event.peer || seat.state === 'offered') return []
    const { leaseId, terms, reason } = event
    const update: HomeEffect = { kind: 'update', leaseId, terms, reason }
    if (terms.ttlMs > 0 || seat.state === 'leaving') return [update]
    seat.state = 'leaving'
    return [update, { kind: 'drop', node: seat.node }]
  }

  #onLaneUp(node: number): HomeEffect[] {
    const seat = this.#seatOf(node)
    if (seat === undefined || seat.state === 'up') return []
    if (seat.state === 'granted') seat.state = 'up'
    this.#candidates.succeeded(seat.peer)
    return [...this.#bringBack(seat), { kind: 'participants', up: this.up() }]
  }

  #onLaneDown(node: number, reason: string, now: number): HomeEffect[] {
    const seat = this.#seatOf(node)
    if (seat === undefined) return []
    this.#seats.delete(seat.leaseId)
    const refusal: Refusal = { code: 'lane-failed', detail: reason.slice(0, 200) }
    return [
      release(seat.peer, seat.leaseId),
      this.#punish(seat, refusal, now),
      { kind: 'participants', up: this.up() },
      ...this.#fill(now),
    ]
  }

  /** The pager says which lanes are up; one that ended in the meantime is given up as one that never came. */
  #onRestored(participant: Participant, now: number): HomeEffect[] {
    this.#seats.set(participant.leaseId, {
      ...participant,
      state: 'granted',
      deadline: now + LANE_TIMEOUT_MS,
    })
    this.#usedNodes.add(participant.node)
    return []
  }

  #onChoice(now: number): HomeEffect[] {
    return [...[...this.#seats.values()].flatMap(seat => this.#bringBack(seat)), ...this.#fill(now)]
  }

  /** Lets go of a seat that is no longer to be taken. One whose lane is not up yet follows when it is. */
  #bringBack(seat: Seat): HomeEffect[] {
    if (this.#choice.allows(seat.peer)) return []
    if (seat.state === 'offered') {
      this.#seats.delete(seat.leaseId)
      return [release(seat.peer, seat.leaseId)]
    }
    if (seat.state !== 'up') return []
    seat.state = 'leaving'
    return [{ kind: 'drop', node: seat.node }]
  }

  #onStretch(peer: PeerId, now: number): HomeEffect[] {
    const candidate = this.#candidates.get(peer)
    const name = candidate?.name ?? peer
    const seat = [...this.#seats.values()].find(one => one.peer === peer)
    const refusal = (text: string): HomeEffect[] => [{ kind: 'refusal', name, text }]
    if (seat?.state === 'leaving') return refusal('it is just being let go; try again when it is')
    if (candidate?.available !== true) return refusal('it does not answer')
    this.#choice.allow(peer)
    if (seat !== undefined) return []
    if (this.#seats.size >= NODES_MAX - 1)
      return refusal(`${NODES_MAX} machines take part, which is the most`)
    this.#seatsMax = Math.max(this.#seatsMax, this.#seats.size + 1)
    return this.#ask(candidate, now)
  }

  #onEnded(seen: boolean): HomeEffect[] {
    this.#ended = true
    const releases = [...this.#seats.values()].map(seat => release(seat.peer, seat.leaseId, seen))
    this.#seats.clear()
    return releases
  }

  #onTick(now: number): HomeEffect[] {
    const effects: HomeEffect[] = []
    for (const seat of [...this.#seats.values()]) {
      if (now < seat.deadline || seat.state === 'up' || seat.state === 'leaving') continue
      this.#seats.delete(seat.leaseId)
      if (seat.state === 'granted') effects.push({ kind: 'drop', node: seat.node })
      effects.push(release(seat.peer, seat.leaseId))
      const code = seat.state === 'offered' ? 'timeout' : 'lane-failed'
      effects.push(this.#punish(seat, { code, detail: 'no answer in time' }, now))
    }
    return [...effects, ...this.#fill(now)]
  }

  /** Makes offers until all places are taken or nobody is left to ask. */
  #fill(now: number): HomeEffect[] {
    const free = this.#seatsMax - this.#seats.size
    if (free <= 0) return []
    const seated = new Set([...this.#seats.values()].map(seat => seat.peer))
    const able = this.#candidates
      .able(now)
      .filter(({ peer }) => !seated.has(peer) && this.#choice.allows(peer))
    return able.slice(0, free).flatMap(candidate => this.#ask(candidate, now))
  }

  #ask({ peer, name }: Candidate, now: number): HomeEffect[] {
    const node = this.#freeNode()
    if (node === undefined) return []
    const leaseId = this.#nextLeaseId++
    this.#seats.set(leaseId, {
      peer,
      name,
      node,
      leaseId,
      state: 'offered',
      deadline: now + OFFER_TIMEOUT_MS,
    })
    return [{ kind: 'offer', peer, leaseId, node, pages: PAGES_WANTED, threads: THREADS_WANTED }]
  }

  /** The lowest index that was never used, then (after 63 changes) the lowest that is free: hints may be old. */
  #freeNode(): number | undefined {
    const taken = new Set([...this.#seats.values()].map(seat => seat.node))
    for (const avoid of [this.#usedNodes, new Set<number>()]) {
      for (let node = 1; node < NODES_MAX; node++) if (!taken.has(node) && !avoid.has(node)) return node
    }
    return undefined
  }

  /** Notes that `seat`'s peer said no, and when to ask it again. */
  #punish(seat: Seat, refusal: Refusal, now: number): HomeEffect {
    this.#candidates.refused(seat.peer, refusal.code, now)
    return { kind: 'refusal', name: seat.name, text: refusalText(refusal) }
  }

  #seatOf(node: number): Seat | undefined {
    for (const seat of this.#seats.values()) if (seat.node === node && seat.state !== 'offered') return seat
    return undefined
  }
}

function release(peer: PeerId, leaseId: number, homeEnded = false): HomeEffect {
  return { kind: 'release', peer, leaseId, homeEnded }
}

function plain({ peer, name, node, leaseId }: Participant): Participant {
  return { peer, name, node, leaseId }
}
