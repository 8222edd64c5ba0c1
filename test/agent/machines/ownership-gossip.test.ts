/** What an agent tells of the pages that its pagers own, and what it believes of what others tell. */

import test from 'ava'
import fc from 'fast-check'
import {
  type OwnedSummary,
  type OwnershipEffect,
  type OwnershipEvent,
  OwnershipGossip,
  type Stretched,
  SUMMARIES_MAX,
} from '../../../agent/machines/ownership-gossip.js'
import type { PeerId, ProcessId } from '../../../agent/machines/types.js'
import { areOwnedRanges, OWNED_RANGES_MAX } from '../../../kmod/ownership/hints.js'

const id = (i: number) => i.toString(16).padStart(16, '0') as ProcessId
const peer = (node: number) => `peer${node}` as PeerId
const range = (first: number, pages: number, moves = 1) => ({ first, pages, birth: 0, moves })
const of = (processId: ProcessId, ...ranges: OwnedSummary['ranges']) => ({ processId, ranges })
const process = (node: number, others: readonly number[], processId = id(1)): Stretched => {
  return { processId, node, members: others.map(other => ({ node: other, peer: peer(other) })) }
}

class Agent {
  readonly machine = new OwnershipGossip()
  now = 1_000_000

  constructor(public here: readonly Stretched[]) {}

  tick(ms = 500): OwnershipEffect[] {
    this.now += ms
    return this.feed({ kind: 'tick', here: this.here, chance: 1 })
  }

  feed(event: OwnershipEvent): OwnershipEffect[] {
    return this.machine.onEvent(event, this.now)
  }

  owns(...ranges: OwnedSummary['ranges']): void {
    this.feed({ kind: 'owned', ...of(id(1), ...ranges) })
  }
}

const kinds = (effects: readonly OwnershipEffect[]) => effects.map(({ kind }) => kind)

test('a pager is asked every two seconds, and not again before it has answered', t => {
  const agent = new Agent([process(1, [0, 2])])
  t.deepEqual(agent.tick(), [])
  t.deepEqual(kinds(agent.tick(2_000)), ['ask'])
  t.deepEqual(agent.tick(5_000), [])
  agent.owns()
  t.deepEqual(kinds(agent.tick()), ['ask'])
  t.deepEqual(agent.tick(), [])
  t.deepEqual(kinds(agent.tick(60_000)), ['ask'])
})

test('who has many to tell asks more rarely', t => {
  const agent = new Agent(Array.from({ length: 10 }, (_, i) => process(1, [0, 2, 3, 4, 5], id(i))))
  agent.tick()
  t.deepEqual(agent.tick(3_900), [])
  t.is(agent.tick(200).length, 10)
})

test('nobody is asked for the sake of home alone', t => {
  const agent = new Agent([process(1, [0])])
  agent.tick()
  t.deepEqual(agent.tick(10_000), [])
})

test('all participants but home are told, in one message each however many the processes', t => {
  const here = Array.from({ length: SUMMARIES_MAX + 1 }, (_, i) => process(1, [0, 2, 3], id(i)))
  const agent = new Agent(here)
  agent.tick()
  for (const { processId } of here) agent.feed({ kind: 'owned', ...of(processId, range(9, 3)) })
  const told = agent.tick().flatMap(effect => (effect.kind === 'tell' ? [effect] : []))
  t.deepEqual(
    told.map(tell => [tell.peer, tell.summaries.length]),
    [
      [peer(2), SUMMARIES_MAX],
      [peer(2), 1],
      [peer(3), SUMMARIES_MAX],
      [peer(3), 1],
    ],
  )
})

test('what has hardly changed is told again later, what has much at once, to who is new also what is old', t => {
  const agent = new Agent([process(0, [1])])
  const tells = (ms?: number) => agent.tick(ms).flatMap(effect => (effect.kind === 'tell' ? [effect] : []))
  tells()
  agent.owns(range(0, 100))
  t.is(tells().length, 1)
  t.deepEqual(tells(), [])
  agent.owns(range(0, 110))
  t.deepEqual(tells(), [])
  t.deepEqual(tells(14_000)[0]?.summaries, [of(id(1), range(0, 110))])
  agent.owns(range(0, 110, 7))
  t.deepEqual(tells(), [])
  agent.owns(range(0, 60), range(100, 10))
  t.is(tells().length, 1)
  agent.here = [process(0, [1, 2])]
  t.deepEqual(
    tells().map(tell => tell.peer),
    [peer(2)],
  )
  agent.owns()
  t.deepEqual(
    tells().map(tell => tell.summaries[0]?.ranges),
    [[], []],
  )
})

test('a member is believed about itself, and forgotten when it says no more', t => {
  const agent = new Agent([process(1, [0, 2])])
  agent.tick()
  const hears = (from: number, ...summaries: OwnedSummary[]) =>
    agent.feed({ kind: 'heard', peer: peer(from), summaries })
  t.deepEqual(hears(2, of(id(1), range(5, 2))), [{ kind: 'hint', node: 2, ...of(id(1), range(5, 2)) }])
  t.deepEqual(hears(2, of(id(1), range(6, 2))), [], 'too soon')
  t.deepEqual(hears(0, of(id(1), range(6, 2))), [{ kind: 'hint', node: 0, ...of(id(1), range(6, 2)) }])
  t.deepEqual(hears(3, of(id(1), range(6, 2))), [], 'no member')
  t.deepEqual(hears(2, of(id(2), range(6, 2))), [], 'no process here')
  agent.tick(39_000)
  hears(0, of(id(1), range(6, 2)))
  t.deepEqual(
    agent.tick(2_000).filter(({ kind }) => kind === 'hint'),
    [{ kind: 'hint', node: 2, ...of(id(1)) }],
  )
})

test('home believes nobody: it hears of every move', t => {
  const agent = new Agent([process(0, [1])])
  agent.tick()
  t.deepEqual(agent.feed({ kind: 'heard', peer: peer(1), summaries: [of(id(1), range(5, 2))] }), [])
})

test('whatever is said, what comes out is in bounds', t => {
  const number = fc.oneof(
    fc.nat({ max: 40 }),
    fc.constantFrom(-1, 2 ** 32, 2 ** 35, 2 ** 53, 0.5, Number.NaN),
  )
  const ranges = fc.array(fc.record({ first: number, pages: number, birth: number, moves: number }), {
    maxLength: OWNED_RANGES_MAX + 2,
  })
  const summary = fc.record({ processId: fc.constantFrom(id(1), id(2), id(3)), ranges })
  const event: fc.Arbitrary<OwnershipEvent> = fc.oneof(
    fc.record({
      kind: fc.constant('heard' as const),
      peer: fc.constantFrom(peer(0), peer(2), peer(9)),
      summaries: fc.array(summary, { maxLength: 20 }),
    }),
    summary.map(each => ({ kind: 'owned' as const, ...each })),
  )
  fc.assert(
    fc.property(fc.array(event, { maxLength: 40 }), events => {
      const agent = new Agent([process(1, [0, 2]), process(2, [0, 1], id(2))])
      const effects = events.flatMap(each => [...agent.feed(each), ...agent.tick(300)])
      for (const effect of effects) {
        if (effect.kind === 'hint') t.true(areOwnedRanges(effect.ranges))
        if (effect.kind !== 'tell') continue
        t.true(effect.summaries.length <= SUMMARIES_MAX)
        t.true(effect.summaries.every(each => areOwnedRanges(each.ranges)))
      }
    }),
  )
})
