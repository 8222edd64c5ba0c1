/**
 * Who is dialled and when: peers of the command line for ever, discovered ones while they announce themselves.
 * libp2p dials only when told to, and gives up; this does not.
 *
 * Whoever answers at an address that was given without a peer id is expected there from then on, until somebody else
 * answers: a machine that was installed anew has another identity.
 * Both sides of a discovery dial, which would give two connections where one does: the larger peer id waits a moment.
 * An address that is new is tried at once, but only a few are tried at a time: a handshake is work for both sides, and
 * many agents that start together would keep one another so busy that none of them ends in time.
 * Limits: two dials of peers that are new and two of such that did not answer before; 1024 peers, of more the one without a connection that was heard of longest ago is forgotten; 250 ms to 10 s between attempts (jittered); 8 addresses a peer.
 */

import type { PeerId } from '../machines/types.js'

const TARGETS_MAX = 1024
const ADDRESSES_MAX = 8
const DELAY_FIRST_MS = 250
const DELAY_MAX_MS = 10_000
/** How long the side with the larger id leaves the first move to the other. */
const YIELD_MS = 2_000
/** Of those that are new and of those that failed each: who does not answer stands in nobody's way. */
const DIALS_MAX = 2
/** A discovered peer that is neither connected nor announced any more is forgotten after this. */
const FORGET_MS = 60_000
const TICK_MS = 250

export type DialOutcome =
  | { readonly kind: 'connected'; readonly peer: PeerId }
  /** Somebody answers but the handshake fails: as a rule another network key. */
  | { readonly kind: 'no-handshake' }
  /** Somebody with the right key answers who is not the peer that was expected. */
  | { readonly kind: 'other-identity' }
  | { readonly kind: 'failed'; readonly reason: string }
  | { readonly kind: 'self' }

export interface DialerPort {
  readonly self: PeerId
  isConnected(peer: PeerId): boolean
  dial(addresses: readonly string[], peer: PeerId | undefined): Promise<DialOutcome>
  onOutcome(target: string, outcome: DialOutcome): void
  /** A peer that is connected has an address that it did not have before. */
  onMoved(peer: PeerId): void
}

interface Target {
  readonly id: string
  readonly isStatic: boolean
  addresses: readonly string[]
  /** Who is expected there: as given, or whoever has answered last. */
  peer: PeerId | undefined
  /** Nobody was named. */
  readonly isAnybody: boolean
  delayMs: number
  notBefore: number
  heardAt: number
  dialling: boolean
}

export class Dialer {
  readonly #port: DialerPort
  readonly #targets = new Map<string, Target>()
  /** Runs only while somebody is to be dialled. */
  #timer: NodeJS.Timeout | undefined
  #stopped = false

  constructor(port: DialerPort) {
    this.#port = port
  }

  /** A peer of the command line. */
  addStatic(address: string, peer: PeerId | undefined): void {
    this.#add({ id: address, isStatic: true, addresses: [address], peer }, 0)
  }

  /** A peer that discovery, gossip or another agent has found. `alone`: it has not found this one. */
  addDiscovered(peer: PeerId, found: readonly string[], alone = false): void {
    if (peer === this.#port.self || found.length === 0) return
    const known = this.#targets.get(peer)
    const addresses = found.slice(0, ADDRESSES_MAX)
    if (known !== undefined) {
      if (addresses.some(address => !known.addresses.includes(address))) {
        known.notBefore = 0
        known.delayMs = DELAY_FIRST_MS
        if (this.#port.isConnected(peer)) this.#port.onMoved(peer)
      }
      // Each of its interfaces says its own addresses only.
      const others = known.addresses.filter(address => !addresses.includes(address))
      known.addresses = [...addresses, ...others].slice(0, ADDRESSES_MAX)
      known.heardAt = performance.now()
      if (!this.#port.isConnected(peer)) this.#tick()
      return
    }
    const waitMs = alone || this.#port.self < peer ? 0 : YIELD_MS
    this.#add({ id: peer, isStatic: false, addresses, peer }, waitMs)
  }

  /** The connection to `peer` has ended: dial at once, then with growing pauses. */
  lost(peer: PeerId): void {
    for (const target of this.#targets.values()) {
      if (target.peer !== peer) continue
      target.delayMs = DELAY_FIRST_MS
      target.notBefore = 0
      target.heardAt = performance.now()
    }
    this.#tick()
  }

  stop(): void {
    this.#stopped = true
    clearTimeout(this.#timer)
    this.#targets.clear()
  }

  #add(target: Pick<Target, 'id' | 'isStatic' | 'addresses' | 'peer'>, waitMs: number): void {
    if (this.#targets.has(target.id)) return
    if (this.#targets.size >= TARGETS_MAX && !this.#forgetOne()) return
    const now = performance.now()
    const patience = { delayMs: DELAY_FIRST_MS, notBefore: now + waitMs, heardAt: now, dialling: false }
    this.#targets.set(target.id, { ...target, ...patience, isAnybody: target.peer === undefined })
    this.#tick()
  }

  #forgetOne(): boolean {
    let oldest: Target | undefined
    for (const target of this.#targets.values()) {
      const isNeeded = target.isStatic || (target.peer !== undefined && this.#port.isConnected(target.peer))
      if (!isNeeded && target.heardAt < (oldest?.heardAt ?? Number.POSITIVE_INFINITY)) oldest = target
    }
    return oldest !== undefined && this.#targets.delete(oldest.id)
  }

  #tick(): void {
    if (this.#stopped) return
    const now = performance.now()
    let waiting = false
    const dials = { first: 0, again: 0 }
    for (const target of this.#targets.values()) if (target.dialling) dials[kindOf(target)]++
    for (const target of this.#targets.values()) {
      if (target.peer !== undefined && this.#port.isConnected(target.peer)) continue
      waiting = true
      if (target.dialling || now < target.notBefore) continue
      if (!target.isStatic && now - target.heardAt > FORGET_MS) {
        this.#targets.delete(target.id)
        continue
      }
      if (dials[kindOf(target)] >= DIALS_MAX) continue
      dials[kindOf(target)]++
      target.dialling = true
      void this.#dial(target)
    }
    clearTimeout(this.#timer)
    if (waiting) this.#timer = setTimeout(() => this.#tick(), TICK_MS)
  }

  async #dial(target: Target): Promise<void> {
    const outcome = await this.#port.dial(target.addresses, target.peer)
    target.dialling = false
    if (this.#stopped) return
    switch (outcome.kind) {
      case 'connected':
        target.peer = outcome.peer
        target.delayMs = DELAY_FIRST_MS
        target.notBefore = 0
        break
      case 'self':
        this.#targets.delete(target.id)
        break
      case 'other-identity':
        this.#postpone(target)
        if (target.isAnybody) target.peer = undefined
        break
      case 'no-handshake':
      case 'failed':
        this.#postpone(target)
        break
    }
    if (outcome.kind !== 'other-identity' || !target.isAnybody) this.#port.onOutcome(target.id, outcome)
    this.#tick()
  }

  #postpone(target: Target): void {
    target.notBefore = performance.now() + target.delayMs * (0.8 + 0.4 * Math.random())
    target.delayMs = Math.min(DELAY_MAX_MS, target.delayMs * 2)
  }
}

function kindOf(target: Target): 'first' | 'again' {
  return target.delayMs === DELAY_FIRST_MS ? 'first' : 'again'
}
