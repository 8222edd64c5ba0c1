/**
 * The port to chance: what jitter, choices and ids are drawn from. The machine's own is `systemRng`; the one that draws
 * the same again from the same seed is sim-net/rng.ts. What must stay secret is drawn by `Secrets`, never by this.
 */

import { randomBytes, randomInt } from 'node:crypto'

export abstract class Rng {
  /** A number in [0, 1). */
  abstract next(): number

  /** A whole number in [0, limit); `limit` from 1 to 2^47. */
  abstract below(limit: number): number

  /** A number in [least, most). */
  between(least: number, most: number): number {
    return least + (most - least) * this.next()
  }

  /** Whether something happens that has this probability. Nothing is drawn for 0. */
  chance(probability: number): boolean {
    return probability > 0 && this.next() < probability
  }

  /** One of `choices`, of which there is at least one. */
  pick<T>(choices: readonly T[]): T {
    if (choices.length === 0) throw new RangeError('nothing to pick from')
    return choices[this.below(choices.length)] as T
  }
}

class SystemRng extends Rng {
  next(): number {
    return Math.random()
  }

  /** Also names leases and lanes, which others should not guess. */
  below(limit: number): number {
    return randomInt(limit)
  }
}

export const systemRng: Rng = new SystemRng()

/** As many bytes that nobody can guess. */
export type Secrets = (bytes: number) => Uint8Array<ArrayBuffer>

export const systemSecrets: Secrets = bytes => Uint8Array.from(randomBytes(bytes))
