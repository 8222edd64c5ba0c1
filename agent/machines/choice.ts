/**
 * Which machines a process may ask for a lease by itself: every one but those that were contracted; once all were, only
 * those that `stretch` has named; until `stretch --auto` makes it every one again. One that was of no use rests until room is wanted, unless `stretch` has named it. And
 * whether one that refused may be asked again. Pure.
 *
 * Limit: 256 machines that are named apart; the one that was named first gives way.
 */

import type { PeerId, RefusalCode } from './types.js'

/** As many as fit into a record of executor/records.ts with its participants. */
export const EXCEPTIONS_MAX = 256

/** When a peer that refused for this reason may be asked again. */
export const RETRY: Record<RefusalCode, 'backoff' | 'restarted'> = {
  full: 'backoff',
  incompatible: 'restarted',
  'not-allowed': 'restarted',
  'shutting-down': 'restarted',
  'stale-epoch': 'restarted',
  'too-many-processes': 'backoff',
  'already-participant': 'backoff',
  'lane-failed': 'backoff',
  'pager-failed': 'backoff',
  timeout: 'backoff',
}

/** What has to be remembered of it over a restart of the agent. */
export interface Choices {
  /** Machines are asked unless they are among the exceptions; else only these are. */
  readonly asksAll: boolean
  readonly exceptions: readonly PeerId[]
}

export class Choice {
  #asksAll: boolean
  readonly #exceptions: Set<PeerId>
  /** At most as many as were ever participants at once. */
  readonly #resting = new Set<PeerId>()
  readonly #stretched = new Set<PeerId>()

  constructor(choices: Choices = { asksAll: true, exceptions: [] }) {
    this.#asksAll = choices.asksAll
    this.#exceptions = new Set(choices.exceptions)
  }

  get choices(): Choices {
    return { asksAll: this.#asksAll, exceptions: [...this.#exceptions] }
  }

  allows(peer: PeerId): boolean {
    return this.#exceptions.has(peer) !== this.#asksAll && !this.#resting.has(peer)
  }

  allow(peer: PeerId): void {
    this.#name(peer, !this.#asksAll)
    this.#resting.delete(peer)
    this.#stretched.add(peer)
  }

  /** `peer` is not asked until room is wanted; without it, room is wanted. */
  rest(peer: PeerId | undefined): void {
    if (peer === undefined) this.#resting.clear()
    else if (!this.#stretched.has(peer)) this.#resting.add(peer)
  }

  /** Without `peer`: nobody is asked until it is allowed by name. */
  forbid(peer: PeerId | undefined): void {
    if (peer !== undefined) {
      this.#stretched.delete(peer)
      this.#name(peer, this.#asksAll)
      return
    }
    this.#stretched.clear()
    this.#asksAll = false
    this.#exceptions.clear()
  }

  /** As at the start: everybody may be asked, and rest when of no use. */
  automatic(): void {
    this.#asksAll = true
    this.#exceptions.clear()
    this.#resting.clear()
    this.#stretched.clear()
  }

  #name(peer: PeerId, isException: boolean): void {
    this.#exceptions.delete(peer)
    if (!isException) return
    const [oldest] = this.#exceptions
    if (oldest !== undefined && this.#exceptions.size >= EXCEPTIONS_MAX) this.#exceptions.delete(oldest)
    this.#exceptions.add(peer)
  }
}
