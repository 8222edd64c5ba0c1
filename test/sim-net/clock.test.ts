/** Virtual time: order, cancelling, and that its calendar forgets nothing; against a list that is simply sorted. */

import test from 'ava'
import fc from 'fast-check'
import { every } from '../../agent/ports/clock.js'
import { VirtualClock } from '../../sim-net/clock.js'
import { check } from '../helpers/seed.js'

test('what is due happens in order of time, then of asking, and nothing early', t => {
  const clock = new VirtualClock()
  const done: string[] = []
  const note = (name: string) => () => done.push(`${name}@${clock.now()}`)
  clock.at(5, note('b'))
  clock.at(5, note('c'))
  clock.at(1, () => clock.at(0, note('a')))
  clock.at(20_000, note('far'))
  clock.at(8, note('cancelled')).cancel()
  clock.runUntil(19_999)
  t.deepEqual(done, ['a@1', 'b@5', 'c@5'])
  t.is(clock.now(), 19_999)
  t.is(clock.pending, 1)
  t.true(clock.step())
  t.false(clock.step())
  t.deepEqual(done.at(-1), 'far@20000')
  t.throws(() => clock.at(Number.NaN, () => {}), { instanceOf: RangeError })
})

test('a wait ends when it may, or when its time is over', t => {
  const clock = new VirtualClock()
  let count = 0
  every(clock, 10, () => count++)
  t.true(clock.runWhile(() => count < 3, 1_000))
  t.is(clock.now(), 30)
  t.false(clock.runWhile(() => count < 1_000, 100))
  t.is(clock.now(), 130)
})

interface Step {
  readonly kind: 'at' | 'cancel' | 'run'
  /** ms, or which timer. */
  readonly value: number
}

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant('at' as const), value: fc.oneof(fc.nat(3), fc.nat(50_000)).map(n => n / 4) }),
  fc.record({ kind: fc.constant('cancel' as const), value: fc.nat(1_000) }),
  fc.record({ kind: fc.constant('run' as const), value: fc.oneof(fc.nat(10), fc.nat(30_000)) }),
)

test('the calendar does what a sorted list would', async t => {
  await check(
    t,
    fc.property(fc.array(step, { maxLength: 100 }), steps => {
      const clock = new VirtualClock()
      const done: number[] = []
      const timers: { time: number; id: number; cancel: () => void }[] = []
      let waiting: { time: number; id: number }[] = []
      const expected: number[] = []
      for (const { kind, value } of steps) {
        if (kind === 'at') {
          const [time, id] = [clock.now() + value, timers.length]
          timers.push({ time, id, ...{ cancel: bound(clock.at(time, () => done.push(id))) } })
          waiting.push({ time, id })
        } else if (kind === 'cancel') {
          const timer = timers[value % Math.max(1, timers.length)]
          timer?.cancel()
          waiting = waiting.filter(({ id }) => id !== timer?.id)
        } else {
          clock.runFor(value)
          const due = waiting.filter(({ time }) => time <= clock.now())
          waiting = waiting.filter(({ time }) => time > clock.now())
          expected.push(...due.sort((a, b) => a.time - b.time || a.id - b.id).map(({ id }) => id))
        }
        if (clock.pending !== waiting.length) return false
      }
      return JSON.stringify(done) === JSON.stringify(expected)
    }),
    500,
  )
})

function bound(timer: { cancel(): void }): () => void {
  return () => timer.cancel()
}
