/**
 * What happens between "a thread touched a page" and "it runs on". Twin of kmod/pager/src/engine_fault.cpp, but for what
 * is policy there: whether there is room, whether the thread jumps instead, and how far first touches are filled.
 */

import { HOME, type NodeIndex, type PageNumber } from '../../placement/ids.js'
import { retryDeferred } from './serve.js'
import type { State } from './state.js'
import type { Page, Prefetch } from './types.js'

/** In pages that came back without their bytes: what a first write costs. */
const WRITE_COSTS = 1
const PAY_MIN = -64
const PAY_MAX = 256
/** Pulls for reading, until copies are tried again. */
const DECLINED_MAX = 64

export function onFault(s: State, page: PageNumber, write: boolean): void {
  const entry = s.entry(page)
  switch (entry.state) {
    case 'resident': // came while the event was queued
      s.emit({ kind: 'wake', page })
      return
    case 'in-flight':
      entry.prefetched = false // somebody waits for it now
      return
    case 'copied':
      s.remove(entry, 'remote')
      faultRemote(s, page, entry, write)
      return
    case 'remote':
      faultRemote(s, page, entry, write)
      return
    case 'spilled':
      faultSpilled(s, page)
      return
    case 'untouched':
      faultUntouched(s, page, entry, write)
  }
}

/** A write to a page of which somebody keeps a copy. */
export function onProtectedWrite(s: State, page: PageNumber): void {
  const entry = s.entry(page)
  if (entry.state !== 'resident') return
  if (entry.offered) {
    s.offerWaiters.add(page)
    return
  }
  if (entry.copyAt !== HOME) onWriteToClean(s, entry)
  s.emit({ kind: 'wake', page })
}

export function onWriteToClean(s: State, entry: Page): void {
  entry.copyAt = HOME
  payCopies(s, -WRITE_COSTS)
}

export function payCopies(s: State, pages: number): void {
  s.copiesPay = Math.min(PAY_MAX, Math.max(PAY_MIN, s.copiesPay + pages))
}

function wantsCopies(s: State, write: boolean): boolean {
  if (s.self !== HOME || write || !s.threadsStay) return false
  if (s.copiesPay >= 0) return true
  s.copiesDeclined = (s.copiesDeclined + 1) % DECLINED_MAX
  return s.copiesDeclined === 0
}

function faultUntouched(s: State, page: PageNumber, entry: Page, write: boolean): void {
  if (s.regionOf(page) === undefined) {
    s.emit({ kind: 'wake', page })
    checkWatched(s, page)
    return
  }
  if (s.self !== HOME) {
    faultRemote(s, page, entry, write)
    return
  }
  const run = plannedRun(s, page, 'first-touch', other => other.state === 'untouched')
  for (const each of run) s.place(s.entry(each), 0)
  for (const each of run) announce(s, each)
}

function faultSpilled(s: State, page: PageNumber): void {
  const run = plannedRun(s, page, 'spilled', other => other.state === 'spilled')
  for (const each of run) {
    const entry = s.entry(each)
    s.place(entry, entry.contents)
  }
  for (const each of run) {
    announce(s, each)
    retryDeferred(s, each)
  }
}

function announce(s: State, page: PageNumber): void {
  s.emit({ kind: 'wake', page })
  checkWatched(s, page)
}

function faultRemote(s: State, page: PageNumber, entry: Page, write: boolean): void {
  const { state } = entry
  const whom = whomToAsk(s, page, entry)
  if (!s.isUp(whom.asked)) {
    if (s.self === HOME) {
      s.emit({ kind: 'lost', page })
      return
    }
    s.emit({ kind: 'want-lane', node: whom.asked })
    s.emit({ kind: 'go-home', page })
    return
  }
  const like = (other: Readonly<Page>, next: PageNumber) => {
    const { known, asked } = whomToAsk(s, next, other)
    return other.state === state && known === whom.known && asked === whom.asked
  }
  const run = plannedRun(s, page, 'remote', like)
  ask(s, whom, run, page, wantsCopies(s, write))
}

/** The pages to get with this one: those around it, as far as the plan goes, that are in the same state. */
function plannedRun(
  s: State,
  page: PageNumber,
  cause: Parameters<Prefetch['plan']>[1],
  like: (other: Readonly<Page>, page: PageNumber) => boolean,
): PageNumber[] {
  const plan = s.prefetch.plan(page, cause)
  const region = s.regionOf(page) ?? { first: page, end: page + 1 }
  const step = plan.down ? -1 : 1
  const run = [page]
  for (let next = page + step; run.length < plan.count; next += step) {
    if (next < region.first || next >= region.end || !like(s.peek(next as PageNumber), next as PageNumber))
      break
    run.push(next as PageNumber)
  }
  if (plan.down) run.reverse()
  s.prefetch.fetched(run[0] ?? page, run.length)
  return run
}

interface Asking {
  /** Who has the page by the table. */
  readonly known: NodeIndex
  /** Who has it by a hint, if there is one. */
  readonly asked: NodeIndex
}

/**
 * Home where the table says nothing. Of a page of which it has never heard no hint is believed either: a node that joins
 * has not been told of what ended before.
 */
function whomToAsk(s: State, page: PageNumber, { state, where, version }: Readonly<Page>): Asking {
  const known = state === 'remote' ? where : HOME
  const hinted = s.self === HOME || version === 0 ? undefined : s.hints.owner(page, version, s.peers)
  return { known, asked: hinted ?? known }
}

/** Somebody here waits for the page, which was not where it was asked for. */
export function askOn(s: State, page: PageNumber, owner: NodeIndex): void {
  if (s.isUp(owner)) {
    ask(s, { known: owner, asked: owner }, [page], page, false)
    return
  }
  if (s.self === HOME) {
    s.emit({ kind: 'lost', page })
    return
  }
  retryDeferred(s, page)
  s.emit({ kind: 'want-lane', node: owner })
  s.emit({ kind: 'go-home', page })
}

/** `run` ascending and without gaps. */
export function ask(
  s: State,
  { known, asked }: Asking,
  run: readonly PageNumber[],
  demand: PageNumber,
  keep: boolean,
): void {
  const { version } = s.peek(demand)
  for (const page of run) {
    const entry = s.entry(page)
    entry.state = 'in-flight'
    entry.where = asked
    entry.known = known
    entry.prefetched = page !== demand
  }
  s.expectedPages += run.length
  const first = run[0] ?? demand
  const byHint = asked !== known
  s.send(asked, false, { type: 'get', first, count: run.length, demand, version, keep, byHint })
}

/** Starts making a page resident; `watched` is told when it is. */
export function bring(s: State, page: PageNumber): void {
  const entry = s.entry(page)
  entry.watched = true
  if (entry.state === 'resident') {
    if (!entry.offered) checkWatched(s, page)
  } else if (entry.state === 'in-flight') {
    entry.prefetched = false
  } else {
    onFault(s, page, true)
  }
}

/** The page stays here once it has come, which is told (`watched`). */
export function pin(s: State, page: PageNumber): void {
  if (s.regionOf(page) === undefined) return
  const entry = s.entry(page)
  entry.pinned = true
  if (entry.copyAt !== HOME && !entry.offered) onWriteToClean(s, entry)
  bring(s, page)
}

export function checkWatched(s: State, page: PageNumber): void {
  const entry = s.entry(page)
  if (!entry.watched) return
  entry.watched = false
  s.emit({ kind: 'watched', page })
}
