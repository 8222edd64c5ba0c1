/**
 * The lender's side of leases under random sequences of events: never more is promised than there is, and every offer
 * ends.
 */

import test from 'ava'
import fc from 'fast-check'
import { lendablePages } from '../../../agent/executor/capacity.js'
import {
  AHEAD_PAGES_MIN,
  GRANT_PAGES_MIN,
  LeaseLender,
  type LenderEffect,
  type LenderEvent,
  type Offer,
} from '../../../agent/machines/lease-lender.js'
import { PressureLimit } from '../../../agent/machines/pressure.js'
import type { PeerId, ProcessId } from '../../../agent/machines/types.js'
import { FACTS } from '../fake-pagers.js'

const RUNS = { numRuns: 300 }
const peers = ['p1', 'p2', 'p3', 'p4', 'p5'] as PeerId[]
const ids = ['a', 'b', 'c', 'd'].map(letter => letter.repeat(16)) as ProcessId[]

const anyPeer = fc.constantFrom(...peers)
const anyId = fc.constantFrom(...ids)

function offerOf(processId: ProcessId, leaseId: number, pages: number, epoch = 1): Offer {
  const names = { program: 'sort', homeName: 'home', facts: FACTS }
  return { processId, leaseId, node: 1, epoch, pages, threads: 64, ...names }
}

const lenderEvent: fc.Arbitrary<LenderEvent> = fc.oneof(
  fc
    .record({ peer: anyPeer, id: anyId, pages: fc.nat(5000), epoch: fc.nat(2), allowed: fc.boolean() })
    .map(({ peer, id, pages, epoch, allowed }) => {
      const offer = offerOf(id, peers.indexOf(peer), pages, epoch)
      return { kind: 'offer', peer, offer, allowed: allowed || pages > 100 } as const
    }),
  anyId.map(processId => ({ kind: 'pager-started', processId }) as const),
  anyId.map(processId => ({ kind: 'pager-failed', processId, message: 'no' }) as const),
  anyId.map(processId => ({ kind: 'pager-gone', processId }) as const),
  anyId.map(processId => ({ kind: 'lane-up', processId }) as const),
  fc
    .record({ peer: anyPeer, processId: anyId, homeEnded: fc.boolean() })
    .map(release => ({ kind: 'release', leaseId: peers.indexOf(release.peer), ...release }) as const),
  fc.nat(8000).map(pages => ({ kind: 'capacity', pages }) as const),
  fc
    .record({ processId: anyId, residentPages: fc.nat(8000) })
    .map(usage => ({ kind: 'usage', ...usage }) as const),
  fc.constant({ kind: 'tick' } as const),
)

test('a lender never promises more pages or threads than it has, and every offer ends once', t => {
  fc.assert(
    fc.property(fc.array(fc.tuple(lenderEvent, fc.nat(3_000)), { maxLength: 80 }), events => {
      const lender = new LeaseLender(FACTS, 6_000)
      const pending = new Set<ProcessId>()
      let now = 0
      for (const [event, delayMs] of events) {
        now += delayMs
        const before = lender.leases().reduce((sum, lease) => sum + lease.pages, 0)
        const effects = lender.onEvent(event, now)
        const promised = lender.leases().reduce((sum, lease) => sum + lease.pages, 0)
        if (promised > Math.max(before, lender.capacityPages)) return false
        if (event.kind === 'offer' && promised > before && promised > lender.capacityPages) return false
        if (lender.leases().reduce((sum, lease) => sum + lease.threads, 0) > 256) return false
        if (!trackOffers(event, effects, pending)) return false
      }
      return lender.leases().every(lease => lease.state !== 'starting' || pending.has(lease.processId))
    }),
    RUNS,
  )
  t.pass()
})

/** Each offer is answered at once or starts a pager; each started one is then granted, refused or released. */
function trackOffers(event: LenderEvent, effects: LenderEffect[], pending: Set<ProcessId>): boolean {
  if (event.kind === 'offer') {
    if (effects.length !== 1) return false
    if (effects[0]?.kind === 'start-pager') {
      if (pending.has(event.offer.processId)) return false
      pending.add(event.offer.processId)
      return true
    }
    return effects[0]?.kind === 'refuse'
  }
  for (const effect of effects) {
    if (effect.kind === 'grant' && !pending.delete(effect.lease.processId)) return false
    if (effect.kind === 'refuse' && !pending.delete(effect.processId)) return false
  }
  if (event.kind === 'pager-gone' || event.kind === 'pager-failed') pending.delete(event.processId)
  return true
}

const CAPACITY = 1 << 18
const WANTED = 1 << 26

/** Lends to `processId`; its pager and lane come up. */
function lend(lender: LeaseLender, processId: ProcessId): LenderEffect[] {
  const offer = offerOf(processId, 1, WANTED)
  const effects = lender.onEvent({ kind: 'offer', peer: 'p1' as PeerId, offer, allowed: true }, 0)
  lender.onEvent({ kind: 'pager-started', processId }, 0)
  lender.onEvent({ kind: 'lane-up', processId }, 0)
  return effects
}

/** The process fills what it is given, `share` of it at a time, until it is given no more. */
function fill(lender: LeaseLender, processId: ProcessId, share: number, roundsMax = 1000): number {
  let pages = 0
  for (let round = 0; round < roundsMax; round++) {
    pages = lender.lease(processId)?.pages ?? 0
    const residentPages = Math.ceil(pages * share)
    const effects = lender.onEvent({ kind: 'usage', processId, residentPages }, 0)
    if (effects.length === 0 && share === 1) break
    for (const effect of effects) if (effect.kind !== 'update' || effect.terms.pages <= pages) return -1
  }
  return lender.lease(processId)?.pages ?? 0
}

test('one big run ends up with nearly everything, in few steps', t => {
  const lender = new LeaseLender(FACTS, CAPACITY)
  const [id = '' as ProcessId] = ids
  lend(lender, id)
  t.is(lender.lease(id)?.pages, CAPACITY / 4)
  t.true(fill(lender, id, 1, 30) >= (CAPACITY * 15) / 16 - GRANT_PAGES_MIN)
})

test('several runs at once each get room, whatever the others have filled', t => {
  const step = fc.record({ id: anyId, percent: fc.integer({ min: 1, max: 100 }) })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), steps => {
      const lender = new LeaseLender(FACTS, CAPACITY)
      for (const { id, percent } of steps) {
        if (lender.lease(id) === undefined) lend(lender, id)
        if ((lender.lease(id)?.pages ?? 0) < GRANT_PAGES_MIN) return false
        if (fill(lender, id, percent / 100, 50) < 0) return false
        if (lender.promised.promisedPages > CAPACITY) return false
      }
      return true
    }),
    RUNS,
  )
  t.pass()
})

test('a lease that shrank with the capacity grows back when there is room again', t => {
  const lender = new LeaseLender(FACTS, CAPACITY)
  const [id = '' as ProcessId] = ids
  lend(lender, id)
  const had = fill(lender, id, 1)
  const [update] = lender.onEvent({ kind: 'capacity', pages: CAPACITY / 8 }, 0)
  t.like(update, { kind: 'update', terms: { pages: CAPACITY / 8 } })
  t.deepEqual(lender.onEvent({ kind: 'usage', processId: id, residentPages: CAPACITY / 8 }, 0), [])
  lender.onEvent({ kind: 'capacity', pages: CAPACITY }, 0)
  t.true(fill(lender, id, 1) >= had - GRANT_PAGES_MIN)
})

test('a lease whose pager is just being started shrinks with the capacity, too', t => {
  const lender = new LeaseLender(FACTS, 6_000)
  const [first = '' as ProcessId, second = '' as ProcessId] = ids
  lend(lender, first)
  lender.onEvent({ kind: 'offer', peer: 'p2' as PeerId, offer: offerOf(second, 2, 6_000), allowed: true }, 0)
  const updates = lender.onEvent({ kind: 'capacity', pages: 3_000 }, 0)
  t.is(updates.length, 1, 'nothing was granted to the other yet')
  const [grant] = lender.onEvent({ kind: 'pager-started', processId: second }, 1)
  t.like(grant, { kind: 'grant', terms: { pages: lender.lease(second)?.pages } })
  t.true(lender.promised.promisedPages <= 3_000)
})

test('what is promised and not yet used is not available a second time', t => {
  const memory = { availablePages: 1000, totalPages: 1600, isStalling: false }
  const lendable = (allowedPages: number, promisedPages: number, residentPages: number, now = memory) =>
    lendablePages(allowedPages, { promisedPages, residentPages }, now, false)
  t.is(lendable(5000, 0, 0), 900)
  t.is(lendable(5000, 900, 0), 900)
  t.is(lendable(5000, 900, 400, { ...memory, availablePages: 600 }), 900)
  t.is(lendable(300, 0, 0), 300)
  t.is(lendable(5000, 900, 800, { ...memory, availablePages: 20 }), 675)
  const waitedFor = { ...memory, availablePages: 300, isStalling: true }
  t.is(lendable(5000, 900, 800, waitedFor), 675)
  t.is(lendable(5000, 900, 800, { ...waitedFor, isStalling: false }), 1000)
})

/** A machine on which a lender and a run of its own are, each as far as it may be. */
function sharedWithGuests(taken: (second: number) => number, needs: number, seconds: number) {
  const total = 4_000_000
  const machine = new PressureLimit()
  let limitPages = 100_000
  let promisedPages = 0
  let available = total
  for (let second = 0; second < seconds; second++) {
    const residentPages = Math.min(needs, limitPages)
    available = Math.max(0, total - taken(second) - residentPages - promisedPages)
    const memory = { availablePages: available, totalPages: total, isStalling: false }
    const lent = { promisedPages, residentPages: promisedPages }
    if (second % 5 === 0) promisedPages = lendablePages(total, lent, memory, true)
    limitPages = machine.onSample({ ...memory, residentPages, limitPages }, second * 1000) ?? limitPages
  }
  return { limitPages, promisedPages, available }
}

test("a machine's own run comes before what is lent: it grows into that, and does not give way to it", t => {
  const grown = sharedWithGuests(() => 500_000, 10_000_000, 300)
  t.true(grown.limitPages > 2_500_000 && grown.promisedPages < 10_000, JSON.stringify(grown))
  const needs = 1_000_000
  const beside = sharedWithGuests(() => 500_000, needs, 300)
  t.true(beside.promisedPages > 1_500_000 && beside.limitPages > 0.95 * needs, JSON.stringify(beside))
  const squeezed = sharedWithGuests(second => (second < 150 ? 500_000 : 2_000_000), needs, 300)
  t.true(squeezed.limitPages > 0.95 * needs && squeezed.available >= 500_000, JSON.stringify(squeezed))
})

test('a lender that is stopping refuses all and revokes what it has lent', t => {
  const lender = new LeaseLender(FACTS, 6_000)
  const [first = '' as ProcessId, second = '' as ProcessId] = ids
  lender.onEvent({ kind: 'offer', peer: 'p1' as PeerId, offer: offerOf(first, 1, 1000), allowed: true }, 0)
  lender.onEvent({ kind: 'pager-started', processId: first }, 0)
  const [update] = lender.onEvent({ kind: 'stopping' }, 1)
  t.like(update, { kind: 'update', terms: { ttlMs: 0 } })
  const held = lender.lease(first)
  t.is(held && lender.termsNow(held).ttlMs, 0, 'a home that joins now is told the same')
  const offer = offerOf(second, 2, 1000)
  const [refuse] = lender.onEvent({ kind: 'offer', peer: 'p1' as PeerId, offer, allowed: true }, 2)
  t.like(refuse, { kind: 'refuse', refusal: { code: 'shutting-down' } })
})

test('pagers that do not end are told, then killed; memory counts until they are gone', t => {
  const lender = new LeaseLender(FACTS, 6_000)
  const [id = '' as ProcessId] = ids
  const peer = 'p1' as PeerId
  lender.onEvent({ kind: 'offer', peer, offer: offerOf(id, 1, 9_000), allowed: true }, 0)
  lender.onEvent({ kind: 'pager-started', processId: id }, 0)
  t.is(lender.freePages, 6_000 - AHEAD_PAGES_MIN)
  t.deepEqual(lender.onEvent({ kind: 'tick' }, 9_999), [])
  t.like(lender.onEvent({ kind: 'tick' }, 10_000), [{ kind: 'terminate', reason: 'no lane came up' }])
  t.deepEqual(lender.onEvent({ kind: 'tick' }, 12_999), [])
  t.deepEqual(lender.onEvent({ kind: 'tick' }, 13_000), [{ kind: 'kill', processId: id }])
  t.deepEqual(lender.onEvent({ kind: 'tick' }, 20_000), [])
  t.is(lender.freePages, 6_000 - AHEAD_PAGES_MIN)
  lender.onEvent({ kind: 'pager-gone', processId: id }, 20_001)
  t.is(lender.freePages, 6_000)
})

test('a lease released while its pager starts ends that pager as soon as it is up', t => {
  const lender = new LeaseLender(FACTS, 6_000)
  const [id = '' as ProcessId] = ids
  const peer = 'p1' as PeerId
  lender.onEvent({ kind: 'offer', peer, offer: offerOf(id, 1, 1_000), allowed: true }, 0)
  lender.onEvent({ kind: 'release', peer, processId: id, leaseId: 1, homeEnded: false }, 1)
  lender.onEvent({ kind: 'tick' }, 2)
  t.like(lender.onEvent({ kind: 'pager-started', processId: id }, 4_000), [{ kind: 'terminate' }])
  t.like(lender.onEvent({ kind: 'tick' }, 7_000), [{ kind: 'kill' }])
})

test('a released pager ends by itself first; one whose home is known to have ended is told at once', t => {
  const lender = new LeaseLender(FACTS, 20_000)
  const [cutOff = '' as ProcessId, orphan = '' as ProcessId] = ids
  const peer = 'p1' as PeerId
  const release = { kind: 'release', peer, leaseId: 1 } as const
  for (const id of [cutOff, orphan]) {
    lender.onEvent({ kind: 'offer', peer, offer: offerOf(id, 1, 1_000), allowed: true }, 0)
    lender.onEvent({ kind: 'pager-started', processId: id }, 0)
    lender.onEvent({ kind: 'lane-up', processId: id }, 0)
    t.deepEqual(lender.onEvent({ ...release, processId: id, homeEnded: false }, 1), [])
  }
  const ended = { ...release, processId: orphan, homeEnded: true }
  t.deepEqual(lender.onEvent({ ...ended, peer: 'p2' as PeerId }, 2), [], 'only by its own home')
  t.like(lender.onEvent(ended, 2), [{ kind: 'terminate', processId: orphan }])
  t.deepEqual(lender.onEvent(ended, 3), [], 'once')
  t.like(lender.onEvent({ kind: 'tick' }, 3_100), [{ kind: 'kill', processId: orphan }])
  t.like(lender.onEvent({ kind: 'tick' }, 4_100), [{ kind: 'terminate', processId: cutOff }])
})

test('leases that an agent finds when it comes back are more than it lends: with the next tick they fit, and are told once', t => {
  const lender = new LeaseLender(FACTS, 6_000)
  for (const [i, pages] of [4_500, 1_600].entries()) {
    const known = {
      program: 'sort',
      homeName: 'home',
      node: 1,
      residentPages: 0,
      threads: 64,
      state: 'active',
    } as const
    const whose = { peer: peers[i] as PeerId, processId: ids[i] as ProcessId, leaseId: i }
    lender.onEvent({ kind: 'restored', lease: { ...known, ...whose, pages, pagesMax: 6_000 }, epoch: 1 }, 0)
  }
  const effects = lender.onEvent({ kind: 'tick' }, 500)
  t.deepEqual(
    effects.map(effect => effect.kind),
    ['update', 'update'],
  )
  t.true(lender.promised.promisedPages <= 6_000)
  t.deepEqual(lender.onEvent({ kind: 'tick' }, 1_000), [])
})
