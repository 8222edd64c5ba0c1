/**
 * What the nodes of a process tell each other about the pages they own, so that a participant whose thread misses a page
 * asks the node that has it straight away. Pure; one per agent.
 *
 * Told by all, home included, to the participants other than home, which alone use it: home hears of every move anyhow.
 * Said again when an eighth of it has changed, and else now and then, because a pager may have begun anew. What is
 * told is old when it arrives, and may be a lie: it costs a question to the wrong node and nothing else, so no more is
 * asked of it here than that it is of a process that runs here, comes from a member of it, and not too often.
 *
 * Limits: one message has 8 processes, each at most 64 ranges; of what others say only when it came is kept here, for
 * at most the 64 nodes of each process that runs here.
 */

import { areOwnedRanges, type OwnedRange } from '../../kmod/ownership/hints.js'
import type { PeerId, ProcessId } from './types.js'

export const SUMMARIES_MAX = 8
/** How often a pager is asked, times a number around 1: more rarely where many are told, to stay below 1 % of a CPU. */
const ASK_MS = 2_000
const ASK_MS_PER_RECEIVER = 100
/** One that has not answered by then is asked anew: its connection may have broken. */
const UNANSWERED_MS = 60_000
const TELL_AGAIN_MS = 15_000
/** What was not said again in this time does not count any more. */
const FORGET_MS = 40_000
const HEAR_MS = 250
const CHANGED_SHARE = 8
const HOME_NODE = 0

/** A pager of this agent, and the other nodes of its process. */
export interface Stretched {
  readonly processId: ProcessId
  readonly node: number
  readonly members: readonly { readonly node: number; readonly peer: PeerId }[]
}

/** What a node owns of a process: the largest ranges of neighbouring pages, ascending. */
export interface OwnedSummary {
  readonly processId: ProcessId
  readonly ranges: readonly OwnedRange[]
}

export type OwnershipEvent =
  /** `chance`: around 1, drawn anew each time, so that agents do not all speak at once. */
  | { readonly kind: 'tick'; readonly here: readonly Stretched[]; readonly chance: number }
  /** A pager has answered. */
  | ({ readonly kind: 'owned' } & OwnedSummary)
  | { readonly kind: 'heard'; readonly peer: PeerId; readonly summaries: readonly OwnedSummary[] }

export type OwnershipEffect =
  /** Have the pager say what it owns. */
  | { readonly kind: 'ask'; readonly processId: ProcessId }
  | { readonly kind: 'tell'; readonly peer: PeerId; readonly summaries: readonly OwnedSummary[] }
  /** The pager may use this; it replaces what it was given of that node before. */
  | ({ readonly kind: 'hint'; readonly node: number } & OwnedSummary)

interface Record {
  here: Stretched
  askAt: number
  askedAt: number | undefined
  /** What is to be told, and whom it was told and when. */
  owned: readonly OwnedRange[]
  isNews: boolean
  told: Set<PeerId>
  toldAt: number
  /** What it was when it was told. */
  toldRanges: readonly OwnedRange[]
  readonly heardAt: Map<number, number>
}

export class OwnershipGossip {
  readonly #records = new Map<ProcessId, Record>()

  onEvent(event: OwnershipEvent, now: number): OwnershipEffect[] {
    switch (event.kind) {
      case 'tick':
        return this.#onTick(event.here, event.chance, now)
      case 'owned':
        this.#onOwned(event)
        return []
      case 'heard':
        return event.summaries.flatMap(summary => this.#onHeard(event.peer, summary, now))
    }
  }

  #onTick(here: readonly Stretched[], chance: number, now: number): OwnershipEffect[] {
    const ids = new Set(here.map(({ processId }) => processId))
    for (const id of this.#records.keys()) if (!ids.has(id)) this.#records.delete(id)
    const told = here.reduce((sum, each) => sum + receivers(each).length, 0)
    const askMs = Math.max(ASK_MS, ASK_MS_PER_RECEIVER * told) * chance
    const effects: OwnershipEffect[] = []
    const news = new Map<PeerId, OwnedSummary[]>()
    for (const each of here) {
      const record = this.#record(each, now + askMs)
      effects.push(...this.#forget(record, now))
      this.#tell(record, news, now)
      const isAsked = record.askedAt !== undefined && now - record.askedAt < UNANSWERED_MS
      if (isAsked || now < record.askAt || receivers(each).length === 0) continue
      record.askedAt = now
      record.askAt = now + askMs
      effects.push({ kind: 'ask', processId: each.processId })
    }
    for (const [peer, all] of news)
      for (let i = 0; i < all.length; i += SUMMARIES_MAX)
        effects.push({ kind: 'tell', peer, summaries: all.slice(i, i + SUMMARIES_MAX) })
    return effects
  }

  #record(here: Stretched, askAt: number): Record {
    const known = this.#records.get(here.processId)
    if (known !== undefined) {
      known.here = here
      return known
    }
    const nothing = { owned: [], isNews: false, told: new Set<PeerId>(), toldAt: 0, toldRanges: [] }
    const record = { ...nothing, here, askAt, askedAt: undefined, heardAt: new Map<number, number>() }
    this.#records.set(here.processId, record)
    return record
  }

  #onOwned({ processId, ranges }: OwnedSummary): void {
    const record = this.#records.get(processId)
    if (record === undefined || !areOwnedRanges(ranges)) return
    record.askedAt = undefined
    record.owned = ranges
    record.isNews = hasChanged(record.toldRanges, ranges)
  }

  #tell(record: Record, news: Map<PeerId, OwnedSummary[]>, now: number): void {
    const { owned: ranges } = record
    const isDue = now - record.toldAt >= TELL_AGAIN_MS && (ranges.length > 0 || record.toldRanges.length > 0)
    if (record.isNews || isDue) {
      record.told.clear()
      record.isNews = false
      record.toldAt = now
      record.toldRanges = ranges
    } else if (record.toldRanges.length === 0) {
      return
    }
    const { processId } = record.here
    for (const { peer } of receivers(record.here)) {
      if (record.told.has(peer)) continue
      record.told.add(peer)
      news.set(peer, [...(news.get(peer) ?? []), { processId, ranges: record.toldRanges }])
    }
  }

  #onHeard(peer: PeerId, { processId, ranges }: OwnedSummary, now: number): OwnershipEffect[] {
    const record = this.#records.get(processId)
    if (record === undefined || record.here.node === HOME_NODE || !areOwnedRanges(ranges)) return []
    const from = record.here.members.find(member => member.peer === peer)
    if (from === undefined) return []
    const { node } = from
    if (now - (record.heardAt.get(node) ?? Number.NEGATIVE_INFINITY) < HEAR_MS) return []
    record.heardAt.set(node, now)
    return [{ kind: 'hint', processId, node, ranges }]
  }

  #forget({ here, heardAt }: Record, now: number): OwnershipEffect[] {
    const { processId } = here
    const old = [...heardAt].filter(([, at]) => now - at > FORGET_MS).map(([node]) => node)
    for (const node of old) heardAt.delete(node)
    return old.map(node => ({ kind: 'hint', processId, node, ranges: [] }))
  }
}

function receivers({ members }: Stretched): Stretched['members'] {
  return members.filter(({ node }) => node !== HOME_NODE)
}

function hasChanged(before: readonly OwnedRange[], after: readonly OwnedRange[]): boolean {
  const both = countOf(before) + countOf(after)
  const different = both - 2 * shared(before, after)
  return different > 0 && different * CHANGED_SHARE >= both
}

function countOf(ranges: readonly OwnedRange[]): number {
  return ranges.reduce((sum, { pages }) => sum + pages, 0)
}

/** Pages that are in both; each list is ascending. */
function shared(a: readonly OwnedRange[], b: readonly OwnedRange[]): number {
  let pages = 0
  for (let i = 0, k = 0; ; ) {
    const [one, other] = [a[i], b[k]]
    if (one === undefined || other === undefined) return pages
    const [oneEnd, otherEnd] = [one.first + one.pages, other.first + other.pages]
    pages += Math.max(0, Math.min(oneEnd, otherEnd) - Math.max(one.first, other.first))
    if (oneEnd <= otherEnd) i++
    else k++
  }
}
