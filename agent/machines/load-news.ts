/**
 * When an agent tells its load: when it has changed, else when it has promised to at the latest, so that its silence
 * means something. That the promise itself would be another one now (it grows with the number of members) is no news:
 * else everybody would speak whenever somebody joins. Pure.
 */

import type { Load } from './membership.js'

export class LoadNews {
  #told: Load | undefined
  #dueAt = Number.NEGATIVE_INFINITY

  /** Whether to tell `load` now; if so it counts as told. `early` in (0, 1]: the share of the promised time to wait. */
  isDue(load: Load, now: number, early: number): boolean {
    if (this.#told !== undefined && now <= this.#dueAt && saysTheSame(load, this.#told)) return false
    this.#told = load
    this.#dueAt = now + load.nextMs * early
    return true
  }
}

function saysTheSame(load: Load, told: Load): boolean {
  for (const key of Object.keys(load) as (keyof Load)[])
    if (key !== 'sequence' && key !== 'nextMs' && !isSame(load[key], told[key])) return false
  return true
}

function isSame(one: Load[keyof Load], other: Load[keyof Load]): boolean {
  return one === other || (typeof one === 'object' && JSON.stringify(one) === JSON.stringify(other))
}
