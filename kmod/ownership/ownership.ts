/**
 * Who owns a page: the rules that a pager follows, as a pure state machine, one instance per node of an elastic process.
 * Events in, effects out; time is an argument. Twin of kmod/pager/src/engine*.cpp, held to it step by step by
 * test/kmod/ownership-lockstep.test.ts; docs/architecture.md ("Ownership") says why the rules are these.
 *
 * What is policy is the caller's: which pages leave and where to, how many come together (`Prefetch`), whether there is
 * room, and whether a thread jumps instead of faulting. Not modelled: copies of read-only file pages, what a page begins
 * with other than zeros, mremap, children, and when a thread runs; protection and waking are effects.
 */

import { HOME, invariant, type NodeIndex, type PageNumber } from '../../placement/ids.js'
import type { Micros } from '../../placement/units.js'
import { forget, onDrop, onOwnerNote, onPages } from './arrive.js'
import { offer } from './copies.js'
import { ask, onFault, onProtectedWrite, pin } from './fault.js'
import type { OwnedRange } from './hints.js'
import { give, onGet, retryDeferred, retryHeld } from './serve.js'
import { type OwnershipOptions, State } from './state.js'
import type { Effect, Page, PageFrame, PageMeta, Version } from './types.js'

export type { OwnershipOptions } from './state.js'

/** Pages that one GET asks for when a node is emptied, and that all such GETs together do. */
const FETCH_PAGES = 32
const FETCH_PAGES_MAX = 256
const NOTE_PAGES_MAX = 256

type Effects = readonly Effect[]

/** Tells home what this node knows of a node that it has lost: home may not have heard of it. */
class OwnerNotes {
  readonly #state: State
  readonly #owner: NodeIndex
  #run = { first: 0 as PageNumber, count: 0, version: 0 as Version }

  constructor(state: State, owner: NodeIndex) {
    this.#state = state
    this.#owner = owner
  }

  add(page: PageNumber, version: Version): void {
    const { first, count } = this.#run
    if (count > 0 && first + count === page && this.#run.version === version && count < NOTE_PAGES_MAX) {
      this.#run.count++
      return
    }
    this.flush()
    this.#run = { first: page, count: 1, version }
  }

  flush(): void {
    if (this.#run.count > 0)
      this.#state.send(HOME, false, { type: 'owner', ...this.#run, owner: this.#owner })
    this.#run.count = 0
  }
}

export class Ownership {
  readonly #state: State

  constructor(options: OwnershipOptions) {
    this.#state = new State(options)
  }

  get self(): NodeIndex {
    return this.#state.self
  }

  /** Does a thread run on this node's pages? Only then are pages held that just came. True unless said otherwise. */
  set threadsHere(value: boolean) {
    this.#state.threadsHere = value
  }

  /** Lenders: is there room for copies? True unless said otherwise. */
  set keepsCopies(value: boolean) {
    this.#state.keepsCopies = value
  }

  /** Pages in memory, copies of others' pages among them, or asked for. */
  get takenPages(): number {
    const { residentPages, expectedPages, copiedPages } = this.#state
    return residentPages + expectedPages + copiedPages
  }

  get counts() {
    const { residentPages, expectedPages, copiedPages, offeredPages, deferred, copiesPay } = this.#state
    return {
      residentPages,
      expectedPages,
      copiedPages,
      offeredPages,
      deferredGets: deferred.length,
      copiesPay,
    }
  }

  page(page: PageNumber): Readonly<Page> {
    return this.#state.peek(page)
  }

  /** Every page of which anything is known. */
  get pages(): ReadonlyMap<PageNumber, Readonly<Page>> {
    return this.#state.pages
  }

  onLaneUp(node: NodeIndex): void {
    const { peers } = this.#state
    if (peers.includes(node)) return
    peers.push(node)
    peers.sort((a, b) => a - b)
  }

  /** The lane is lost for good. What this node believed to be there is asked from home from now on. */
  onLaneDown(node: NodeIndex, now: Micros): Effects {
    return this.#at(now, s => {
      s.peers.splice(0, s.peers.length, ...s.peers.filter(each => each !== node))
      s.deferred = s.deferred.filter(({ from }) => from !== node)
      s.hints.set(node, [])
      if (s.self === HOME) return // home decides whether the run can go on without it
      const asked: PageNumber[] = []
      const notes = new OwnerNotes(s, node)
      for (const [page, entry] of [...s.pages].sort(([a], [b]) => a - b)) {
        const { state, where, known } = entry
        if (known === node && where !== node) entry.known = HOME
        if ((state !== 'remote' && state !== 'in-flight') || where !== node) continue
        if (state === 'in-flight') asked.push(page)
        else notes.add(page, entry.version)
        s.noteRemote(entry, state === 'in-flight' && known !== node ? known : HOME, entry.version)
      }
      notes.flush()
      for (const page of asked) {
        s.emit({ kind: 'wake', page })
        retryDeferred(s, page)
      }
    })
  }

  /** Lenders: `node` says that it owns these and nothing else. Only tells where to ask first. */
  onHints(node: NodeIndex, ranges: readonly OwnedRange[]): void {
    if (this.self !== HOME && node !== this.self) this.#state.hints.set(node, ranges)
  }

  /** A thread here touched a page that is not resident. */
  onFault(page: PageNumber, access: 'read' | 'write', now: Micros): Effects {
    return this.#at(now, s => onFault(s, page, access === 'write'))
  }

  /** A thread here writes to a resident page of which somebody keeps a copy. */
  onProtectedWrite(page: PageNumber, now: Micros): Effects {
    return this.#at(now, s => onProtectedWrite(s, page))
  }

  onFrame(from: NodeIndex, frame: PageFrame, now: Micros): Effects {
    return this.#at(now, s => {
      switch (frame.type) {
        case 'get':
          return onGet(s, from, frame)
        case 'pages':
          return onPages(s, from, frame.metas, true, frame.kept && s.self === HOME)
        case 'push':
          return onPages(s, from, frame.metas, false, false)
        case 'drop':
          return onDrop(s, frame)
        case 'owner':
          return onOwnerNote(s, from, frame)
      }
    })
  }

  /** When a `timer` effect asked for it, or whenever. */
  onTime(now: Micros): Effects {
    return this.#at(now, retryHeld)
  }

  /** May the page leave to make room? */
  mayLeave(page: PageNumber, now: Micros): boolean {
    const s = this.#state
    s.now = now
    const entry = s.peek(page)
    return entry.state === 'resident' && !entry.pinned && !entry.offered && s.heldUntil(page) === undefined
  }

  /** Makes room: those of `pages` that may leave go to another node or to the disk, those with a copy elsewhere there. */
  evict(pages: readonly PageNumber[], to: NodeIndex | 'disk', now: Micros): Effects {
    return this.#at(now, s => {
      const leaving = [...new Set(pages)].filter(page => this.mayLeave(page, now)).sort((a, b) => a - b)
      const rest = offer(s, leaving)
      if (to !== 'disk') return this.#push(to, rest, true)
      for (const page of rest) s.remove(s.entry(page), 'spilled')
    })
  }

  /** Distinct pages that go ahead of a jump. */
  ship(pages: readonly PageNumber[], to: NodeIndex, now: Micros): Effects {
    return this.#at(now, s => {
      const here = (page: PageNumber) => s.peek(page).state === 'resident' && !s.peek(page).pinned
      this.#push(to, pages.filter(here), false)
    })
  }

  #push(to: NodeIndex, pages: readonly PageNumber[], bulk: boolean): void {
    const s = this.#state
    invariant(s.isUp(to), `pages go to node ${to}, to which there is no lane`)
    if (pages.length === 0) return
    const metas: PageMeta[] = pages.map(page => give(s, to, page))
    s.send(to, bulk, { type: 'push', metas })
  }

  /** Home: asks for what `node` owns, in part. `room`: for so many pages more there is some. */
  fetchFrom(node: NodeIndex, now: Micros, room = FETCH_PAGES_MAX): Effects {
    return this.#at(now, s => {
      if (s.expectedPages >= FETCH_PAGES_MAX / 2) return
      const there: PageNumber[] = []
      for (const [page, entry] of s.pages)
        if (entry.state === 'remote' && entry.where === node) there.push(page)
      there.sort((a, b) => a - b)
      const most = Math.min(FETCH_PAGES_MAX, s.expectedPages + room)
      let run: PageNumber[] = []
      const flush = () => {
        if (run[0] !== undefined) ask(s, { known: node, asked: node }, run, run[0], false)
        run = []
      }
      for (const page of there) {
        if (s.expectedPages + run.length >= most) break
        if (run.length >= FETCH_PAGES || (run.at(-1) ?? page - 1) + 1 !== page) flush()
        run.push(page)
      }
      flush()
    })
  }

  /** Home: contents of [first, end) end everywhere. */
  forget(first: PageNumber, end: PageNumber, now: Micros): Effects {
    invariant(this.self === HOME, 'only home ends pages')
    return this.#at(now, s => forget(s, first, end))
  }

  /** Home: the page stays here once it has come; `watched` tells when. */
  pin(page: PageNumber, now: Micros): Effects {
    return this.#at(now, s => pin(s, page))
  }

  unpin(page: PageNumber, now: Micros): Effects {
    return this.#at(now, s => {
      s.entry(page).pinned = false
      retryDeferred(s, page)
    })
  }

  /** Lenders: copies give up their room. */
  discardCopies(): void {
    const s = this.#state
    for (const entry of s.pages.values()) if (entry.state === 'copied') s.remove(entry, 'remote')
  }

  /** The number in a page that is here. */
  read(page: PageNumber): number {
    const { state, contents } = this.page(page)
    invariant(state === 'resident', `page ${page} is read and is ${state}`)
    return contents
  }

  /** A thread here writes; false: the page is protected (`onProtectedWrite`). */
  write(page: PageNumber, contents: number): boolean {
    const entry = this.#state.entry(page)
    invariant(entry.state === 'resident', `page ${page} is written to and is ${entry.state}`)
    if (entry.copyAt !== HOME) return false
    entry.contents = contents
    return true
  }

  #at(now: Micros, change: (s: State) => void): Effects {
    this.#state.now = now
    change(this.#state)
    return this.#state.takeEffects()
  }
}
