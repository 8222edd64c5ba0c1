/**
 * The names of things, as branded types: a page number cannot be passed where a node index is wanted, although both are
 * numbers at run time. Every outside value enters through one of the functions here, which checks it.
 *
 * Limits: ids are checked for form, not for existence.
 */

declare const brand: unique symbol
/** `Base` at run time; to the compiler a type of its own. */
export type Branded<Base, Name extends string> = Base & { readonly [brand]: Name }

/** Unique on the network: 16 lower-case hexadecimal digits. */
export type ElasticProcessId = Branded<string, 'ElasticProcessId'>
/** A participant of one elastic process: 0 is home. Chosen by home, never reused within a process. */
export type NodeIndex = Branded<number, 'NodeIndex'>
/** A page of an elastic process: virtual address / page size. */
export type PageNumber = Branded<number, 'PageNumber'>
/** A guest thread: its thread id at home. */
export type ThreadId = Branded<number, 'ThreadId'>
/** A lease, unique for the agent that granted it. */
export type LeaseId = Branded<number, 'LeaseId'>
/** Fencing number of an elastic process; raised by every rollback. */
export type Epoch = Branded<number, 'Epoch'>

/** A checked value, or the reason why the text was not one. */
export type Parsed<T> =
  | { readonly kind: 'ok'; readonly value: T }
  | { readonly kind: 'refused'; readonly reason: string }

/** The pager's tables and the lane header hold a node index in 8 bits; 255 means "no node". */
export const NODE_INDEX_MAX = 254
/** User space ends at 2^47 bytes on x86-64 with four-level page tables; 4 KiB pages. */
export const PAGE_NUMBER_MAX = 2 ** 35 - 1

/** The index of the node where the process was started. */
export const HOME = 0 as NodeIndex

/** Throws: a broken promise of our own code, never of the outside. Both the check and the text of the bug report. */
export function invariant(condition: boolean, text: string): asserts condition {
  if (!condition) throw new Error(`invariant broken: ${text}`)
}

/** An elastic process id from text. */
export function parseElasticProcessId(text: string): Parsed<ElasticProcessId> {
  if (/^[0-9a-f]{16}$/.test(text)) return { kind: 'ok', value: text as ElasticProcessId }
  return { kind: 'refused', reason: `${quote(text)} is no elastic process id (16 hexadecimal digits)` }
}

/** An elastic process id from 8 bytes that the caller drew at random. */
export function elasticProcessIdOf(bytes: Uint8Array): ElasticProcessId {
  invariant(bytes.length === 8, `an elastic process id is made of 8 bytes, not ${bytes.length}`)
  return Array.from(bytes, byte => byte.toString(16).padStart(2, '0')).join('') as ElasticProcessId
}

/** A node index; a value out of range is a bug. */
export function nodeIndex(value: number): NodeIndex {
  invariant(isWithin(value, NODE_INDEX_MAX), `node index ${value}`)
  return value as NodeIndex
}

/** A page number; a value out of range is a bug. */
export function pageNumber(value: number): PageNumber {
  invariant(isWithin(value, PAGE_NUMBER_MAX), `page number ${value}`)
  return value as PageNumber
}

/** A thread id; a value out of range is a bug. */
export function threadId(value: number): ThreadId {
  invariant(isWithin(value, 2 ** 31 - 1), `thread id ${value}`)
  return value as ThreadId
}

function isWithin(value: number, max: number): boolean {
  return Number.isSafeInteger(value) && value >= 0 && value <= max
}

/** Text in an error message: quoted, control characters escaped, and never longer than a line can bear. */
export function quote(text: string): string {
  const short = text.length > 60 ? `${text.slice(0, 57)}...` : text
  return JSON.stringify(short)
}
