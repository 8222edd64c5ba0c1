/**
 * The application side of a page table under test: threads that touch pages on command, so that the conformance suite
 * can say "thread 1 writes page 7" to any back end and see what happens. Simulated threads in the reference, real
 * traced ones behind the pager.
 */

import type { PageNumber, ThreadId } from '../placement/ids.js'
import type { Millis } from '../placement/units.js'
import type { Eventually, PageTable } from './port.js'

export type GuestAction =
  /** Reads the byte at the page's start. */
  | { readonly kind: 'read'; readonly page: PageNumber }
  /** Stores a byte at the page's start. */
  | { readonly kind: 'write'; readonly page: PageNumber; readonly value: number }
  /** Has the kernel read the byte, inside a system call. */
  | { readonly kind: 'system-call-read'; readonly page: PageNumber }
  /** Adds one to the 64-bit word at the page's start, this many times, a load and a store each. */
  | { readonly kind: 'count'; readonly page: PageNumber; readonly times: number }

export type GuestResult =
  /** `value` is the byte that was read, else 0. */
  | { readonly kind: 'done'; readonly value: number }
  | { readonly kind: 'segv' }
  /** Not finished when the time was over. */
  | { readonly kind: 'running' }

export interface Guest {
  /** The threads there are; at least two, all idle at first. */
  readonly threads: readonly ThreadId[]
  /** Has an idle thread begin an action; a busy one is a bug of the caller. */
  start(thread: ThreadId, action: GuestAction): Eventually<void>
  /** The result of the thread's action; after `done` or `segv` it is idle again. */
  result(thread: ThreadId, waitMs: Millis): Eventually<GuestResult>
}

/** A fresh page table with nothing mapped, and the process that runs on it. */
export interface PageTableUnderTest {
  readonly table: PageTable
  readonly guest: Guest
}
