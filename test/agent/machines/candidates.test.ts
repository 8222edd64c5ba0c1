/** Whom a process asks first: near ones, of these the roomiest, last of all those with next to nothing to lend. */

import test from 'ava'
import fc from 'fast-check'
import { Candidates, distanceOf } from '../../../agent/machines/candidates.js'
import type { PeerId } from '../../../agent/machines/types.js'

const ROOM = 4096

function order(...peers: readonly (readonly [name: string, freePages: number, rttMs: number | undefined])[]) {
  const candidates = new Candidates()
  const lenders = peers.map(([name, freePages, rttMs]) => {
    return { peer: name as PeerId, name, incarnation: 1, freePages, rttMs }
  })
  candidates.note(lenders, 0)
  return candidates.able(0).map(({ name }) => name)
}

test('the near before the far, of these the roomiest, and who has hardly anything last', t => {
  t.deepEqual(order(['far', 9 * ROOM, 30], ['near', ROOM, 0.2]), ['near', 'far'])
  t.deepEqual(order(['a', ROOM, 0.1], ['b', 2 * ROOM, 4.5], ['new', 3 * ROOM, undefined]), ['new', 'b', 'a'])
  t.deepEqual(order(['tiny', ROOM - 1, 0.1], ['far', ROOM, 300]), ['far', 'tiny'])
  t.deepEqual(order(['near', 10, 0.1], ['less near', 20, 30]), ['less near', 'near'])
  t.deepEqual(order(['p2', ROOM, 1], ['p1', ROOM, 1]), ['p1', 'p2'])
})

test('what is measured anew counts from the next offer on', t => {
  const candidates = new Candidates()
  const near = { peer: 'a' as PeerId, name: 'a', incarnation: 1, freePages: ROOM, rttMs: 1 }
  candidates.note([near, { ...near, peer: 'b' as PeerId, name: 'b', freePages: 2 * ROOM, rttMs: 1 }], 0)
  t.is(candidates.able(0)[0]?.name, 'b')
  candidates.note([{ ...near, peer: 'b' as PeerId, name: 'b', freePages: 2 * ROOM, rttMs: 50 }], 1)
  t.is(candidates.able(1)[0]?.name, 'a')
})

test('distance never falls as the round trip grows, and noise within one place is none', t => {
  const ms = fc.double({ min: 0, max: 60_000, noNaN: true })
  fc.assert(fc.property(ms, ms, (a, b) => distanceOf(Math.min(a, b)) <= distanceOf(Math.max(a, b))))
  t.deepEqual([undefined, 0, 4.9, 5, 19, 21, 79].map(distanceOf), [0, 0, 0, 1, 1, 2, 2])
})
