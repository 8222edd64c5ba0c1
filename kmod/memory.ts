/**
 * The reference page table: the executable specification of port.ts in plain memory, with simulated guest threads.
 * The simulator runs on it, and whoever wonders what an operation means reads it here.
 *
 * An eviction lets the threads run before and between its three phases (protect, copy, drop), because that is where a
 * real one could lose a write. Any call can be made to fail: `refuse` is asked before each.
 * Limits: as deterministic as its caller; a scan walks every resident page.
 */

import { invariant, PAGE_NUMBER_MAX, type PageNumber, type ThreadId, threadId } from '../placement/ids.js'
import { type Millis, PAGE_BYTES } from '../placement/units.js'
import type { Guest, GuestAction, GuestResult } from './guest-port.js'
import { SimulatedThread, type Touch } from './memory-guest.js'
import type {
  Access,
  Context,
  Done,
  Fault,
  Outcome,
  PageRange,
  PageState,
  PageTable,
  Refusal,
  Statistics,
} from './port.js'

/** The operations that can be made to fail. */
export type Operation =
  | 'map'
  | 'unmap'
  | 'protect'
  | 'place'
  | 'allowWrite'
  | 'evict'
  | 'scanAccessed'
  | 'scanWritten'
  | 'park'
  | 'resume'

export interface MemoryOptions {
  /** Guest threads; 2 unless given. */
  readonly threads?: number
  /** Asked before every operation; a reason makes that call fail with it, unchanged. */
  readonly refuse?: (operation: Operation) => Refusal | undefined
}

interface Page {
  access: Access
  state: 'untouched' | 'resident' | 'away'
  /** Only while resident. */
  bytes: DataView | undefined
  writeProtected: boolean
  accessed: boolean
}

/** Micro-steps that each thread runs between two phases of an eviction. */
const STEPS_BETWEEN_PHASES = 3
const OK: Done = { kind: 'ok', value: undefined }

export class MemoryPageTable implements PageTable, Guest {
  readonly threads: readonly ThreadId[]
  readonly #simulated: readonly SimulatedThread[]
  readonly #pages = new Map<PageNumber, Page>()
  /** Pages whose fault `nextFault` has given out and nobody has answered. */
  readonly #announced = new Set<PageNumber>()
  readonly #refuse: (operation: Operation) => Refusal | undefined
  #faults = 0
  #pagesPlaced = 0
  #pagesEvicted = 0

  constructor(options: MemoryOptions = {}) {
    this.#refuse = options.refuse ?? (() => undefined)
    this.#simulated = Array.from({ length: options.threads ?? 2 }, (_, i) => new SimulatedThread(threadId(i)))
    this.threads = this.#simulated.map(thread => thread.id)
  }

  map(range: PageRange, access: Access): Done {
    const reason = this.#check('map', range, page => (page === undefined ? undefined : 'already-mapped'))
    if (reason !== undefined) return refused(reason)
    for (const number of numbersOf(range)) {
      this.#pages.set(number, {
        access,
        state: 'untouched',
        bytes: undefined,
        writeProtected: false,
        accessed: false,
      })
    }
    return OK
  }

  unmap(range: PageRange): Done {
    const reason = this.#check('unmap', range)
    if (reason !== undefined) return refused(reason)
    for (const number of numbersOf(range)) this.#pages.delete(number)
    this.#wake(range)
    return OK
  }

  protect(range: PageRange, access: Access): Done {
    const reason = this.#check('protect', range, mapped)
    if (reason !== undefined) return refused(reason)
    for (const page of this.#range(range)) page.access = access
    return OK
  }

  state(number: PageNumber): PageState {
    return this.#pages.get(number)?.state ?? 'unmapped'
  }

  nextFault(_waitMs: Millis): Fault | undefined {
    this.#runAll()
    for (const thread of this.#simulated) {
      const { wanted } = thread
      if (wanted === undefined || this.#announced.has(wanted.page)) continue
      const page = this.#pages.get(wanted.page)
      invariant(page !== undefined, 'a thread waits only for what is mapped')
      this.#announced.add(wanted.page)
      this.#faults++
      const cause = page.state === 'resident' ? 'protected' : page.state
      return { ...wanted, thread: thread.id, userMode: thread.userMode, cause }
    }
    return undefined
  }

  place(range: PageRange, contents: Uint8Array | 'zero', writeProtected: boolean): Done {
    const reason = this.#check(
      'place',
      range,
      page => mapped(page) ?? (isResident(page) ? 'already-resident' : undefined),
    )
    if (reason !== undefined) return refused(reason)
    if (contents !== 'zero' && contents.length !== range.count * PAGE_BYTES) return refused('bad-range')
    let at = 0
    for (const page of this.#range(range)) {
      const bytes = new Uint8Array(PAGE_BYTES)
      if (contents !== 'zero') bytes.set(contents.subarray(at, at + PAGE_BYTES))
      Object.assign(page, {
        state: 'resident',
        bytes: new DataView(bytes.buffer),
        writeProtected,
        accessed: true,
      })
      at += PAGE_BYTES
    }
    this.#pagesPlaced += range.count
    this.#wake(range)
    return OK
  }

  allowWrite(range: PageRange): Done {
    const reason = this.#check('allowWrite', range, resident)
    if (reason !== undefined) return refused(reason)
    for (const page of this.#range(range)) page.writeProtected = false
    this.#wake(range)
    return OK
  }

  evict(range: PageRange): Outcome<Uint8Array> {
    const reason = this.#check('evict', range, resident)
    if (reason !== undefined) return refused(reason)
    const pages = [...this.#range(range)]
    this.#runSome()
    for (const page of pages) page.writeProtected = true
    this.#runSome()
    const contents = new Uint8Array(range.count * PAGE_BYTES)
    pages.forEach((page, i) => {
      contents.set(new Uint8Array(page.bytes?.buffer ?? new ArrayBuffer(0)), i * PAGE_BYTES)
    })
    this.#runSome()
    for (const page of pages) Object.assign(page, { state: 'away', bytes: undefined, writeProtected: false })
    this.#pagesEvicted += range.count
    // Who waited for the protection now waits for the page: a fault of its own.
    this.#wake(range)
    return { kind: 'ok', value: contents }
  }

  scanAccessed(range: PageRange): Outcome<PageNumber[]> {
    return this.#scan('scanAccessed', range, page => {
      const { accessed } = page
      page.accessed = false
      return accessed
    })
  }

  scanWritten(range: PageRange): Outcome<PageNumber[]> {
    return this.#scan('scanWritten', range, page => {
      const written = !page.writeProtected
      page.writeProtected = true
      return written
    })
  }

  park(id: ThreadId): Outcome<Context> {
    const thread = this.#simulated.find(candidate => candidate.id === id)
    const reason = this.#refuse('park') ?? (thread === undefined ? 'no-such-thread' : undefined)
    if (thread === undefined || reason !== undefined) return refused(reason ?? 'no-such-thread')
    if (thread.wanted === undefined || !thread.userMode) return refused('not-in-user-mode')
    const { page } = thread.wanted
    const context = thread.park()
    if (!this.#simulated.some(other => other.wanted?.page === page)) this.#announced.delete(page)
    return { kind: 'ok', value: context }
  }

  resume(id: ThreadId, context: Context): Done {
    const thread = this.#simulated.find(candidate => candidate.id === id)
    const reason = this.#refuse('resume')
    if (reason !== undefined) return refused(reason)
    if (thread === undefined) return refused('no-such-thread')
    if (thread.status !== 'parked') return refused('not-parked')
    return thread.resume(context) ? OK : refused('bad-context')
  }

  statistics(): Statistics {
    let residentPages = 0
    for (const page of this.#pages.values()) if (page.state === 'resident') residentPages++
    return {
      residentPages,
      faults: this.#faults,
      pagesPlaced: this.#pagesPlaced,
      pagesEvicted: this.#pagesEvicted,
    }
  }

  close(): void {}

  start(id: ThreadId, action: GuestAction): void {
    this.#thread(id).start(action)
  }

  result(id: ThreadId, _waitMs: Millis): GuestResult {
    this.#runAll()
    return this.#thread(id).takeResult()
  }

  #thread(id: ThreadId): SimulatedThread {
    const thread = this.#simulated.find(candidate => candidate.id === id)
    invariant(thread !== undefined, `there is no thread ${id}`)
    return thread
  }

  /** The reason to refuse a call on a range; `fits` is asked for every page of it. */
  #check(
    operation: Operation,
    range: PageRange,
    fits: (page: Page | undefined) => Refusal | undefined = () => undefined,
  ): Refusal | undefined {
    const failure = this.#refuse(operation)
    if (failure !== undefined) return failure
    if (range.count < 1 || range.first + range.count - 1 > PAGE_NUMBER_MAX) return 'bad-range'
    for (const number of numbersOf(range)) {
      const reason = fits(this.#pages.get(number))
      if (reason !== undefined) return reason
    }
    return undefined
  }

  *#range(range: PageRange): Iterable<Page> {
    for (const number of numbersOf(range)) {
      const page = this.#pages.get(number)
      if (page !== undefined) yield page
    }
  }

  #scan(operation: Operation, range: PageRange, take: (page: Page) => boolean): Outcome<PageNumber[]> {
    const reason = this.#check(operation, range)
    if (reason !== undefined) return refused(reason)
    const found: PageNumber[] = []
    for (const number of numbersOf(range)) {
      const page = this.#pages.get(number)
      if (page?.state === 'resident' && take(page)) found.push(number)
    }
    return { kind: 'ok', value: found }
  }

  #wake(range: PageRange): void {
    for (const number of numbersOf(range)) this.#announced.delete(number)
    for (const thread of this.#simulated) {
      const page = thread.wanted?.page
      if (page !== undefined && page >= range.first && page < range.first + range.count) thread.wake()
    }
  }

  readonly #touch = (number: PageNumber, access: 'read' | 'write'): Touch => {
    const page = this.#pages.get(number)
    const allowed = page?.access === 'read-write' || (page?.access === 'read' && access === 'read')
    if (page === undefined || !allowed) return { kind: 'segv' }
    if (page.state !== 'resident') return { kind: 'fault', cause: page.state }
    page.accessed = true
    if (access === 'write' && page.writeProtected) return { kind: 'fault', cause: 'protected' }
    invariant(page.bytes !== undefined, 'a resident page has contents')
    return { kind: 'hit', bytes: page.bytes }
  }

  #runSome(): void {
    for (let step = 0; step < STEPS_BETWEEN_PHASES; step++) {
      for (const thread of this.#simulated) thread.step(this.#touch)
    }
  }

  /** Until every thread waits, is parked or has finished. Ends, because every action does. */
  #runAll(): void {
    while (this.#simulated.some(thread => thread.status === 'running')) this.#runSome()
  }
}

function refused(reason: Refusal): { readonly kind: 'refused'; readonly reason: Refusal } {
  return { kind: 'refused', reason }
}

function mapped(page: Page | undefined): Refusal | undefined {
  return page === undefined ? 'unmapped' : undefined
}

function isResident(page: Page | undefined): boolean {
  return page?.state === 'resident'
}

function resident(page: Page | undefined): Refusal | undefined {
  return mapped(page) ?? (isResident(page) ? undefined : 'not-resident')
}

function* numbersOf(range: PageRange): Iterable<PageNumber> {
  for (let i = 0; i < range.count; i++) yield (range.first + i) as PageNumber
}
