/** Spoils good inputs: the mutations by which inputs stay near what a decoder accepts. Pure; `random` draws. */

/** A number from 0 to below `bound`. */
export type Draw = (bound: number) => number

/** xorshift32: a fuzz run draws some hundred million numbers. */
export function drawFrom(seed: number): Draw {
  let state = (seed | 0) === 0 ? 1 : seed | 0
  return bound => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % bound
  }
}

/** Bytes at which decoders turn: ends of ranges, CBOR heads, JSON and TOML syntax, line ends. */
const TELLING = [
  0, 1, 0x0a, 0x0d, 0x18, 0x1b, 0x20, 0x22, 0x27, 0x2c, 0x2d, 0x2e, 0x30, 0x39, 0x3a, 0x3d, 0x40, 0x5b, 0x5c,
  0x5d, 0x5f, 0x60, 0x7b, 0x7d, 0x7f, 0x80, 0x9f, 0xa0, 0xbf, 0xc2, 0xe2, 0xf4, 0xf7, 0xfb, 0xff,
]

const MUTATIONS_MAX = 4

type Mutation = (bytes: number[], at: number, other: Uint8Array, random: Draw) => void

const MUTATIONS: readonly Mutation[] = [
  (bytes, at, _, random) => {
    bytes[at] = (bytes[at] ?? 0) ^ (1 << random(8))
  },
  (bytes, at, _, random) => {
    bytes[at] = TELLING[random(TELLING.length)] ?? 0
  },
  (bytes, at, _, random) => {
    bytes[at] = random(256)
  },
  (bytes, at, _, random) => {
    bytes.splice(at, 0, TELLING[random(TELLING.length)] ?? 0)
  },
  (bytes, at, _, random) => {
    bytes.splice(at, 1 + random(4))
  },
  (bytes, at, _, random) => {
    bytes.splice(at, 0, ...bytes.slice(at, at + 1 + random(16)))
  },
  (bytes, at) => {
    bytes.length = at
  },
  (bytes, at, other, random) => {
    const from = random(other.length + 1)
    bytes.splice(at, random(8), ...other.subarray(from, from + random(24)))
  },
]

/** A spoilt copy of `sample`; `other` lends it pieces. Now and then it is unharmed. */
export function spoil(sample: Uint8Array, other: Uint8Array, random: Draw): Uint8Array {
  const bytes = [...sample]
  for (let left = random(MUTATIONS_MAX + 1); left > 0; left--) {
    const mutation = MUTATIONS[random(MUTATIONS.length)]
    mutation?.(bytes, random(bytes.length + 1), other, random)
  }
  return Uint8Array.from(bytes)
}
