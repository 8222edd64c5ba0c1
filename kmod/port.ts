/**
 * The elastic page table of one elastic process on one node, as the rest of elasticos sees it: which pages are here,
 * what threads wait for, and the operations that move pages and threads. Three back ends stand behind it: `memory`
 * (reference), `userfaultfd` (stock kernel), the kernel module; test/conformance/page-table.ts runs on all.
 *
 * It knows nothing of owners, nodes or disks: a page is untouched, resident, or away, and away is the caller's matter.
 * Ranges are half-open and in pages; a refused call has changed nothing. Answers may come at once or as a promise.
 */

import type { PageNumber, ThreadId } from '../placement/ids.js'
import type { Millis, Pages } from '../placement/units.js'

export type Eventually<T> = T | Promise<T>

export interface PageRange {
  readonly first: PageNumber
  readonly count: Pages
}

export type Access = 'none' | 'read' | 'read-write'
/** Untouched: mapped, never materialised, reads as zero. Away: evicted, its contents are with the caller. */
export type PageState = 'unmapped' | 'untouched' | 'resident' | 'away'

export type Refusal =
  | 'bad-range' /** empty, or beyond user space */
  | 'unmapped' /** a page of the range is not mapped */
  | 'already-mapped'
  | 'already-resident'
  | 'not-resident'
  | 'no-such-thread'
  | 'not-in-user-mode' /** parking only: the thread is inside a system call, or ran away */
  | 'not-parked'
  | 'bad-context'
  | 'gone' /** the process has ended */

export type Outcome<T> =
  | { readonly kind: 'ok'; readonly value: T }
  | { readonly kind: 'refused'; readonly reason: Refusal }
export type Done = Outcome<undefined>

/** One page that at least one thread waits for. Further threads that wait for it too are not announced again. */
export interface Fault {
  readonly page: PageNumber
  readonly access: 'read' | 'write'
  readonly thread: ThreadId
  /** False: inside a system call; such a thread cannot be parked, the page must come to it. */
  readonly userMode: boolean
  /** `protected`: the page is resident, and a write to it waits for `allowWrite`. Else its state before the fault. */
  readonly cause: 'untouched' | 'away' | 'protected'
}

/** An execution context, in the back end's own form: opaque here, valid on any node with the same back end. */
export type Context = Uint8Array

export interface Statistics {
  readonly residentPages: number
  /** Faults announced by `nextFault`. */
  readonly faults: number
  readonly pagesPlaced: number
  readonly pagesEvicted: number
}

export interface PageTable {
  /** Makes a range of untouched pages. Refused: already-mapped if anything is there. */
  map(range: PageRange, access: Access): Eventually<Done>
  /** Forgets mapping and contents; what is not mapped is skipped. Threads that wait there get SIGSEGV. */
  unmap(range: PageRange): Eventually<Done>
  protect(range: PageRange, access: Access): Eventually<Done>
  state(page: PageNumber): Eventually<PageState>

  /** The next fault, or nothing if none came within `waitMs`. */
  nextFault(waitMs: Millis): Eventually<Fault | undefined>
  /** Makes pages resident and wakes who waits. `writeProtected`: clean; the first write is announced as a fault. */
  place(range: PageRange, contents: Uint8Array | 'zero', writeProtected: boolean): Eventually<Done>
  /** Lets writes to resident pages through and wakes who waits. */
  allowWrite(range: PageRange): Eventually<Done>
  /** Protects, copies out, drops: no write is lost, and every page is away afterwards. */
  evict(range: PageRange): Eventually<Outcome<Uint8Array>>

  /** Resident pages that were placed or used since the last such scan of them. */
  scanAccessed(range: PageRange): Eventually<Outcome<PageNumber[]>>
  /** Resident pages that are not write-protected, hence may have been written; protects them again. */
  scanWritten(range: PageRange): Eventually<Outcome<PageNumber[]>>

  /** Stops a thread that waits in a user-mode fault and reads its context. The fault it waited for is forgotten. */
  park(thread: ThreadId): Eventually<Outcome<Context>>
  /** Continues a parked thread with this context. */
  resume(thread: ThreadId, context: Context): Eventually<Done>

  statistics(): Eventually<Statistics>
  close(): Eventually<void>
}
