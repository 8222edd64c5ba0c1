/** What a simulated pager says that it owns, and what it is told of others: kmod/pager/src/owned_summary.cpp. */

import type { PagerCommand } from '../../agent/executor/pagers.js'
import { OWNED_RANGES_MAX, type OwnedRange } from '../../kmod/ownership/hints.js'
import type { Ownership } from '../../kmod/ownership/ownership.js'
import type { NodeIndex } from '../../placement/ids.js'
import type { SimPager } from './pager.js'

const BIRTH = 2 ** 32
/** Lies are about the first pages of all. */
const LIE_PAGES = 400

export function obeyOwnership(pager: SimPager, command: PagerCommand): void {
  if (command.kind === 'hints') pager.ownership.onHints(command.node as NodeIndex, command.ranges)
  if (command.kind !== 'owned-request') return
  const { policy, jumpEvery, program } = pager.process.plan
  const mayJump = policy.name !== 'always-pull' || jumpEvery > 0
  const lie = [{ first: program.first, pages: LIE_PAGES, birth: BIRTH - 1, moves: 0 }]
  const told = pager.site.planted === 'lies-about-pages' ? lie : largestOwned(pager.ownership)
  pager.emit({ kind: 'owned', ranges: mayJump ? told : [] })
}

/** The largest ranges of neighbouring pages that are here, ascending, each with the least version of them. */
export function largestOwned(ownership: Ownership): OwnedRange[] {
  const here = [...ownership.pages].filter(([, { state }]) => state === 'resident' || state === 'spilled')
  const all: { first: number; pages: number; version: number }[] = []
  for (const [page, { version }] of here.sort(([a], [b]) => a - b)) {
    const last = all.at(-1)
    if (last === undefined || last.first + last.pages !== page) {
      all.push({ first: page, pages: 1, version })
    } else {
      last.pages++
      last.version = Math.min(last.version, version)
    }
  }
  const largest = all.sort((a, b) => b.pages - a.pages).slice(0, OWNED_RANGES_MAX)
  return largest
    .sort((a, b) => a.first - b.first)
    .map(({ first, pages, version }) => {
      return { first, pages, birth: Math.floor(version / BIRTH), moves: version % BIRTH }
    })
}
