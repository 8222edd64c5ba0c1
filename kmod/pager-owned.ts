/**
 * Ranges of pages that a node owns, as pagers and their agents hand them to each other: 24 bytes each, first page, pages,
 * and the least version of them, little-endian. The C++ side is kmod/pager/src/hints.cpp.
 */

import { areOwnedRanges, type OwnedRange } from './ownership/hints.js'

const RANGE_BYTES = 24

/** Throws RangeError on ranges that are none (a bug of the caller). */
export function packOwned(ranges: readonly OwnedRange[]): Uint8Array {
  if (!areOwnedRanges(ranges)) throw new RangeError('no ranges of pages')
  const view = new DataView(new ArrayBuffer(RANGE_BYTES * ranges.length))
  for (const [i, { first, pages, birth, moves }] of ranges.entries()) {
    const at = RANGE_BYTES * i
    view.setBigUint64(at, BigInt(first), true)
    view.setBigUint64(at + 8, BigInt(pages), true)
    view.setUint32(at + 16, moves, true)
    view.setUint32(at + 20, birth, true)
  }
  return new Uint8Array(view.buffer)
}

/** Undefined: not what a pager says. */
export function unpackOwned(bytes: Uint8Array): readonly OwnedRange[] | undefined {
  if (bytes.length % RANGE_BYTES !== 0) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const ranges = Array.from({ length: bytes.length / RANGE_BYTES }, (_, i) => {
    const at = RANGE_BYTES * i
    const first = Number(view.getBigUint64(at, true))
    const pages = Number(view.getBigUint64(at + 8, true))
    return { first, pages, birth: view.getUint32(at + 20, true), moves: view.getUint32(at + 16, true) }
  })
  return areOwnedRanges(ranges) ? ranges : undefined
}
