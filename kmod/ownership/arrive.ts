/** Pages that arrive, and what other nodes say about pages. Twin of kmod/pager/src/engine_arrive.cpp. */

import { HOME, type NodeIndex, type PageNumber } from '../../placement/ids.js'
import { endOffer, onOfferAnswered, takeOffered } from './copies.js'
import { askOn, bring, checkWatched } from './fault.js'
import { retryDeferred } from './serve.js'
import type { State } from './state.js'
import { type PageFrame, type PageMeta, type Version, versionOfBirth } from './types.js'

const DROP_PAGES_MAX = 256

interface Came {
  readonly page: PageNumber
  readonly demanded: boolean
}

/** Takes note of a page that comes with its bytes; false if it is old news. Versions alone decide. */
function accept(s: State, meta: PageMeta): boolean {
  const entry = s.entry(meta.page)
  if (meta.version <= entry.version) return false
  // Home knows of every page that is out: nobody can send it one that is not.
  if (s.self === HOME && entry.state !== 'remote' && entry.state !== 'in-flight') return false
  s.remove(entry, 'untouched') // an older life of this address, not yet dropped here
  entry.version = meta.version
  entry.lastWrittenCut = meta.lastWrittenCut
  s.place(entry, meta.contents)
  return true
}

/** PAGES (`asked`) or PUSH. `kept`: the sender keeps copies of what it sends. */
export function onPages(
  s: State,
  from: NodeIndex,
  metas: readonly PageMeta[],
  asked: boolean,
  kept: boolean,
): void {
  const clean = kept && s.threadsStay && !metas.some(({ page }) => s.peek(page).pinned)
  const came: Came[] = []
  const answers: PageMeta[] = []
  for (const meta of metas) {
    const { page, kind } = meta
    if (kind === 'offered') {
      answers.push(takeOffered(s, from, meta))
      continue
    }
    if (kind !== 'data' && kind !== 'zero') {
      onAnswerWithoutPage(s, from, meta)
      continue
    }
    const before = s.peek(page)
    const demanded = before.state === 'in-flight' && !before.prefetched
    if (accept(s, meta)) {
      if (clean && kind === 'data') s.entry(page).copyAt = from
      came.push({ page, demanded })
      s.emit({ kind: 'wake', page })
    } else if (asked) {
      onAnswerWithoutPage(s, from, { ...meta, kind: 'absent' })
    }
  }
  if (answers.length > 0) s.send(from, false, { type: 'pages', metas: answers, kept: false })
  if (s.self !== HOME && from !== HOME) tellHomeOf(s, came)
  for (const { page, demanded } of came) {
    if (s.peek(page).state === 'resident') {
      if (demanded) s.startHold(page)
      checkWatched(s, page)
    }
    retryDeferred(s, page) // also if it has left again, with an answer to somebody who waited for another one
  }
}

/** Home has not seen these move. */
function tellHomeOf(s: State, came: readonly Came[]): void {
  for (const { page } of came) {
    const { version } = s.peek(page)
    s.send(HOME, false, { type: 'owner', first: page, count: 1, version, owner: s.self })
  }
}

function onAnswerWithoutPage(s: State, from: NodeIndex, meta: PageMeta): void {
  if (s.self === HOME && onOfferAnswered(s, from, meta)) return
  const { page, kind } = meta
  const entry = s.entry(page)
  if (entry.state !== 'in-flight' || entry.where !== from) return
  if (kind === 'moved' && meta.version >= entry.version) {
    onMoved(s, page, meta.owner, meta.version)
    return
  }
  const demanded = !entry.prefetched
  const { known } = entry
  s.noteRemote(entry, known, entry.version)
  retryDeferred(s, page)
  if (kind === 'pinned' && s.self !== HOME) {
    s.emit({ kind: 'go-home', page })
    return
  }
  if (!demanded) return
  if (known !== from) {
    askOn(s, page, known) // the hint was wrong
    return
  }
  s.emit({ kind: 'wake', page })
  if (entry.watched) bring(s, page)
}

/** Versions only grow along a chain of moves, so it ends at the owner. */
function onMoved(s: State, page: PageNumber, owner: NodeIndex, version: Version): void {
  if (owner === s.self) return // it is on its way here on the other connection
  const entry = s.entry(page)
  const demanded = !entry.prefetched
  s.noteRemote(entry, owner, version)
  if (demanded) askOn(s, page, owner)
  else retryDeferred(s, page)
}

/** Pages ended at home: everything older than the new birth goes. */
export function onDrop(s: State, frame: PageFrame & { type: 'drop' }): void {
  for (let i = 0; i < frame.count; i++) {
    const page = (frame.first + i) as PageNumber
    const entry = s.entry(page)
    if (entry.version >= frame.version) continue
    if (entry.state === 'in-flight') s.emit({ kind: 'wake', page })
    s.remove(entry, 'untouched')
    entry.version = frame.version
    entry.lastWrittenCut = 0
    retryDeferred(s, page)
  }
}

/**
 * A node owns these: it says so itself, or one that gave them to it, that is where they are known to be, and has lost the
 * lane to it.
 */
export function onOwnerNote(s: State, from: NodeIndex, frame: PageFrame & { type: 'owner' }): void {
  const { owner } = frame
  if (s.self !== HOME || owner === HOME) return
  for (let i = 0; i < frame.count; i++) {
    const page = (frame.first + i) as PageNumber
    const entry = s.entry(page)
    const asked = entry.state === 'in-flight' && entry.where !== owner
    if ((entry.state !== 'remote' && !asked) || entry.version >= frame.version) continue
    if (owner !== from && entry.where !== from) continue
    const demanded = asked && !entry.prefetched
    s.noteRemote(entry, owner, frame.version)
    if (demanded) askOn(s, page, owner)
    else retryDeferred(s, page) // whoever asks for this version is told where it went
  }
}

/** Home: contents of [first, end) end everywhere (munmap, MADV_DONTNEED). */
export function forget(s: State, first: PageNumber, end: PageNumber): void {
  const version = versionOfBirth(++s.birth)
  let run = { first, count: 0 }
  const flush = () => {
    if (run.count > 0) for (const to of s.peers) s.send(to, false, { type: 'drop', ...run, version })
    run.count = 0
  }
  const follows = (page: PageNumber) => run.count > 0 && run.first + run.count === page
  const deferred: PageNumber[] = []
  const watched: PageNumber[] = []
  const offered: PageNumber[] = []
  for (let page = first; page < end; page = (page + 1) as PageNumber) {
    const entry = s.pages.get(page)
    if (entry?.watched) watched.push(page)
    if (entry === undefined || entry.state === 'untouched') continue
    if (entry.offered) offered.push(page)
    if (entry.deferred) deferred.push(page)
    // Others may be told of pages that they never had, so that few frames are enough.
    const here = entry.state === 'resident' || entry.state === 'spilled'
    if (!here || entry.offered || follows(page)) {
      if (!follows(page) || run.count >= DROP_PAGES_MAX) {
        flush()
        run = { first: page, count: 0 }
      }
      run.count++
    }
    if (entry.state === 'in-flight') s.emit({ kind: 'wake', page })
    s.remove(entry, 'untouched')
    Object.assign(entry, { version, lastWrittenCut: 0, pinned: false })
  }
  flush()
  for (const page of offered) endOffer(s, page)
  for (const page of deferred) retryDeferred(s, page)
  for (const page of watched) checkWatched(s, page)
}
