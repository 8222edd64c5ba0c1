/**
 * Inactive copies: a lender that gives a page to home for reading keeps its bytes, and if the page leaves home again
 * unwritten it is offered to that lender without them. Twin of kmod/pager/src/engine_copies.cpp.
 */

import { HOME, type NodeIndex, type PageNumber } from '../../placement/ids.js'
import { bring, checkWatched, payCopies } from './fault.js'
import { nothing, retryDeferred } from './serve.js'
import type { State } from './state.js'
import { moved, type PageMeta } from './types.js'

/** As good as gone, but still in memory. */
const OFFERED_MAX = 32
const REFUSAL_COSTS = 2

/** Offers those that can go without their bytes; the others are returned. */
export function offer(s: State, pages: readonly PageNumber[]): readonly PageNumber[] {
  for (const node of s.peers) {
    const metas: PageMeta[] = []
    for (const page of pages) {
      const entry = s.peek(page)
      if (entry.copyAt !== node || node === HOME || s.offeredPages + metas.length >= OFFERED_MAX) continue
      s.entry(page).offered = true
      const { lastWrittenCut } = entry
      const version = moved(entry.version)
      metas.push({ page, version, lastWrittenCut, kind: 'offered', owner: HOME, contents: 0 })
    }
    if (metas.length === 0) continue
    s.offeredPages += metas.length
    s.send(node, true, { type: 'push', metas })
  }
  return pages.filter(page => !s.peek(page).offered)
}

/** False: it is no answer to an offer. */
export function onOfferAnswered(s: State, from: NodeIndex, meta: PageMeta): boolean {
  const { page } = meta
  const entry = s.entry(page)
  if (!entry.offered || entry.copyAt !== from) return false
  const taken = meta.kind === 'moved' && meta.owner === from && meta.version === moved(entry.version)
  if (taken) s.noteRemote(entry, from, meta.version)
  entry.copyAt = HOME
  entry.offered = false
  payCopies(s, taken ? 1 : -REFUSAL_COSTS)
  endOffer(s, page)
  return true
}

/** The page is not offered any more: it stays, has gone, or has ended. */
export function endOffer(s: State, page: PageNumber): void {
  s.offeredPages--
  const entry = s.entry(page)
  if (s.offerWaiters.delete(page)) s.emit({ kind: 'wake', page })
  if (entry.state === 'resident') checkWatched(s, page)
  else if (entry.watched && entry.state === 'remote') bring(s, page)
  retryDeferred(s, page)
}

/** A lender's answer to an offer of home. */
export function takeOffered(s: State, from: NodeIndex, meta: PageMeta): PageMeta {
  const { page, version } = meta
  const entry = s.entry(page)
  const known = from === HOME && entry.state === 'copied' && moved(entry.version) === version
  if (known) {
    const { contents } = entry
    s.remove(entry, 'remote')
    s.place(entry, contents)
    entry.version = version
    entry.lastWrittenCut = meta.lastWrittenCut
  }
  return { ...nothing(page, known ? 'moved' : 'absent'), version, owner: s.self }
}
