/** Agreement on lanes between participants under crossing, loss and delay; membership over time. */

import test from 'ava'
import fc from 'fast-check'
import { LaneAgreement, type LaneEffect, type LaneEvent } from '../../../agent/machines/lane-agreement.js'
import { type Load, Membership } from '../../../agent/machines/membership.js'
import type { PeerId } from '../../../agent/machines/types.js'

const [B, C] = ['peer-b', 'peer-c'] as PeerId[] as [PeerId, PeerId]
const members = [
  { node: 1, name: 'b', peer: B },
  { node: 2, name: 'c', peer: C },
]
const terms = { pages: 10, threads: 1, ttlMs: 10_000 }

interface Side {
  readonly machine: LaneAgreement
  readonly peer: PeerId
  readonly node: number
  readonly inbox: LaneEvent[]
  accepted?: number
  dialled?: number
  refused: number
}

function side(node: number, peer: PeerId): Side {
  const machine = new LaneAgreement(node)
  machine.onEvent({ kind: 'members', members }, 0)
  return { machine, peer, node, inbox: [], refused: 0 }
}

/** Puts what `from` says into the other's inbox, unless it is lost. */
function deliver(from: Side, to: Side, effects: LaneEffect[], lost: boolean): void {
  const { peer, node } = from
  for (const effect of effects) {
    if (effect.kind === 'dial') from.dialled = effect.leaseId
    if (effect.kind === 'lane-refused') from.refused++
    if (effect.kind === 'accept') from.accepted = effect.leaseId
    if (lost) continue
    const { leaseId } = 'leaseId' in effect ? effect : { leaseId: 0 }
    if (effect.kind === 'ask') to.inbox.push({ kind: 'asked', peer, node, leaseId })
    if (effect.kind === 'accept') to.inbox.push({ kind: 'agreed', peer, leaseId, terms, host: '', port: 1 })
    if (effect.kind === 'refuse') to.inbox.push({ kind: 'refused', peer, leaseId, refusal: effect.refusal })
  }
}

test('two participants agree on one lane however their asks cross; with loss both are told in time', t => {
  const order = fc.array(fc.record({ first: fc.boolean(), lose: fc.nat(5) }), { minLength: 8, maxLength: 30 })
  fc.assert(
    fc.property(order, fc.boolean(), (steps, lossy) => {
      const [b, c] = [side(1, B), side(2, C)]
      deliver(b, c, b.machine.onEvent({ kind: 'wanted', node: 2, leaseId: 100 }, 0), false)
      deliver(c, b, c.machine.onEvent({ kind: 'wanted', node: 1, leaseId: 200 }, 0), false)
      let lostAny = false
      const take = (who: Side, other: Side, lose: boolean) => {
        const event = who.inbox.shift()
        if (event === undefined) return
        lostAny ||= lose
        deliver(who, other, who.machine.onEvent(event, 1), lose)
      }
      for (const { first, lose } of steps) take(first ? b : c, first ? c : b, lossy && lose === 0)
      for (let i = 0; i < 20; i++) {
        take(b, c, false)
        take(c, b, false)
      }
      for (const [who, other] of [
        [b, c],
        [c, b],
      ] as const) {
        deliver(who, other, who.machine.onEvent({ kind: 'tick' }, 10_000), true)
      }
      if (lostAny) return [b, c].every(one => one.refused + Number(one.dialled ?? one.accepted ?? 0) > 0)
      return b.dialled === 100 && c.accepted === 100 && c.dialled === undefined && b.accepted === undefined
    }),
    { numRuns: 300 },
  )
  t.pass()
})

test('who is no participant is refused; an unknown node is refused to the pager', t => {
  const { machine } = side(1, B)
  const stranger = 'peer-x' as PeerId
  t.like(machine.onEvent({ kind: 'asked', peer: stranger, node: 2, leaseId: 1 }, 0), [
    { kind: 'refuse', refusal: { code: 'not-allowed' } },
  ])
  t.like(machine.onEvent({ kind: 'wanted', node: 3, leaseId: 1 }, 0), [{ kind: 'lane-refused' }])
  t.like(machine.onEvent({ kind: 'wanted', node: 1, leaseId: 1 }, 0), [{ kind: 'lane-refused' }])
})

function load(more: Partial<Load> = {}): Load {
  const room = { freePages: 10, capacityPages: 10, cpus: 1, processes: 0 }
  return { name: 'n', incarnation: 1, sequence: 1, addresses: [], nextMs: 1_000, ...room, ...more }
}

test('a silent member is suspected, one that speaks again is back, one without a stream is forgotten', t => {
  const membership = new Membership()
  membership.onEvent({ kind: 'joined', peer: B, load: load(), host: '127.0.0.1' }, 0)
  t.deepEqual(membership.onEvent({ kind: 'tick' }, 3_400), [])
  t.deepEqual(membership.onEvent({ kind: 'tick' }, 3_600), [
    { kind: 'unavailable', peer: B, why: 'suspected' },
  ])
  t.is(membership.member(B)?.state, 'suspected')
  t.deepEqual(membership.onEvent({ kind: 'load', peer: B, load: load() }, 3_700), [], 'an old message')
  t.like(membership.onEvent({ kind: 'load', peer: B, load: load({ sequence: 2 }) }, 3_800), [
    { kind: 'available' },
  ])
  t.like(membership.onEvent({ kind: 'lost', peer: B }, 4_000), [{ why: 'suspected' }])
  t.deepEqual(membership.onEvent({ kind: 'load', peer: B, load: load({ sequence: 3 }) }, 4_001), [])
  t.like(membership.onEvent({ kind: 'tick' }, 40_000), [{ why: 'forgotten' }])
  t.deepEqual(membership.members(), [])
})

test('a load is news when there is something else to lend, or the peer was suspected; silence counts from the last one', t => {
  const membership = new Membership()
  const hear = (more: Partial<Load>, now: number) =>
    membership.onEvent({ kind: 'load', peer: B, load: load(more) }, now)
  const tick = (now: number) => membership.onEvent({ kind: 'tick' }, now)
  membership.onEvent({ kind: 'joined', peer: B, load: load(), host: 'h' }, 0)
  t.deepEqual(hear({ sequence: 2 }, 3_000), [])
  t.is(membership.member(B)?.load.sequence, 2)
  t.like(hear({ sequence: 3, freePages: 7 }, 3_100), [
    { kind: 'available', member: { load: { freePages: 7 } } },
  ])
  t.deepEqual(tick(6_500), [])
  t.like(tick(6_700), [{ why: 'suspected' }])
  t.like(hear({ sequence: 4, freePages: 7 }, 6_800), [{ kind: 'available' }])
  t.deepEqual(hear({ sequence: 5, freePages: 7, nextMs: 100 }, 6_900), [], 'the next one is due sooner')
  t.like(tick(7_300), [{ why: 'suspected' }])
})

test('a peer whose clock went back is believed on its own stream', t => {
  const membership = new Membership()
  membership.onEvent({ kind: 'joined', peer: B, load: load({ incarnation: 9, sequence: 5 }), host: 'h' }, 0)
  membership.onEvent({ kind: 'joined', peer: B, load: load({ incarnation: 3, freePages: 4 }), host: 'h' }, 1)
  t.is(membership.member(B)?.load.freePages, 4)
  const next = load({ incarnation: 3, sequence: 2, freePages: 5 })
  t.like(membership.onEvent({ kind: 'load', peer: B, load: next }, 2), [{ kind: 'available' }])
})

test('who leaves is gone at once; tables are bounded', t => {
  const membership = new Membership()
  membership.onEvent({ kind: 'joined', peer: B, load: load(), host: 'h' }, 0)
  t.like(membership.onEvent({ kind: 'leaving', peer: B }, 1), [{ why: 'leaving' }])
  membership.onEvent({ kind: 'lost', peer: B }, 2)
  t.deepEqual(membership.members(), [])
  for (let i = 0; i < 2_000; i++) {
    const stranger = { id: `s${i}`, name: 'x', address: 'a', remedy: 'r' }
    membership.onEvent({ kind: 'stranger', stranger }, i)
    membership.onEvent({ kind: 'joined', peer: `p${i}` as PeerId, load: load(), host: '' }, i)
  }
  t.is(membership.strangers().length, 256)
  t.is(membership.members().length, 1024)
  membership.onEvent({ kind: 'tick' }, 32_001)
  t.is(membership.strangers().length, 0)
})

test('ten new strangers a minute are told one by one, the others in one line', t => {
  const membership = new Membership()
  const strangers = (from: number, now: number) =>
    Array.from({ length: 600 }, (_, i) => {
      const stranger = { id: `s${from + i}`, name: 'x', address: 'a', remedy: 'r' }
      return membership.onEvent({ kind: 'stranger', stranger }, now + i).map(effect => effect.kind)
    }).flat()
  const told = [...Array(10).fill('new-stranger'), 'more-strangers']
  t.deepEqual(strangers(0, 0), told)
  t.deepEqual(strangers(1_000, 50_000), [])
  t.deepEqual(strangers(2_000, 60_000), told)
})
