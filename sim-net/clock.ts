/**
 * Time that passes only when it is told to, and what is to happen in it. What is due at one time happens in the order
 * it was asked for, so a run is the same every time.
 *
 * A calendar of slots of 1/8 ms, eight seconds long, unsorted; the slot that is reached is poured into a small heap,
 * which sorts it. What is further away waits in a list that is looked through when the calendar is used up.
 * An event is a row of a few arrays rather than an object: millions of objects that live for a second each are what a
 * garbage collector is worst at.
 */

import type { Clock, Timer } from '../agent/ports/clock.js'

const SLOTS_PER_MS = 8
const SLOTS = 2 ** 16
const SLOT_MASK = SLOTS - 1
const CHILDREN = 4
const ROWS_FIRST = 1024
/** 2026-01-01: an origin that nobody can mistake for that of `now`. */
const WALL_ORIGIN_MS = 1_767_225_600_000

/** Where a row is when it is not in the heap. */
const WAITING = -1
const FREE = -2
/** The end of a chain of rows. */
const NONE = -1

/** What may be due: an object with a method costs nothing to set again, and a function is at hand. */
export interface Due {
  due(): void
}

type Act = Due | (() => void)

const NOTHING = () => {}

class RowTimer implements Timer {
  constructor(
    readonly clock: VirtualClock,
    readonly row: number,
    readonly order: number,
  ) {}

  cancel(): void {
    this.clock.cancel(this.row, this.order)
  }
}

export class VirtualClock implements Clock {
  #times = new Float64Array(ROWS_FIRST)
  /** How much was asked for before it: tells those of one time apart, and a row's present use from earlier ones. */
  #orders = new Float64Array(ROWS_FIRST)
  #places = new Int32Array(ROWS_FIRST).fill(FREE)
  #next = new Int32Array(ROWS_FIRST)
  readonly #acts: Act[] = []
  #freeRow = NONE
  readonly #heap: number[] = []
  /** Slot numbers up to this one are in the heap. */
  #slot = 0
  /** Those up to here, exclusive, are in the calendar, each at its number modulo its length: a chain of rows. */
  #horizon = SLOTS
  readonly #calendar = new Int32Array(SLOTS).fill(NONE)
  #inCalendar = 0
  #far: number[] = []
  #pending = 0
  #now = 0
  #order = 0

  now(): number {
    return this.#now
  }

  wall(): number {
    return WALL_ORIGIN_MS + Math.floor(this.#now)
  }

  /** How much is to happen. */
  get pending(): number {
    return this.#pending
  }

  /** How much was asked for since the beginning. */
  get total(): number {
    return this.#order
  }

  at(time: number, act: Act): Timer {
    const order = this.#order
    return new RowTimer(this, this.#add(time, act), order)
  }

  /** As `at`, of what is never cancelled. */
  soon(time: number, act: Act): void {
    this.#add(time, act)
  }

  /** Lets the next thing happen; false when there is none. */
  step(): boolean {
    return this.#step(Number.POSITIVE_INFINITY)
  }

  /** Lets all happen that is due until `time`, which it is then. */
  runUntil(time: number): void {
    while (this.#step(time));
    this.#now = Math.max(this.#now, time)
  }

  runFor(ms: number): void {
    this.runUntil(this.#now + ms)
  }

  /** Lets things happen while `isWaiting`, at most `ms` long; whether that came to an end. */
  runWhile(isWaiting: () => boolean, ms: number): boolean {
    const end = this.#now + ms
    while (isWaiting()) {
      if (this.#step(end)) continue
      this.#now = end
      return !isWaiting()
    }
    return true
  }

  #step(end: number): boolean {
    while (this.#heap.length === 0) if (!this.#advance(slotOf(end))) return false
    const row = this.#heap[0] as number
    const time = this.#times[row] as number
    if (time > end) return false
    const act = this.#acts[row] as Act
    this.#remove(0)
    this.#freeOne(row)
    this.#pending--
    this.#now = time
    if (typeof act === 'function') act()
    else act.due()
    return true
  }

  /** For `RowTimer`: cancels what was asked for in this order, if it is still to happen. */
  cancel(row: number, order: number): void {
    const place = this.#places[row] as number
    if (place === FREE || this.#orders[row] !== order || this.#acts[row] === NOTHING) return
    this.#pending--
    if (place === WAITING) {
      this.#acts[row] = NOTHING
      return
    }
    this.#remove(place)
    this.#freeOne(row)
  }

  #add(time: number, act: Act): number {
    if (!Number.isFinite(time)) throw new RangeError('a timer without a time')
    const due = Math.max(time, this.#now)
    const row = this.#takeRow()
    this.#times[row] = due
    this.#orders[row] = this.#order++
    this.#acts[row] = act
    this.#pending++
    const slot = slotOf(due)
    if (slot <= this.#slot) this.#rise(this.#heap.length, row)
    else this.#wait(slot, row)
    return row
  }

  /** On to the next slot with something in it, not beyond `last`. */
  #advance(last: number): boolean {
    if (this.#pending === 0) return false
    while (this.#slot < last) {
      if (this.#inCalendar === 0) this.#slot = Math.min(last, this.#horizon - 1)
      if (this.#slot >= last) return false
      this.#slot++
      if (this.#slot === this.#horizon) this.#refill()
      const chain = this.#calendar[this.#slot & SLOT_MASK] as number
      if (chain === NONE) continue
      this.#calendar[this.#slot & SLOT_MASK] = NONE
      this.#pour(chain)
      return true
    }
    return false
  }

  #pour(chain: number): void {
    for (let row = chain; row !== NONE; ) {
      const next = this.#next[row] as number
      this.#inCalendar--
      if (this.#acts[row] === NOTHING) this.#freeOne(row)
      else this.#rise(this.#heap.length, row)
      row = next
    }
  }

  #refill(): void {
    this.#horizon += SLOTS
    const far = this.#far
    this.#far = []
    for (const row of far) {
      if (this.#acts[row] === NOTHING) this.#freeOne(row)
      else this.#wait(slotOf(this.#times[row] as number), row)
    }
  }

  #wait(slot: number, row: number): void {
    this.#places[row] = WAITING
    if (slot >= this.#horizon) {
      this.#far.push(row)
      return
    }
    this.#inCalendar++
    this.#next[row] = this.#calendar[slot & SLOT_MASK] as number
    this.#calendar[slot & SLOT_MASK] = row
  }

  #takeRow(): number {
    const row = this.#freeRow
    if (row !== NONE) {
      this.#freeRow = this.#next[row] as number
      return row
    }
    const rows = this.#acts.length
    this.#acts.push(NOTHING)
    if (rows === this.#times.length) this.#grow(2 * rows)
    return rows
  }

  #freeOne(row: number): void {
    this.#acts[row] = NOTHING
    this.#places[row] = FREE
    this.#next[row] = this.#freeRow
    this.#freeRow = row
  }

  #grow(rows: number): void {
    const [times, orders] = [new Float64Array(rows), new Float64Array(rows)]
    const [places, next] = [new Int32Array(rows).fill(FREE), new Int32Array(rows)]
    times.set(this.#times)
    orders.set(this.#orders)
    places.set(this.#places)
    next.set(this.#next)
    this.#times = times
    this.#orders = orders
    this.#places = places
    this.#next = next
  }

  #remove(at: number): void {
    const heap = this.#heap
    const last = heap.pop()
    if (last === undefined || at === heap.length) return
    if (at > 0 && this.#isBefore(last, heap[(at - 1) >> 2] as number)) this.#rise(at, last)
    else this.#sink(at, last)
  }

  #rise(from: number, row: number): void {
    const heap = this.#heap
    let at = from
    while (at > 0) {
      const parent = heap[(at - 1) >> 2] as number
      if (!this.#isBefore(row, parent)) break
      heap[at] = parent
      this.#places[parent] = at
      at = (at - 1) >> 2
    }
    heap[at] = row
    this.#places[row] = at
  }

  #sink(from: number, row: number): void {
    const heap = this.#heap
    const size = heap.length
    let at = from
    for (;;) {
      const first = at * CHILDREN + 1
      if (first >= size) break
      let child = first
      const end = Math.min(first + CHILDREN, size)
      for (let i = first + 1; i < end; i++) {
        if (this.#isBefore(heap[i] as number, heap[child] as number)) child = i
      }
      const least = heap[child] as number
      if (this.#isBefore(row, least)) break
      heap[at] = least
      this.#places[least] = at
      at = child
    }
    heap[at] = row
    this.#places[row] = at
  }

  #isBefore(one: number, other: number): boolean {
    const difference = (this.#times[one] as number) - (this.#times[other] as number)
    if (difference !== 0) return difference < 0
    return (this.#orders[one] as number) < (this.#orders[other] as number)
  }
}

function slotOf(time: number): number {
  return Math.floor(time * SLOTS_PER_MS)
}
