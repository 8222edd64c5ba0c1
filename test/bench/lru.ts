/**
 * Exact LRU over a reference string: what a run with room for so many pages has to move at least, if the page that
 * leaves is always the one that was not used for longest.
 */

export interface Moves {
  /** Pages that came back after they had left; a page's first use moves nothing. */
  readonly pulled: number
  readonly pushed: number
}

/** What is moved while `references` are made in their order, with room for `capacity` pages, at least one. */
export function movedByLru(references: Iterable<number>, capacity: number): Moves {
  if (!(capacity >= 1)) throw new RangeError('no room for a page')
  const resident = new Set<number>() // in order of use, the longest unused first
  const seen = new Set<number>()
  let pulled = 0
  let pushed = 0
  for (const page of references) {
    if (!resident.delete(page)) {
      if (seen.has(page)) pulled++
      seen.add(page)
      const [oldest] = resident
      if (resident.size === capacity && oldest !== undefined) {
        resident.delete(oldest)
        pushed++
      }
    }
    resident.add(page)
  }
  return { pulled, pushed }
}
