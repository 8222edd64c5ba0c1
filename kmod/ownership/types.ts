/**
 * What the rules of ownership speak of: versions, page states, frames about pages, and effects. Frames are those of
 * kmod/lane-frames.ts by what they mean, not by their bytes.
 *
 * Limits: a version is a number, so a run has at most 2^21 drops here (the pager's has 2^32). The contents of a page are
 * one number, of which 0 stands for a page of zeros.
 */

import type { Branded, NodeIndex, PageNumber } from '../../placement/ids.js'
import type { Micros } from '../../placement/units.js'

/** birth * 2^32 + moves: newer is larger, and a drop is newer than every move before it. */
export type Version = Branded<number, 'Version'>

const BIRTH = 2 ** 32

/** The version with which a page begins its life number `birth`. */
export function versionOfBirth(birth: number): Version {
  return (birth * BIRTH) as Version
}

/** The version of the next owner. */
export function moved(version: Version): Version {
  return (version + 1) as Version
}

/**
 * Untouched: never materialised as far as this node knows (home: nowhere; elsewhere: ask home). Remote: elsewhere, and
 * `where` is said to own it. In flight: asked for from `where`. Copied: given to home, and kept in case it comes back
 * unwritten.
 */
export type PageState = 'untouched' | 'resident' | 'spilled' | 'remote' | 'in-flight' | 'copied'

/** One entry of a node's table. */
export interface Page {
  state: PageState
  version: Version
  where: NodeIndex
  /** While in flight: who has it by the table; another node than the one that was asked if a hint was followed. */
  known: NodeIndex
  lastWrittenCut: number
  /** While resident, spilled or copied. */
  contents: number
  /** Never leaves this node. */
  pinned: boolean
  /** Somebody's GET waits here for it. */
  deferred: boolean
  /** This node wants to be told when it is resident. */
  watched: boolean
  /** While in flight: nobody waits for it. */
  prefetched: boolean
  /** Of home's resident pages: who keeps a copy of what it holds; home itself if nobody does. */
  copyAt: NodeIndex
  /** Its copy's keeper has been asked to take it back, and has not answered. */
  offered: boolean
}

/** One page in a PAGES or PUSH frame; what its kind does not need is 0. */
export interface PageMeta {
  readonly page: PageNumber
  readonly version: Version
  readonly lastWrittenCut: number
  readonly kind: 'data' | 'zero' | 'moved' | 'absent' | 'pinned' | 'offered'
  readonly owner: NodeIndex
  readonly contents: number
}

export type PageFrame =
  | {
      readonly type: 'get'
      readonly first: PageNumber
      readonly count: number
      /** The page that somebody waits for; the others may be refused. */
      readonly demand: PageNumber
      /** The least acceptable of `demand`. */
      readonly version: Version
      /** Copies are worth keeping. */
      readonly keep: boolean
      /** Only a hint says that the page is there: it is not waited for. */
      readonly byHint: boolean
    }
  | { readonly type: 'pages'; readonly metas: readonly PageMeta[]; readonly kept: boolean }
  | { readonly type: 'push'; readonly metas: readonly PageMeta[] }
  | {
      readonly type: 'owner'
      readonly first: PageNumber
      readonly count: number
      readonly version: Version
      readonly owner: NodeIndex
    }
  | {
      readonly type: 'drop'
      readonly first: PageNumber
      readonly count: number
      readonly version: Version
    }

/** A GET, and who sent it. */
export interface Request {
  readonly from: NodeIndex
  readonly first: PageNumber
  readonly count: number
  readonly demand: PageNumber
  readonly version: Version
  readonly keep: boolean
  readonly byHint: boolean
}

export type Effect =
  | { readonly kind: 'send'; readonly to: NodeIndex; readonly bulk: boolean; readonly frame: PageFrame }
  /** Threads that wait for the page try again. */
  | { readonly kind: 'wake'; readonly page: PageNumber }
  /** A page that was watched is resident, or ended. */
  | { readonly kind: 'watched'; readonly page: PageNumber }
  /** Threads that wait for the page cannot have it here. */
  | { readonly kind: 'go-home'; readonly page: PageNumber }
  | { readonly kind: 'want-lane'; readonly node: NodeIndex }
  /** At home: it belongs to a node that is gone, and the run ends. */
  | { readonly kind: 'lost'; readonly page: PageNumber }
  /** `onTime` is wanted then. */
  | { readonly kind: 'timer'; readonly at: Micros }

/** A stretch of elastic memory; half-open. */
export interface Region {
  readonly first: PageNumber
  readonly end: PageNumber
}

/** How many pages come with one that is missing: policy, and none of ownership's business. */
export interface Prefetch {
  /** At most `count` pages from this one on, upwards or down; 1 is the page alone. */
  plan(page: PageNumber, cause: 'first-touch' | 'spilled' | 'remote'): { count: number; down: boolean }
  /** What became of the plan. */
  fetched(first: PageNumber, count: number): void
}
