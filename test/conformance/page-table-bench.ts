/**
 * One page table, the process that runs on it, and the words that the conformance tests are written in.
 */

import type { ExecutionContext } from 'ava'

import type { GuestAction, GuestResult, PageTableUnderTest } from '../../kmod/guest-port.js'
import type { Done, Fault, Outcome, PageRange, PageTable } from '../../kmod/port.js'
import { type PageNumber, pageNumber, type ThreadId } from '../../placement/ids.js'
import { millis, PAGE_BYTES, pages } from '../../placement/units.js'

/** Where tests map: 32 TB, far from everything a small program has. */
const BASE = 2 ** 45 / PAGE_BYTES
/** Longest that anything may take. */
const SOON = millis(5000)
/** Long enough to say that nothing comes. */
export const A_WHILE = millis(50)
export const NOW = millis(0)

/** One table, one process, and the words tests are written in. */
export class Bench {
  readonly table: PageTable
  readonly threads: readonly ThreadId[]
  readonly #under: PageTableUnderTest
  readonly #t: ExecutionContext

  constructor(t: ExecutionContext, under: PageTableUnderTest) {
    this.#t = t
    this.#under = under
    this.table = under.table
    this.threads = under.guest.threads
  }

  /** Page `i` of the test's area, and so on for ranges. */
  page(i: number): PageNumber {
    return pageNumber(BASE + i)
  }

  range(i: number, count = 1): PageRange {
    return { first: this.page(i), count: pages(count) }
  }

  thread(i: number): ThreadId {
    const id = this.threads[i]
    if (id === undefined) throw new Error(`the guest has no thread ${i}`)
    return id
  }

  async done(outcome: Done | Promise<Done>): Promise<void> {
    this.#t.deepEqual(await outcome, { kind: 'ok', value: undefined })
  }

  async value<T>(outcome: Outcome<T> | Promise<Outcome<T>>): Promise<T> {
    const known = await outcome
    if (known.kind === 'refused') throw new Error(`refused: ${known.reason}`)
    return known.value
  }

  async refused(outcome: Outcome<unknown> | Promise<Outcome<unknown>>, reason: string): Promise<void> {
    const known = await outcome
    this.#t.is(known.kind === 'refused' ? known.reason : 'ok', reason)
  }

  async start(i: number, action: GuestAction): Promise<void> {
    await this.#under.guest.start(this.thread(i), action)
  }

  async result(i: number, waitMs = SOON): Promise<GuestResult> {
    return await this.#under.guest.result(this.thread(i), waitMs)
  }

  async finished(i: number, value = 0): Promise<void> {
    this.#t.deepEqual(await this.result(i), { kind: 'done', value })
  }

  async fault(): Promise<Fault> {
    const fault = await this.table.nextFault(SOON)
    if (fault === undefined) throw new Error('no fault came')
    return fault
  }

  async noFault(): Promise<void> {
    this.#t.is(await this.table.nextFault(A_WHILE), undefined)
  }

  /** Pages `i`… of the area from their numbers. */
  indices(found: readonly PageNumber[]): number[] {
    return found.map(page => page - BASE)
  }

  /** Maps and fills pages, each with its index as first byte. */
  async filled(count: number, writeProtected = false): Promise<void> {
    await this.done(this.table.map(this.range(0, count), 'read-write'))
    const contents = new Uint8Array(count * PAGE_BYTES)
    for (let i = 0; i < count; i++) contents[i * PAGE_BYTES] = i
    await this.done(this.table.place(this.range(0, count), contents, writeProtected))
  }
}
