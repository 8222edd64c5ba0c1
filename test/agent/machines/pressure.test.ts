/** The memory limit of a run without --memory: what it follows, how fast, and that it comes to rest. */

import test from 'ava'
import * as fc from 'fast-check'
import {
  CALM_MS,
  CHANGE_MS,
  isStalling,
  LIMIT_PAGES_MIN,
  PressureLimit,
  type PressureSample,
} from '../../../agent/machines/pressure.js'

const TOTAL = 4_000_000
const SAMPLES = 400
const LOOK_MS = 1_000

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
    const memory = { availablePages, totalPages: TOTAL }
    const sample = {
      ...memory,
      isStalling: isStalling({ ...memory, some, full: 0 }),
      residentPages,
      limitPages,
    }
    limitPages = machine.onSample(sample, second * LOOK_MS) ?? limitPages
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
    isStalling: fc.boolean(),
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
  const calm = { totalPages: TOTAL, isStalling: false, limitPages: 100_000 }
  const free = { ...calm, availablePages: TOTAL / 2, residentPages: 90_000 }
  t.is(machine.onSample({ ...free, availablePages: 1000, isStalling: true }, 0), 78_750)
  t.is(machine.onSample(free, CALM_MS - 1), undefined)
  t.is(machine.onSample({ ...free, residentPages: 40_000 }, CALM_MS), undefined)
  t.is(machine.onSample(free, CALM_MS), 125_000)
})

test('on a machine that is merely full it keeps what it began with, and has it again after others took it', t => {
  const left = 0.9 / 16
  const full = { taken: TOTAL * (1 - left) }
  const began = { limitPages: (TOTAL * left) / 2, needs: TOTAL }
  const kept = simulate(began, () => full, 120).limits
  t.true(kept.every(limit => limit === began.limitPages))
  const stalls = simulate(began, () => ({ ...full, some: 40 }), 120).limits
  t.true(stalls.every(limit => limit === began.limitPages))
  const taken = (second: number) => ({ taken: second < 30 ? TOTAL : TOTAL * (1 - 1.9 / 16) })
  const { limits } = simulate(began, taken, 200)
  t.true((limits[29] ?? 0) < began.limitPages / 10)
  t.true((limits.at(-1) ?? 0) > ((TOTAL * 1.9) / 16 / 2) * 0.9, `${limits.at(-1)}`)
})

test('while others are waited for and a fifth is available, it keeps half of what it could have', t => {
  const others = (second: number) => ({ taken: TOTAL * 0.6, some: second < 100 ? 40 : 0 })
  const { limits } = simulate({ limitPages: TOTAL * 0.2, needs: TOTAL * 0.2 }, others, 100)
  t.true(limits.every(limit => limit === TOTAL * 0.2))
})

interface Run {
  readonly machine: PressureLimit
  readonly needs: number
  limitPages: number
  direction: number
  turns: number
}

/**
 * Runs of several agents that know nothing of each other, each agent with as many as are in `agents` and each run with
 * an equal part of the machine.
 */
function share(agents: readonly (readonly { limitPages: number; needs: number }[])[], taken: number) {
  const groups: Run[][] = agents.map(runs =>
    runs.map(run => ({ ...run, machine: new PressureLimit(), direction: 0, turns: 0 })),
  )
  const runs = groups.flat()
  let availableMin = TOTAL
  let changedAt = 0
  for (let second = 0; second < SAMPLES; second++) {
    const sum = runs.reduce((all, { needs, limitPages }) => all + Math.min(needs, limitPages), 0)
    const available = Math.max(0, TOTAL - taken - sum)
    availableMin = Math.min(availableMin, available)
    for (const group of groups) {
      const memory = { availablePages: available / group.length, totalPages: TOTAL / group.length }
      for (const run of group) {
        const { limitPages, needs, machine } = run
        const residentPages = Math.min(needs, limitPages)
        const sample = { ...memory, isStalling: false, residentPages, limitPages }
        const wanted = machine.onSample(sample, second * LOOK_MS)
        if (wanted === undefined) continue
        const direction = Math.sign(wanted - limitPages)
        if (direction === -run.direction) run.turns++
        Object.assign(run, { limitPages: wanted, direction })
        changedAt = second
      }
    }
  }
  return { runs, availableMin, changedAt }
}

const anyRun = fc.record({
  limitPages: fc.integer({ min: LIMIT_PAGES_MIN, max: TOTAL / 40 }),
  needs: fc.integer({ min: LIMIT_PAGES_MIN, max: TOTAL }),
})

/** Runs that are small beside what is available grow until they have as much; the large ones may have to give way. */
function leavesEnough({ runs, availableMin, changedAt }: ReturnType<typeof share>): boolean {
  return changedAt < SAMPLES / 2 && runs.every(({ turns }) => turns <= 1) && availableMin >= TOTAL / 20
}

const taken = fc.integer({ min: 0, max: TOTAL / 2 })

test('several runs of one agent leave others enough, do not swing, and come to rest', t => {
  const some = fc.array(anyRun, { minLength: 1, maxLength: 12 })
  fc.assert(fc.property(some, taken, (runs, others) => leavesEnough(share([runs], others))))
  t.pass()
})

test('so do three runs that know nothing of each other', t => {
  const alone = fc.array(anyRun, { minLength: 2, maxLength: 3 })
  fc.assert(
    fc.property(alone, taken, (runs, others) => {
      const agents = runs.map(run => [run])
      return leavesEnough(share(agents, others))
    }),
  )
  t.pass()
})
