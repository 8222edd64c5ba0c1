/** Seeded chance and the hash of a trace: the same everywhere, and different where they must be. */

import test from 'ava'
import { Hash } from '../../sim-net/hash.js'
import { SeededRng } from '../../sim-net/rng.js'
import { Trace } from '../../sim-net/trace.js'

function draws(rng: SeededRng, count = 20): number[] {
  return Array.from({ length: count }, () => rng.below(1_000_000))
}

const FIRST_DRAWS = [588_898, 685_010, 271_424, 17_734]
const TEXT_DIGEST = '5d24aa086fe65511'

function numbers(hash: Hash, ...values: number[]): void {
  for (const value of values) hash.number(value)
}

test('the same seed draws the same, on every machine', t => {
  t.deepEqual(draws(new SeededRng(7)), draws(new SeededRng(7)))
  t.notDeepEqual(draws(new SeededRng(7)), draws(new SeededRng(8)))
  t.deepEqual(draws(new SeededRng(1), 4), FIRST_DRAWS)
})

test('a fork depends on its label alone, not on what was drawn before', t => {
  const rng = new SeededRng(7)
  const before = draws(rng.fork('a'))
  draws(rng, 100)
  t.deepEqual(draws(rng.fork('a')), before)
  t.notDeepEqual(draws(rng.fork('b')), before)
  t.notDeepEqual(draws(rng.fork('a').fork('a')), before)
})

test('draws are in range and about uniform', t => {
  const rng = new SeededRng(3)
  const counts = [0, 0, 0, 0, 0, 0, 0]
  let sum = 0
  for (let i = 0; i < 70_000; i++) {
    const i = rng.below(7)
    counts[i] = (counts[i] ?? Number.NaN) + 1
    sum += rng.next()
    const large = rng.below(2 ** 47)
    if (!Number.isSafeInteger(large) || large < 0 || large >= 2 ** 47) t.fail(`${large}`)
  }
  for (const count of counts) t.true(count > 9_500 && count < 10_500, `${counts}`)
  t.true(Math.abs(sum / 70_000 - 0.5) < 0.01)
})

test('a hash sees order, value and text', t => {
  const digest = (fill: (hash: Hash) => void) => {
    const hash = new Hash()
    fill(hash)
    return hash.digest()
  }
  const digests = [
    digest(hash => hash.number(0)),
    digest(hash => hash.number(0.1)),
    digest(hash => hash.number(2 ** 40)),
    digest(hash => numbers(hash, 1, 2)),
    digest(hash => numbers(hash, 2, 1)),
    digest(hash => hash.text('ab')),
    digest(hash => {
      hash.text('a')
      hash.text('b')
    }),
    digest(hash => hash.bytes(new Uint8Array([1, 2]))),
  ]
  t.is(new Set(digests).size, digests.length)
  t.is(
    digest(hash => hash.text('elasticos')),
    TEXT_DIGEST,
  )
})

test('a trace keeps a list when told to, of limited length', t => {
  const trace = new Trace({ record: true, eventsMax: 2 })
  for (let i = 0; i < 3; i++) trace.note(i, 'cut', i, i + 1)
  trace.count(9, 'message', 0, 1, 5)
  t.is(trace.size, 4)
  t.is(trace.left, 1)
  t.deepEqual(trace.events[1], { atMs: 1, what: 'cut', node: 1, other: 2, detail: '' })
  t.is(new Trace().events.length, 0)
})
