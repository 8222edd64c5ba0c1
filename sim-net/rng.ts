/**
 * Chance that repeats: the same seed draws the same numbers, on every machine and version of Node.js.
 *
 * Each consumer draws from a fork of its own, named by a label: forks depend on seed and label alone, not on what has
 * been drawn so far, so that one consumer more, or one draw more, changes nothing for the others.
 * The generator is xoroshiro128+ (Blackman and Vigna, https://prng.di.unimi.it), of pure-rand.
 */

import { xoroshiro128plusFromState } from 'pure-rand/generator/xoroshiro128plus'
import { Rng } from '../agent/ports/rng.js'
import { Hash } from './hash.js'

const UINT32 = 2 ** 32

export class SeededRng extends Rng {
  readonly #label: string
  readonly #generator

  /** @param seed any number; @param label of a fork, see `fork` */
  constructor(
    readonly seed: number,
    label = '',
  ) {
    super()
    this.#label = label
    const hash = new Hash()
    hash.number(seed)
    hash.text(label)
    const state: number[] = []
    for (let word = 0; word < 4; word++) {
      hash.number(word)
      state.push(hash.low | 0)
    }
    this.#generator = xoroshiro128plusFromState(state)
  }

  /** The chance of `label`: always the same one, and another for each label. */
  fork(label: string): SeededRng {
    return new SeededRng(this.seed, `${this.#label}/${label}`)
  }

  override next(): number {
    return (this.#generator.next() >>> 0) / UINT32
  }

  /** By multiplication: what is off from uniform is below limit / 2^32, and below 2^-6 for the largest limits. */
  override below(limit: number): number {
    const high = this.#generator.next() >>> 0
    if (limit <= UINT32) return Math.floor((high / UINT32) * limit)
    const low = this.#generator.next() >>> 11
    return Math.floor(((high * 2 ** 21 + low) / 2 ** 53) * limit)
  }
}
