/**
 * Peers that could lend to one elastic process: who is there, when who refused is asked again, and whom to ask first.
 * Pure; one for each `LeaseHome`.
 *
 * Near ones come first, as every page that comes back costs a round trip: those that are about as far away count as
 * equal, and of these the one with most free pages is first. Those with next to nothing to lend come after all others,
 * however near they are. What a peer holds of the process already does not matter here: it then takes part.
 *
 * Limit: 1024 peers.
 */

import { RETRY } from './choice.js'
import type { PeerId, RefusalCode } from './types.js'

const CANDIDATES_MAX = 1024
const BACKOFF_FIRST_MS = 500
const BACKOFF_MAX_MS = 30_000
/** 16 MiB: with less a lease is full as soon as it begins. */
const ROOM_PAGES = 4096
/** Within it are machines of one place, however busy; from there on a class of distance for each factor of 4. */
const NEAR_MS = 5

/** A peer that has joined and what it has to lend. */
export interface Lender {
  readonly peer: PeerId
  readonly name: string
  readonly incarnation: number
  readonly freePages: number
  /** Undefined until it was measured. */
  readonly rttMs?: number | undefined
}

export interface Candidate extends Lender {
  readonly available: boolean
  readonly notBefore: number
  readonly delayMs: number
}

/** Classes of distance, 0 the nearest. Unknown is near: it is measured as soon as a peer joins. */
export function distanceOf(rttMs: number | undefined): number {
  if (rttMs === undefined || rttMs < NEAR_MS) return 0
  return 1 + Math.floor(Math.log(rttMs / NEAR_MS) / Math.log(4))
}

const LAST = 1_000

function rank({ freePages, rttMs }: Lender): number {
  return freePages < ROOM_PAGES ? LAST : distanceOf(rttMs)
}

export class Candidates {
  readonly #known = new Map<PeerId, Candidate>()

  get(peer: PeerId): Candidate | undefined {
    return this.#known.get(peer)
  }

  /** They are there, with that to lend. One that was restarted may be asked at once. */
  note(lenders: readonly Lender[], now: number): void {
    for (const lender of lenders) {
      const known = this.#known.get(lender.peer)
      if (known === undefined && this.#known.size >= CANDIDATES_MAX) continue
      const restarted = known === undefined || known.incarnation !== lender.incarnation
      const { notBefore, delayMs } = restarted ? { notBefore: now, delayMs: BACKOFF_FIRST_MS } : known
      this.#known.set(lender.peer, { ...lender, available: true, notBefore, delayMs })
    }
  }

  away(peer: PeerId): void {
    this.#change(peer, { available: false })
  }

  forget(peer: PeerId): void {
    this.#known.delete(peer)
  }

  /** It takes part: the next refusal is its first. */
  succeeded(peer: PeerId): void {
    this.#change(peer, { delayMs: BACKOFF_FIRST_MS })
  }

  refused(peer: PeerId, code: RefusalCode, now: number): void {
    const delayMs = this.#known.get(peer)?.delayMs ?? BACKOFF_FIRST_MS
    const notBefore = RETRY[code] === 'backoff' ? now + delayMs : Number.POSITIVE_INFINITY
    this.#change(peer, { notBefore, delayMs: Math.min(BACKOFF_MAX_MS, delayMs * 2) })
  }

  /** Those that may be asked now, best first. */
  able(now: number): Candidate[] {
    return [...this.#known.values()]
      .filter(({ available, notBefore }) => available && notBefore <= now)
      .sort((a, b) => rank(a) - rank(b) || b.freePages - a.freePages || (a.peer < b.peer ? -1 : 1))
  }

  #change(peer: PeerId, change: Partial<Candidate>): void {
    const known = this.#known.get(peer)
    if (known !== undefined) this.#known.set(peer, { ...known, ...change })
  }
}
