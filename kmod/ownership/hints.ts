/**
 * What other nodes say they own, and where a page is likely to be by that. Twin of kmod/pager/src/hints.cpp.
 *
 * A node tells ranges of its own pages, each with the least version of them. The table's word on a page is older than
 * that of a range only if its version is below that: versions grow with each move. So what was true when it was told
 * never leads back along the chain of owners; what was not costs a question, and its answer no more than "not here".
 *
 * Limits: 64 ranges of each node.
 */

import type { NodeIndex, PageNumber } from '../../placement/ids.js'
import type { Version } from './types.js'

export const OWNED_RANGES_MAX = 64
/** Of 47-bit user addresses. */
const PAGE_NUMBER_END = 2 ** 35 - 1
const HALF_VERSION_MAX = 2 ** 32 - 1

/** Neighbouring pages that one node owns; all have at least the version of this birth and these moves. */
export interface OwnedRange {
  readonly first: number
  readonly pages: number
  readonly birth: number
  readonly moves: number
}

/** Whether `ranges` are few, in bounds, ascending, and share no page. */
export function areOwnedRanges(ranges: readonly OwnedRange[]): boolean {
  let end = 0
  return (
    ranges.length <= OWNED_RANGES_MAX &&
    ranges.every(({ first, pages, birth, moves }) => {
      const fits = isIn(first, end, PAGE_NUMBER_END) && isIn(pages, 1, PAGE_NUMBER_END - first)
      end = first + pages
      return fits && isIn(birth, 0, HALF_VERSION_MAX) && isIn(moves, 0, HALF_VERSION_MAX)
    })
  )
}

function isIn(value: number, least: number, most: number): boolean {
  return Number.isSafeInteger(value) && value >= least && value <= most
}

interface Hint {
  readonly first: number
  readonly end: number
  readonly version: Version
}

export class Hints {
  readonly #nodes = new Map<NodeIndex, readonly Hint[]>()

  /** All that `node` owns, as it says; what it said before is forgotten. */
  set(node: NodeIndex, ranges: readonly OwnedRange[]): void {
    this.#nodes.delete(node)
    if (ranges.length === 0 || !areOwnedRanges(ranges)) return
    const hints = ranges.map(({ first, pages, birth, moves }) => {
      return { first, end: first + pages, version: (birth * 2 ** 32 + moves) as Version }
    })
    this.#nodes.set(node, hints)
  }

  /** Who of `among`, ascending, says the newest of the page, and something newer than `version`. */
  owner(page: PageNumber, version: Version, among: readonly NodeIndex[]): NodeIndex | undefined {
    let newest = version
    let owner: NodeIndex | undefined
    for (const node of this.#nodes.size === 0 ? [] : among) {
      const hint = this.#nodes.get(node)?.find(({ first, end }) => page >= first && page < end)
      if (hint === undefined || hint.version <= newest) continue
      newest = hint.version
      owner = node
    }
    return owner
  }
}
