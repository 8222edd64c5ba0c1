/** Answers to other nodes' GETs, and those that wait. Twin of kmod/pager/src/engine_serve.cpp. */

import { HOME, invariant, type NodeIndex, type PageNumber } from '../../placement/ids.js'
import type { Micros } from '../../placement/units.js'
import type { Deferred, State } from './state.js'
import { type PageFrame, type PageMeta, type Request, type Version, versionOfBirth } from './types.js'

const DEFERRED_MAX = 4096
const GET_PAGES_MAX = 64
/** Larger answers take the bulk connection. */
const URGENT_PAGES_MAX = 16

export function onGet(s: State, from: NodeIndex, frame: PageFrame & { type: 'get' }): void {
  const { first, count, demand, version, byHint } = frame
  if (count === 0 || count > GET_PAGES_MAX || demand < first || demand >= first + count) return
  serve(s, { from, first, count, demand, version, keep: frame.keep && from === HOME, byHint })
}

/** Why a GET cannot be answered now: `wait` for what will happen to the page, or until its hold ends. */
function mustDefer(s: State, page: PageNumber, version: Version): Micros | 'wait' | undefined {
  const entry = s.peek(page)
  if (entry.state === 'in-flight') return 'wait'
  // Named owner, but the page is still on its way here; or an older life of this address, whose end is.
  if (entry.version < version) return 'wait'
  if (entry.state !== 'resident') return undefined
  if (entry.offered) return 'wait'
  return s.threadsHere ? s.heldUntil(page) : undefined
}

function serve(s: State, request: Request): void {
  const { from, first, count, demand, version } = request
  if (!s.isUp(from)) return
  if (request.byHint && !knows(s, demand, version)) {
    refuse(s, request) // it may never come here
    return
  }
  const until = mustDefer(s, demand, version)
  if (until !== undefined) {
    defer(s, { ...request, notBefore: until === 'wait' ? undefined : until })
    return
  }
  const keep = request.keep && s.keepsCopies && s.self !== HOME
  const metas: PageMeta[] = []
  let dataPages = 0
  for (let i = 0; i < count; i++) {
    const page = (first + i) as PageNumber
    const inMemory = leavesMemory(s, page, page === demand)
    const meta = inMemory ? give(s, from, page) : serveOther(s, from, page, page === demand)
    if (meta.kind === 'data') {
      dataPages++
      if (keep && inMemory) s.keepCopy(page, meta.contents)
    }
    metas.push(meta)
  }
  s.send(from, dataPages > URGENT_PAGES_MAX, { type: 'pages', metas, kept: keep })
}

/** Resident and free to go now. */
function leavesMemory(s: State, page: PageNumber, demanded: boolean): boolean {
  const entry = s.peek(page)
  if (entry.state !== 'resident' || entry.pinned || entry.offered) return false
  return demanded || mustDefer(s, page, versionOfBirth(0)) === undefined
}

/** Every page that does not leave memory: from the disk, from nowhere, or not at all. */
function serveOther(s: State, to: NodeIndex, page: PageNumber, demanded: boolean): PageMeta {
  const entry = s.entry(page)
  if (entry.state === 'remote' || entry.state === 'copied')
    return { ...nothing(page, 'moved'), version: entry.version, owner: entry.where }
  const isNew = entry.state === 'untouched' && s.self === HOME && s.regionOf(page) !== undefined
  if (!entry.pinned && (entry.state === 'spilled' || isNew)) return give(s, to, page)
  return nothing(page, demanded ? 'pinned' : 'absent')
}

/** A page that this node owns, or that home has never given out: its bytes, and with them ownership. */
export function give(s: State, to: NodeIndex, page: PageNumber): PageMeta {
  const entry = s.entry(page)
  const { state, contents, lastWrittenCut } = entry
  invariant(
    state === 'resident' || state === 'spilled' || (state === 'untouched' && s.self === HOME),
    `page ${page} is given away and is ${state}`,
  )
  s.setGone(page, entry, to)
  const kind = contents === 0 ? 'zero' : 'data'
  return { page, version: entry.version, lastWrittenCut, kind, owner: HOME, contents }
}

/** An answer without the page. */
export function nothing(page: PageNumber, kind: 'moved' | 'absent' | 'pinned'): PageMeta {
  return { page, version: versionOfBirth(0), lastWrittenCut: 0, kind, owner: HOME, contents: 0 }
}

/** Whether this node has the page, or can say who got it. */
function knows(s: State, page: PageNumber, least: Version): boolean {
  const { state, version } = s.peek(page)
  return version >= least && state !== 'untouched' && state !== 'in-flight'
}

function refuse(s: State, { from, first, count }: Request): void {
  const metas = Array.from({ length: count }, (_, i) => nothing((first + i) as PageNumber, 'absent'))
  s.send(from, false, { type: 'pages', metas, kept: false })
}

function defer(s: State, deferred: Deferred): void {
  const { demand, notBefore } = deferred
  if (s.deferred.length >= DEFERRED_MAX) {
    refuse(s, deferred) // the asker tries again
    return
  }
  s.entry(demand).deferred = true
  s.deferred.push(deferred)
  if (notBefore !== undefined) setTimer(s, notBefore)
}

function setTimer(s: State, at: Micros): void {
  if (s.timer !== undefined && s.timer <= at) return
  s.timer = at
  s.emit({ kind: 'timer', at })
}

/** GETs that waited for the page are answered, or wait for something else. */
export function retryDeferred(s: State, page: PageNumber): void {
  if (!s.peek(page).deferred) return
  s.entry(page).deferred = false
  const now: Deferred[] = []
  const later: Deferred[] = []
  for (const each of s.deferred) (each.demand === page ? now : later).push(each)
  s.deferred = later
  for (const each of now) serve(s, each)
}

/** Holds have ended. */
export function retryHeld(s: State): void {
  if (s.timer === undefined || s.now < s.timer) return
  s.timer = undefined
  const due: PageNumber[] = []
  let next: Micros | undefined
  for (const { demand, notBefore } of s.deferred) {
    if (notBefore === undefined) continue
    if (notBefore <= s.now) due.push(demand)
    else if (next === undefined || notBefore < next) next = notBefore
  }
  for (const page of due) retryDeferred(s, page)
  if (next !== undefined) setTimer(s, next)
}
