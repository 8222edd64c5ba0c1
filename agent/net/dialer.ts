/**
 * Who is dialled and when: peers of the command line for ever, others while they are heard of.
 * libp2p dials only when told to, and gives up; this does not.
 *
 * Whoever answers at an address that was given without a peer id is expected there from then on, until somebody else
 * answers: a machine that was installed anew has another identity.
 * Both sides of a discovery dial, which would give two connections where one does: the larger peer id waits a moment.
 * An address that is new is tried at once, but only a few are tried at a time: a handshake is work for both sides, and
 * many agents that start together would keep one another so busy that none of them ends in time.
 * Only a peer that has joined ends the pauses: one that keeps this agent out lets it connect before it looks who that is.
 *
 * Anybody with the network key can make up peers and addresses. So those that are only heard of are dialled a few at a
 * time and are the first to be forgotten, and what others say of a peer is tried after what it has said itself.
 *
 * Limits: 1024 peers, of more the one without a connection that was heard of longest ago is forgotten; 250 ms to 10 s
 * between attempts (jittered); 8 addresses a peer; of those announced on the LAN 8 are dialled at a time, of those only
 * heard of 16 (libp2p has 100 dials at a time).
 */

import type { PeerId } from '../machines/types.js'
import type { Clock, Timer } from '../ports/clock.js'

const TARGETS_MAX = 1024
const ADDRESSES_MAX = 8
const DELAY_FIRST_MS = 250
const DELAY_MAX_MS = 10_000
/** A handshake with oneself costs both ends of it. */
const DELAY_SELF_MS = 60_000
/** How long the side with the larger id leaves the first move to the other. */
const YIELD_MS = 1_000
/** How often new addresses of a peer are tried at once: one with many tells of some of them each time. */
const AT_ONCE_MS = 10_000
/** A discovered peer that is neither connected nor announced any more is forgotten after this. */
const FORGET_MS = 60_000
const TICK_MS = 250

export type DialOutcome =
  /** `address`: where it was reached. */
  | { readonly kind: 'connected'; readonly peer: PeerId; readonly address: string }
  /** Somebody answers but the handshake fails: as a rule another network key. */
  | { readonly kind: 'no-handshake' }
  /** Somebody with the right key answers who is not the peer that was expected. */
  | { readonly kind: 'other-identity' }
  | { readonly kind: 'failed'; readonly reason: string }
  | { readonly kind: 'self' }

export interface DialerPort {
  readonly self: PeerId
  readonly clock: Clock
  isConnected(peer: PeerId): boolean
  dial(addresses: readonly string[], peer: PeerId | undefined): Promise<DialOutcome>
  onOutcome(target: string, outcome: DialOutcome): void
  /** A peer that is connected says that it has an address that it did not have before. */
  onMoved(peer: PeerId): void
}

/** Who tells where a peer is: it itself on the LAN; it itself by gossip; another one, and then it has not found this one. */
export type Source = 'lan' | 'gossip' | 'another'

type Standing = 'heard-of' | 'announced' | 'named'

/** Those of the lowest rank are forgotten first. */
const STANDINGS: { readonly [standing in Standing]: { readonly rank: number; readonly dialsMax: number } } = {
  'heard-of': { rank: 0, dialsMax: 16 },
  announced: { rank: 1, dialsMax: 8 },
  named: { rank: 2, dialsMax: Number.POSITIVE_INFINITY },
}

interface Target {
  readonly id: string
  standing: Standing
  /** As it was given, or as the peer says itself; first what it has said last. */
  own: readonly string[]
  /** As others say. */
  told: readonly string[]
  reachedAt: string | undefined
  /** Who is expected there: as given, or whoever has answered last. */
  peer: PeerId | undefined
  /** Nobody was named. */
  readonly isAnybody: boolean
  delayMs: number
  notBefore: number
  atOnceAt: number
  heardAt: number
  dialling: boolean
  isSelf: boolean
}

export class Dialer {
  readonly #port: DialerPort
  readonly #targets = new Map<string, Target>()
  readonly #joined = new Set<PeerId>()
  readonly #dials = { 'heard-of': 0, announced: 0, named: 0 }
  /** Runs only while somebody is to be dialled. */
  #timer: Timer | undefined
  #stopped = false

  constructor(port: DialerPort) {
    this.#port = port
  }

  /** A peer of the command line. */
  addStatic(address: string, peer: PeerId | undefined): void {
    this.#add({ id: address, standing: 'named', own: [address], told: [], peer }, 0)
  }

  addDiscovered(peer: PeerId, found: readonly string[], source: Source): void {
    if (peer === this.#port.self || found.length === 0) return
    const known = this.#targets.get(peer)
    const standing = source === 'lan' ? 'announced' : 'heard-of'
    if (known !== undefined) {
      if (standing === 'announced') known.standing = standing
      known.heardAt = this.#port.clock.now()
      this.#learn(known, found, source)
      if (!this.#port.isConnected(peer)) this.#tick()
      return
    }
    const addresses = merge(found, [], undefined)
    const where = source === 'another' ? { own: [], told: addresses } : { own: addresses, told: [] }
    const waitMs = source === 'another' || this.#port.self < peer ? 0 : YIELD_MS
    this.#add({ id: peer, standing, ...where, peer }, waitMs)
  }

  /** `peer` has let this agent in. */
  joined(peer: PeerId): void {
    this.#joined.add(peer)
    for (const target of this.#targets.values()) if (target.peer === peer) hurry(target)
  }

  /** The connection to `peer` has ended: if it had joined, dial at once, then with growing pauses. */
  lost(peer: PeerId): void {
    if (this.#joined.delete(peer)) {
      for (const target of this.#targets.values()) {
        if (target.peer !== peer) continue
        hurry(target)
        target.heardAt = this.#port.clock.now()
      }
    }
    this.#tick()
  }

  stop(): void {
    this.#stopped = true
    this.#timer?.cancel()
    this.#targets.clear()
  }

  #learn(target: Target, found: readonly string[], source: Source): void {
    const addresses = merge(found, [], undefined)
    const isNew = addresses.some(address => !target.own.includes(address) && !target.told.includes(address))
    // Each of its interfaces says its own addresses only.
    if (source !== 'another') target.own = merge(addresses, target.own, target.reachedAt)
    const others = addresses.filter(address => !target.own.includes(address))
    target.told = merge(others, target.told, undefined).filter(address => !target.own.includes(address))
    if (!isNew) return
    if (target.peer !== undefined && this.#port.isConnected(target.peer)) {
      if (source !== 'another') this.#port.onMoved(target.peer)
    } else if (this.#port.clock.now() - target.atOnceAt >= AT_ONCE_MS) {
      target.atOnceAt = this.#port.clock.now()
      hurry(target)
    }
  }

  #add(target: Pick<Target, 'id' | 'standing' | 'own' | 'told' | 'peer'>, waitMs: number): void {
    if (this.#targets.has(target.id)) return
    if (this.#targets.size >= TARGETS_MAX && !this.#forgetOne(target.standing)) return
    const now = this.#port.clock.now()
    const patience = { delayMs: DELAY_FIRST_MS, notBefore: now + waitMs, atOnceAt: Number.NEGATIVE_INFINITY }
    const state = { heardAt: now, dialling: false, reachedAt: undefined, isSelf: false }
    this.#targets.set(target.id, { ...target, ...patience, ...state, isAnybody: target.peer === undefined })
    this.#tick()
  }

  /** For one of that standing. */
  #forgetOne(standing: Standing): boolean {
    let first: Target | undefined
    let lowest = STANDINGS[standing].rank
    for (const target of this.#targets.values()) {
      const { rank } = STANDINGS[target.standing]
      if (target.standing === 'named' || rank > lowest) continue
      if (first !== undefined && rank === lowest && target.heardAt >= first.heardAt) continue
      if (target.peer !== undefined && this.#port.isConnected(target.peer)) continue
      first = target
      lowest = rank
    }
    return first !== undefined && this.#targets.delete(first.id)
  }

  #tick(): void {
    if (this.#stopped) return
    const now = this.#port.clock.now()
    let waiting = false
    for (const target of this.#targets.values()) {
      if (target.peer !== undefined && this.#port.isConnected(target.peer)) continue
      waiting = true
      if (target.dialling || now < target.notBefore) continue
      if (target.standing !== 'named' && now - target.heardAt > FORGET_MS) {
        this.#targets.delete(target.id)
        continue
      }
      if (this.#dials[target.standing] < STANDINGS[target.standing].dialsMax) void this.#dial(target)
    }
    this.#timer?.cancel()
    this.#timer = waiting ? this.#port.clock.at(now + TICK_MS, () => this.#tick()) : undefined
  }

  async #dial(target: Target): Promise<void> {
    const { standing } = target
    target.dialling = true
    this.#dials[standing]++
    const outcome = await this.#port.dial(
      [...target.own, ...target.told].slice(0, ADDRESSES_MAX),
      target.peer,
    )
    this.#dials[standing]--
    target.dialling = false
    if (this.#stopped) return
    const isTold = target.isSelf || (outcome.kind === 'other-identity' && target.isAnybody)
    this.#take(target, outcome)
    if (!isTold) this.#port.onOutcome(target.id, outcome)
    // The others are next.
    if (this.#targets.get(target.id) === target) {
      this.#targets.delete(target.id)
      this.#targets.set(target.id, target)
    }
    this.#tick()
  }

  #take(target: Target, outcome: DialOutcome): void {
    const hasJoined = outcome.kind === 'connected' && this.#joined.has(outcome.peer)
    target.isSelf = outcome.kind === 'self'
    if (hasJoined) hurry(target)
    else this.#postpone(target)
    if (outcome.kind === 'connected') {
      const { peer, address } = outcome
      target.peer = peer
      // Not where it dials from.
      if (!target.own.includes(address) && !target.told.includes(address)) return
      target.reachedAt = address
      target.own = merge(target.own, [address], address)
      target.told = target.told.filter(other => other !== address)
    } else if (outcome.kind === 'other-identity' && target.isAnybody) target.peer = undefined
    else if (outcome.kind === 'self') target.notBefore = this.#port.clock.now() + DELAY_SELF_MS
  }

  #postpone(target: Target): void {
    target.notBefore = this.#port.clock.now() + target.delayMs * (0.8 + 0.4 * Math.random())
    target.delayMs = Math.min(DELAY_MAX_MS, target.delayMs * 2)
  }
}

function hurry(target: Target): void {
  target.delayMs = DELAY_FIRST_MS
  target.notBefore = 0
}

/** The newer ones first, and as many as there may be; `kept`, if it is among them, stays. */
function merge(newer: readonly string[], older: readonly string[], kept: string | undefined): string[] {
  const all = [...new Set([...newer, ...older])]
  const some = all.slice(0, ADDRESSES_MAX)
  if (kept !== undefined && all.includes(kept) && !some.includes(kept)) some[ADDRESSES_MAX - 1] = kept
  return some
}
