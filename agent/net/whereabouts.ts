/**
 * Whether a peer is still where its connection goes. One whose address is no more shows in nothing coming back over the
 * connection, which the kernel notices after a quarter of an hour.
 *
 * Only silence ends a connection: a question that fails in another way, as when there are too many, was answered.
 *
 * Limits: each peer is asked at most every ten seconds, since anybody on the LAN can say again where it once was.
 */

import type { PeerId } from '../machines/types.js'
import type { Clock, Timer } from '../ports/clock.js'

const PAUSE_MS = 10_000

export interface WhereaboutsPort {
  readonly clock: Clock
  /** Asks; soon, and in less than ten seconds, whether anything came back. */
  isSilent(peer: PeerId): Promise<boolean>
  onSilent(peer: PeerId): void
}

interface Check {
  again: boolean
  readonly timer: Timer
}

export class Whereabouts {
  readonly #port: WhereaboutsPort
  /** Of the last ten seconds. */
  readonly #checks = new Map<PeerId, Check>()

  constructor(port: WhereaboutsPort) {
    this.#port = port
  }

  /** `peer` may be elsewhere. */
  doubt(peer: PeerId): void {
    const check = this.#checks.get(peer)
    if (check === undefined) this.#check(peer)
    else check.again = true
  }

  stop(): void {
    for (const { timer } of this.#checks.values()) timer.cancel()
    this.#checks.clear()
  }

  #check(peer: PeerId): void {
    const { clock } = this.#port
    const timer = clock.at(clock.now() + PAUSE_MS, () => {
      this.#checks.delete(peer)
      if (check.again) this.#check(peer)
    })
    const check: Check = { again: false, timer }
    this.#checks.set(peer, check)
    void this.#port.isSilent(peer).then(silent => {
      if (silent) this.#port.onSilent(peer)
    })
  }
}
