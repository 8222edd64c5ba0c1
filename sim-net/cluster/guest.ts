/**
 * Guest threads and what they do: a thread's program is a pure function of its process' seed and its program counter,
 * so that whoever has the context, and nothing else, can run it.
 */

import type { PageNumber, ThreadId } from '../../placement/ids.js'

/** The whole state of a thread, as it travels from node to node. */
export interface ThreadContext {
  readonly thread: ThreadId
  /** Operations it has completed. */
  pc: number
  /** Faults that are pulls whatever the rule says: it came home for want of a page. */
  pullsFirst: number
  /** Operations until it works on something else for a while. */
  left: number
  /** Execution on its node, µs. */
  ranUs: number
  /** Pages of its last operations, the latest last: they go with it. */
  readonly recent: PageNumber[]
}

export type Operation =
  | { readonly kind: 'read' | 'write'; readonly page: PageNumber }
  /** A system call on a page: at home, the page pinned. */
  | { readonly kind: 'call'; readonly page: PageNumber }
  /** A system call that ends pages. */
  | { readonly kind: 'forget'; readonly page: PageNumber; readonly count: number }

export type Pattern = 'scan' | 'random' | 'hot' | 'strides'
export const PATTERNS: readonly Pattern[] = ['scan', 'random', 'hot', 'strides']

export interface Program {
  readonly seed: number
  readonly pattern: Pattern
  /** Elastic pages, from `first` on. */
  readonly first: PageNumber
  readonly pages: number
  readonly writes: number
}

const CALL_EVERY = 257
const FORGET_EVERY = 2_003
const FORGET_PAGES_MAX = 16
/** A place is worked on for so many operations before the next. */
const STAY = 64
const HOT_PAGES = 24
const UINT32 = 2 ** 32

/** What a thread does when it has completed `pc` operations. */
export function operationOf(program: Program, thread: ThreadId, pc: number): Operation {
  const drawn = mix(program.seed, thread, pc)
  const page = (program.first + placeOf(program, thread, pc, drawn)) as PageNumber
  const what = mix(drawn, 7, thread)
  if (what % FORGET_EVERY === 0) {
    const left = program.first + program.pages - page
    return { kind: 'forget', page, count: Math.min(left, 1 + (drawn % FORGET_PAGES_MAX)) }
  }
  if (what % CALL_EVERY === 0) return { kind: 'call', page }
  return { kind: what / UINT32 < program.writes ? 'write' : 'read', page }
}

function placeOf({ seed, pattern, pages }: Program, thread: ThreadId, pc: number, drawn: number): number {
  switch (pattern) {
    case 'scan':
      return (Math.floor(pc / 2) + thread * 97) % pages
    case 'random':
      return drawn % pages
    case 'hot':
      // One in four is anywhere, the others fight for a few pages.
      return drawn % 4 === 0 ? (drawn >>> 3) % pages : (drawn >>> 3) % Math.min(HOT_PAGES, pages)
    case 'strides': {
      const start = mix(seed, thread, Math.floor(pc / STAY)) % pages
      return (start + (drawn % 8) + (pc % STAY)) % pages
    }
  }
}

/** 32 bits that depend on all bits of three numbers. */
export function mix(a: number, b: number, c: number): number {
  let word = (a ^ Math.imul(b + 0x9e3779b9, 0x85ebca6b) ^ Math.imul(c + 0x7f4a7c15, 0xc2b2ae35)) | 0
  word = Math.imul(word ^ (word >>> 16), 0x7feb352d)
  word = Math.imul(word ^ (word >>> 15), 0x846ca68b)
  return (word ^ (word >>> 16)) >>> 0
}
