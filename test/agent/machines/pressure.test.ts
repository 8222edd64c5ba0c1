/** The memory limit of a run without --memory: what it follows, how fast, and that it comes to rest. */

import test from 'ava'
import * as fc from 'fast-check'
import {
  CALM_MS,
  CHANGE_MS,
  LIMIT_PAGES_MIN,
  PressureLimit,
  type PressureSample,
} from '../../../agent/machines/pressure.js'

const TOTAL = 4_000_000
const SAMPLES = 400

/** A machine of which `others` pages are taken, and a run that needs `needs` and has what its limit lets it have. */
function simulate(
  start: { limitPages: number; needs: number },
  others: (second: number) => { taken: number; some?: number },
  seconds: number,
): { limits: number[]; available: number[] } {
  const machine = new PressureLimit()
  let { limitPages } = start
  const limits: number[] = []
  const available: number[] = []
  for (let second = 0; second < seconds; second++) {
    const residentPages = Math.min(start.needs, limitPages)
    const { taken, some = 0 } = others(second)
    const availablePages = Math.max(0, TOTAL - taken - residentPages)
    const sample = { availablePages, totalPages: TOTAL, some, full: 0, residentPages, limitPages }
    limitPages = machine.onSample(sample, second * CHANGE_MS) ?? limitPages
    limits.push(limitPages)
    available.push(availablePages)
  }
  return { limits, available }
}

const sample: fc.Arbitrary<PressureSample> = fc
  .record({
    totalPages: fc.integer({ min: 20_000, max: 2 ** 26 }),
    available: fc.double({ min: 0, max: 1, noNaN: true }),
    resident: fc.double({ min: 0, max: 1, noNaN: true }),
    some: fc.double({ min: 0, max: 100, noNaN: true }),
    full: fc.double({ min: 0, max: 100, noNaN: true }),
    limitPages: fc.integer({ min: LIMIT_PAGES_MIN, max: 2 ** 26 }),
  })
  .map(({ available, resident, ...rest }) => ({
    ...rest,
    availablePages: Math.floor(rest.totalPages * available),
    residentPages: Math.floor(Math.min(rest.limitPages, rest.totalPages * (1 - available)) * resident),
  }))

test('under input that stays the same it moves in one direction, and stops', t => {
  fc.assert(
    fc.property(sample, first => {
      const machine = new PressureLimit()
      let { limitPages } = first
      const directions = new Set<number>()
      let changedAt = 0
      for (let at = 0; at < SAMPLES; at++) {
        const wanted = machine.onSample({ ...first, limitPages }, at * CHANGE_MS)
        if (wanted === undefined) continue
        directions.add(Math.sign(wanted - limitPages))
        limitPages = wanted
        changedAt = at
      }
      return directions.size <= 1 && changedAt < SAMPLES / 2
    }),
  )
  t.pass()
})

test('no limit is below the least, above the machine, or changes more than once a second', t => {
  const anyTime = fc.integer({ min: 0, max: 3 * CHANGE_MS })
  fc.assert(
    fc.property(fc.array(fc.tuple(sample, anyTime), { maxLength: 100 }), steps => {
      const machine = new PressureLimit()
      let now = 0
      let changedAt = Number.NEGATIVE_INFINITY
      return steps.every(([each, pause]) => {
        now += pause
        const wanted = machine.onSample(each, now)
        if (wanted === undefined) return true
        const early = now - changedAt < CHANGE_MS
        changedAt = now
        const grows = wanted > each.limitPages
        return !early && wanted >= LIMIT_PAGES_MIN && !(grows && wanted > each.totalPages)
      })
    }),
  )
  t.pass()
})

test('a run grows into a machine that is free, and leaves it an eighth', t => {
  const { limits, available } = simulate(
    { limitPages: 100_000, needs: 10 * TOTAL },
    () => ({ taken: 500_000 }),
    120,
  )
  t.true((available.at(-1) ?? 0) >= TOTAL / 8 && (available.at(-1) ?? 0) < TOTAL / 6, `${available.at(-1)}`)
  t.true((limits.at(-1) ?? 0) > 2_500_000)
  t.is(new Set(limits.slice(-60)).size, 1)
})

test('it gives way to others, and comes back when they have gone', t => {
  const taken = (second: number) => ({ taken: second >= 60 && second < 200 ? 3_500_000 : 500_000 })
  const { limits, available } = simulate({ limitPages: 2_000_000, needs: 2_500_000 }, taken, 400)
  t.true((available[199] ?? 0) > TOTAL / 20, `${available[199]}`)
  t.true((limits[199] ?? 0) < 300_000)
  t.true((limits.at(-1) ?? 0) >= 2_500_000)
})

test('while tasks wait for memory it goes down; who waits on a machine with plenty does not count', t => {
  const stalls = (taken: number) => (second: number) => ({ taken, some: second < 50 ? 40 : 0 })
  const short = simulate({ limitPages: 1_000_000, needs: 2_000_000 }, stalls(2_500_000), 200).limits
  t.true((short[49] ?? 0) < 800_000, `${short[49]}`)
  t.true((short.at(-1) ?? 0) > (short[49] ?? 0))
  const plenty = simulate({ limitPages: 1_000_000, needs: 1_000_000 }, stalls(500_000), 50).limits
  t.true(plenty.every(limit => limit >= 1_000_000))
})

test('what has been short is calm for ten seconds before it grows; what is not in use does not', t => {
  const machine = new PressureLimit()
  const calm = { totalPages: TOTAL, some: 0, full: 0, limitPages: 100_000 }
  const free = { ...calm, availablePages: TOTAL / 2, residentPages: 90_000 }
  t.is(machine.onSample({ ...free, availablePages: 1000, some: 50 }, 0), 78_750)
  t.is(machine.onSample(free, CALM_MS - 1), undefined)
  t.is(machine.onSample({ ...free, residentPages: 40_000 }, CALM_MS), undefined)
  t.is(machine.onSample(free, CALM_MS), 125_000)
})
