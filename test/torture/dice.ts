/** What the torture draws at random. */

import { uniformInt } from 'pure-rand/distribution/uniformInt'
import { xoroshiro128plus } from 'pure-rand/generator/xoroshiro128plus'

/** Odd, with bits everywhere: seeds that are close to each other would draw alike at first. */
const SPREAD = 0x9e3779b1

/** Draws the same numbers for the same seed. */
export class Dice {
  readonly #generator

  constructor(seed: number) {
    this.#generator = xoroshiro128plus(Math.imul(seed, SPREAD))
  }

  /** A whole number from `least` to `most`. */
  number(least: number, most: number): number {
    return uniformInt(this.#generator, least, most)
  }

  of<T>(choices: readonly T[]): T {
    return choices[this.number(0, choices.length - 1)] as T
  }
}
