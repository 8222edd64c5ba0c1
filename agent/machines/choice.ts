/**
 * Which machines a process may ask for a lease by itself: every one but those that were contracted; once all were, only
 * those that `stretch` has named. And whether one that refused may be asked again. Pure.
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

  constructor(choices: Choices = { asksAll: true, exceptions: [] }) {
    this.#asksAll = choices.asksAll
    this.#exceptions = new Set(choices.exceptions)
  }

  get choices(): Choices {
    return { asksAll: this.#asksAll, exceptions: [...this.#exceptions] }
  }

  allows(peer: PeerId): boolean {
    return this.#exceptions.has(peer) !== this.#asksAll
  }

  allow(peer: PeerId): void {
    this.#name(peer, !this.#asksAll)
  }

  /** Without `peer`: nobody is asked until it is allowed by name. */
  forbid(peer: PeerId | undefined): void {
    if (peer !== undefined) {
      this.#name(peer, this.#asksAll)
      return
    }
    this.#asksAll = false
    this.#exceptions.clear()
  }

  #name(peer: PeerId, isException: boolean): void {
    this.#exceptions.delete(peer)
    if (!isException) return
    const [oldest] = this.#exceptions
    if (oldest !== undefined && this.#exceptions.size >= EXCEPTIONS_MAX) this.#exceptions.delete(oldest)
    this.#exceptions.add(peer)
  }
}
