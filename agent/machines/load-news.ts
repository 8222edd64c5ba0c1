/**
 * When an agent tells its load: when it has changed, else when it has promised to at the latest, so that its silence
 * means something. That the promise itself would be another one now (it grows with the number of members) is no news:
 * else everybody would speak whenever somebody joins. Pure.
 */

import type { Load } from './membership.js'

export class LoadNews {
  #told = ''
  #dueAt = Number.NEGATIVE_INFINITY

  /** Whether to tell `load` now; if so it counts as told. `early` in (0, 1]: the share of the promised time to wait. */
  isDue(load: Load, now: number, early: number): boolean {
    const text = JSON.stringify({ ...load, sequence: 0, nextMs: 0 })
    if (text === this.#told && now <= this.#dueAt) return false
    this.#told = text
    this.#dueAt = now + load.nextMs * early
    return true
  }
}
