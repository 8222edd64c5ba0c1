/**
 * What happens in a simulation, as one hash and, if wanted, as a list for pictures. All that happens is noted in the
 * hash; two runs of one seed with different hashes are a bug.
 *
 * Limit: the list keeps the first `eventsMax` events and counts the rest.
 */

import { Hash } from './hash.js'

/** `detail` is for people; `node` and `other` are node numbers, -1 where there is none. */
export interface TraceEvent {
  readonly atMs: number
  readonly what: string
  readonly node: number
  readonly other: number
  readonly detail: string
}

const EVENTS_MAX = 100_000

export class Trace {
  readonly #hash = new Hash()
  readonly #events: TraceEvent[] | undefined
  readonly #eventsMax: number
  /** Numbers of names, so that a name costs one word each time. */
  readonly #names = new Map<string, number>()
  #left = 0
  #count = 0

  /** @param record whether to keep a list */
  constructor({ record = false, eventsMax = EVENTS_MAX } = {}) {
    this.#events = record ? [] : undefined
    this.#eventsMax = eventsMax
  }

  /** Notes something rare or worth a picture. */
  note(atMs: number, what: string, node = -1, other = -1, detail = ''): void {
    this.count(atMs, what, node, other, detail.length)
    if (detail !== '') this.#hash.text(detail)
    if (this.#events === undefined) return
    if (this.#events.length < this.#eventsMax) this.#events.push({ atMs, what, node, other, detail })
    else this.#left++
  }

  /** Notes something that happens all the time, in the hash only. */
  count(atMs: number, what: string, node: number, other: number, value: number): void {
    this.#count++
    const hash = this.#hash
    hash.number(this.#name(what))
    hash.number(atMs)
    hash.number(node)
    hash.number(other)
    hash.number(value)
  }

  /** Adds bytes to what was noted last. */
  bytes(value: Uint8Array): void {
    this.#hash.bytes(value)
  }

  /** How much was noted. */
  get size(): number {
    return this.#count
  }

  /** 16 hex digits. */
  get hash(): string {
    return this.#hash.digest()
  }

  get events(): readonly TraceEvent[] {
    return this.#events ?? []
  }

  /** Events that were not kept. */
  get left(): number {
    return this.#left
  }

  #name(what: string): number {
    const known = this.#names.get(what)
    if (known !== undefined) return known
    const number = this.#names.size
    this.#names.set(what, number)
    this.#hash.text(what)
    return number
  }
}
