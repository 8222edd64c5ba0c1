/**
 * Amounts with their unit in the type, and the one parser each for sizes and durations as people write them on the
 * command line and in the configuration file.
 *
 * Sizes take K, M and G, binary, either case. Durations take ms, s and m, and a bare number is refused: it would
 * mean seconds to one reader and milliseconds to another. Limits: whole numbers only, at most 2^53 - 1 of the unit.
 */

import { type Branded, invariant, type Parsed, quote } from './ids.js'

export type Bytes = Branded<number, 'Bytes'>
export type Pages = Branded<number, 'Pages'>
/** Whole microseconds: the unit of everything the pager decides. */
export type Micros = Branded<number, 'Micros'>
/** Whole milliseconds: the unit of everything agents decide. */
export type Millis = Branded<number, 'Millis'>

/** x86-64 without huge pages. */
export const PAGE_BYTES = 4096

const SIZE_FACTORS: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 }
const DURATION_FACTORS_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000 }

/** Bytes; a negative or fractional amount is a bug. */
export function bytes(value: number): Bytes {
  invariant(isAmount(value), `${value} bytes`)
  return value as Bytes
}

/** Pages; a negative or fractional amount is a bug. */
export function pages(value: number): Pages {
  invariant(isAmount(value), `${value} pages`)
  return value as Pages
}

/** Microseconds; a negative or fractional amount is a bug. */
export function micros(value: number): Micros {
  invariant(isAmount(value), `${value} microseconds`)
  return value as Micros
}

/** Milliseconds; a negative or fractional amount is a bug. */
export function millis(value: number): Millis {
  invariant(isAmount(value), `${value} milliseconds`)
  return value as Millis
}

/** Whole pages that fit into this many bytes. */
export function pagesIn(size: Bytes): Pages {
  return Math.floor(size / PAGE_BYTES) as Pages
}

/** Pages that this many bytes touch at least. */
export function pagesCovering(size: Bytes): Pages {
  return Math.ceil(size / PAGE_BYTES) as Pages
}

/** `512M`, `4G`, `65536`. */
export function parseSize(text: string): Parsed<Bytes> {
  const match = /^(\d+)([KMG]?)$/.exec(text.toUpperCase())
  const value = Number(match?.[1]) * (SIZE_FACTORS[match?.[2] ?? ''] ?? Number.NaN)
  if (match === null) {
    return {
      kind: 'refused',
      reason: `${quote(text)} is no size: write a whole number with K, M or G, as in 512M`,
    }
  }
  if (!isAmount(value)) return { kind: 'refused', reason: `size ${quote(text)} is too large` }
  return { kind: 'ok', value: value as Bytes }
}

/** `250ms`, `5s`, `2m`. */
export function parseDuration(text: string): Parsed<Millis> {
  const match = /^(\d+)(ms|s|m)$/.exec(text)
  const value = Number(match?.[1]) * (DURATION_FACTORS_MS[match?.[2] ?? ''] ?? Number.NaN)
  if (match === null) {
    return {
      kind: 'refused',
      reason: `${quote(text)} is no duration: write a whole number with ms, s or m, as in 5s`,
    }
  }
  if (!isAmount(value)) return { kind: 'refused', reason: `duration ${quote(text)} is too long` }
  return { kind: 'ok', value: value as Millis }
}

/** A whole number of a unit-less option, within bounds (inclusive); `name` is used in the refusal. */
export function parseCount(name: string, text: string, min: number, max: number): Parsed<number> {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN
  if (Number.isSafeInteger(value) && value >= min && value <= max) return { kind: 'ok', value }
  return {
    kind: 'refused',
    reason: `${name} must be a whole number from ${min} to ${max}, not ${quote(text)}`,
  }
}

/** A size for people: the largest unit that leaves at least one digit, one decimal at most (`1.5G`, `64M`, `512`). */
export function formatSize(size: Bytes): string {
  for (const unit of ['G', 'M', 'K']) {
    const factor = SIZE_FACTORS[unit] ?? 1
    if (size >= factor) return `${Number((size / factor).toFixed(1))}${unit}`
  }
  return String(size)
}

function isAmount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0
}
