/**
 * A hash that grows with what happens: the same numbers and texts in the same order give the same 64 bits on every
 * machine and version of Node.js. 32-bit integer arithmetic only; two lanes, mixed as in MurmurHash3 (Appleby, public
 * domain). Finds differences between runs; it is no defence against anybody.
 */

const FLOAT = new Float64Array(1)
const WORDS = new Uint32Array(FLOAT.buffer)

export class Hash {
  #one = 0x9747b28c
  #two = 0x3c6ef372

  /** Any number. */
  number(value: number): void {
    if ((value | 0) === value) {
      this.#word(value | 0)
      return
    }
    FLOAT[0] = value
    this.#word(WORDS[0] as number)
    this.#word(WORDS[1] as number)
  }

  /** UTF-16 units and their count. */
  text(value: string): void {
    for (let i = 0; i < value.length; i++) this.#word(value.charCodeAt(i))
    this.#word(value.length)
  }

  bytes(value: Uint8Array): void {
    for (let i = 0; i < value.length; i++) this.#word(value[i] as number)
    this.#word(value.length)
  }

  /** 32 bits of it. */
  get low(): number {
    return finish(this.#one ^ (this.#two >>> 7))
  }

  /** All of it: 16 hex digits. */
  digest(): string {
    return hex(finish(this.#one)) + hex(finish(this.#two))
  }

  #word(word: number): void {
    let mixed = Math.imul(word, 0xcc9e2d51)
    mixed = Math.imul((mixed << 15) | (mixed >>> 17), 0x1b873593)
    const one = this.#one ^ mixed
    this.#one = (Math.imul((one << 13) | (one >>> 19), 5) + 0xe6546b64) | 0
    const two = (this.#two + word) ^ (mixed >>> 3)
    this.#two = (Math.imul((two << 11) | (two >>> 21), 0x85ebca6b) + 0x165667b1) | 0
  }
}

function finish(word: number): number {
  let mixed = Math.imul(word ^ (word >>> 16), 0x85ebca6b)
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35)
  return (mixed ^ (mixed >>> 16)) >>> 0
}

function hex(word: number): string {
  return word.toString(16).padStart(8, '0')
}
