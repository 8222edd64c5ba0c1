/**
 * The failure detector: what it does in single cases, what holds whatever happens, and trials on a model of lanes and
 * agents (failure-model.ts) with the times to detection and the false alarms.
 */

import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import {
  CONFIRM_MS,
  type DetectorEffect,
  type DetectorEvent,
  FailureDetector,
  HELPERS_MAX,
  type PagerState,
  PROBE_MS,
  SILENT_AGAIN_MS,
  STALL_MS_MAX,
  type Watched,
} from '../../../agent/machines/failure-detector.js'
import type { PeerId } from '../../../agent/machines/types.js'
import { check, SEED } from '../../helpers/seed.js'
import { type Outcome, randomOf, runTrial, type Span, type Trial } from './failure-model.js'

const watched: Watched = { node: 1, leaseId: 7, peer: 'peer-b' as PeerId }
const others = ['c', 'd', 'e', 'f', 'g'].map(name => `peer-${name}` as PeerId)
const TRIALS = 1_000
const STALL_MS = 2_000

function silent(silentMs: number, which = watched): DetectorEvent & { kind: 'silent' } {
  return { kind: 'silent', watched: which, silentMs, others }
}

/** Reports every 100 ms from `fromMs` to `toMs` of silence; the answers come at once. */
function beSilent(
  machine: FailureDetector,
  fromMs: number,
  toMs: number,
  answer?: PagerState,
): DetectorEffect[] {
  const effects: DetectorEffect[] = []
  for (let at = fromMs; at <= toMs; at += 100) {
    const now = machine.onEvent(silent(at), at)
    effects.push(...now)
    const asked = now.some(effect => effect.kind === 'probe' && effect.through === undefined)
    if (!asked || answer === undefined) continue
    effects.push(...machine.onEvent({ kind: 'answer', leaseId: 7, state: answer, direct: true }, at))
  }
  return effects
}

function verdicts(effects: readonly DetectorEffect[]): string[] {
  return effects.flatMap(effect => (effect.kind === 'verdict' ? [effect.verdict] : []))
}

test('its own agent is asked first, others only when it does not answer, each time the next ones', t => {
  const effects = beSilent(new FailureDetector(), 500, 1_500)
  const through = effects.flatMap(effect => (effect.kind === 'probe' ? [effect.through] : []))
  t.deepEqual(through, [
    undefined,
    undefined,
    ...others.slice(0, 3),
    undefined,
    ...others.slice(3),
    others[0],
  ])
  t.deepEqual(effects[0], { kind: 'suspected', watched, silentMs: 500 })
})

test('nobody reaches it: dead, once it has been silent for longer than a stall may take', t => {
  const machine = new FailureDetector()
  t.deepEqual(verdicts(beSilent(machine, 500, CONFIRM_MS - 1)), [])
  t.like(machine.onEvent(silent(CONFIRM_MS), CONFIRM_MS), [
    { kind: 'verdict', verdict: 'dead', reason: 'silent for 2.8 s, and nobody reaches its agent' },
  ])
})

test('a pager that stalls is waited for, and at last not', t => {
  const machine = new FailureDetector()
  const effects = verdicts(beSilent(machine, 500, STALL_MS_MAX - 1, 'stalls'))
  t.is(effects.length, (STALL_MS_MAX - 500) / PROBE_MS)
  t.true(effects.every(verdict => verdict === 'stalls'))
  t.deepEqual(verdicts(machine.onEvent(silent(STALL_MS_MAX), STALL_MS_MAX)), ['dead'])
})

test('a pager that runs is called so when its agent answers itself; else, as one that is unknown, it is left alone', t => {
  t.deepEqual(verdicts(beSilent(new FailureDetector(), 500, 20_000, 'unknown')), [])
  const machine = new FailureDetector()
  machine.onEvent(silent(500), 500)
  t.deepEqual(machine.onEvent({ kind: 'answer', leaseId: 7, state: 'runs', direct: false }, 510), [])
  t.deepEqual(verdicts(machine.onEvent({ kind: 'answer', leaseId: 7, state: 'runs', direct: true }, 520)), [
    'runs',
  ])
})

test('only its own agent can say that it has ended', t => {
  const machine = new FailureDetector()
  machine.onEvent(silent(500), 500)
  t.deepEqual(machine.onEvent({ kind: 'answer', leaseId: 7, state: 'ended', direct: false }, 510), [])
  t.deepEqual(machine.onEvent({ kind: 'answer', leaseId: 8, state: 'ended', direct: true }, 520), [])
  const effects = machine.onEvent({ kind: 'answer', leaseId: 7, state: 'ended', direct: true }, 530)
  t.deepEqual(verdicts(effects), ['dead'])
  t.deepEqual(verdicts(machine.onEvent({ kind: 'attested', watched }, 540)), ['dead'])
})

test('another lane of the same node begins anew', t => {
  const machine = new FailureDetector()
  beSilent(machine, 500, CONFIRM_MS - 100)
  const later = { ...watched, leaseId: 8 }
  t.like(machine.onEvent(silent(CONFIRM_MS, later), CONFIRM_MS), [
    { kind: 'suspected', watched: later },
    { kind: 'probe', watched: later },
  ])
})

test('a stall of this side is nobody else’s silence', t => {
  const machine = new FailureDetector()
  beSilent(machine, 500, 1_000)
  t.deepEqual(verdicts(machine.onEvent(silent(4_000), 4_000)), [])
  t.deepEqual(
    verdicts(machine.onEvent({ kind: 'answer', leaseId: 7, state: 'stalls', direct: true }, 4_001)),
    ['stalls'],
  )
})

test('whatever comes: no death without its agent’s word or long silence, and probes are bounded', async t => {
  const state = fc.constantFrom<PagerState>('runs', 'stalls', 'ended', 'unknown')
  const step = fc.record({
    waitMs: fc.nat(600),
    what: fc.constantFrom('silent', 'silent', 'silent', 'heard', 'answer', 'attested', 'lane-down'),
    silentMs: fc.integer({ min: 500, max: 40_000 }),
    leaseId: fc.integer({ min: 7, max: 8 }),
    state,
    direct: fc.boolean(),
    helpers: fc.nat(others.length),
  })
  await check(
    t,
    fc.property(fc.array(step, { maxLength: 80 }), steps => {
      const machine = new FailureDetector()
      const [answeredAt, askedAt] = [new Map<number, number>(), new Map<number, number>()]
      let now = 0
      for (const one of steps) {
        now += one.waitMs
        const which = { ...watched, leaseId: one.leaseId }
        const event: DetectorEvent =
          one.what === 'silent'
            ? { ...silent(one.silentMs, which), others: others.slice(0, one.helpers) }
            : one.what === 'heard'
              ? silent(0, which)
              : one.what === 'answer'
                ? { kind: 'answer', leaseId: one.leaseId, state: one.state, direct: one.direct }
                : one.what === 'attested'
                  ? { kind: 'attested', watched: which }
                  : { kind: 'lane-down', node: 1 }
        const effects = machine.onEvent(event, now)
        expectSound(event, effects, now, answeredAt, askedAt)
        if (event.kind === 'answer') answeredAt.set(one.leaseId, now)
        if (machine.suspects().length > 1) throw new Error('two suspects of one node')
        if (machine.suspects().length === 0) askedAt.clear()
      }
    }),
    500,
  )
})

function expectSound(
  event: DetectorEvent,
  effects: readonly DetectorEffect[],
  now: number,
  answeredAt: ReadonlyMap<number, number>,
  askedAt: Map<number, number>,
): void {
  const probes = effects.filter(effect => effect.kind === 'probe')
  const [probe] = probes
  if (probe !== undefined) {
    const { leaseId } = probe.watched
    if (probes.length > 1 + HELPERS_MAX) throw new Error('too many probes')
    if (now - (askedAt.get(leaseId) ?? -Infinity) < PROBE_MS) throw new Error('asked again too soon')
    askedAt.clear()
    askedAt.set(leaseId, now)
  }
  for (const effect of effects) {
    if (effect.kind !== 'verdict' || effect.verdict !== 'dead') continue
    if (event.kind === 'attested') continue
    if (event.kind === 'answer' && event.direct && event.state === 'ended') continue
    if (event.kind !== 'silent' || event.silentMs < CONFIRM_MS) throw new Error('dead too early')
    const quietMs = now - (answeredAt.get(effect.watched.leaseId) ?? -Infinity)
    if (event.silentMs < STALL_MS_MAX && quietMs < SILENT_AGAIN_MS) throw new Error('dead, though it answers')
  }
}

/** The trials of one disturbance. Stalls begin anywhere, one with the other or not. */
function trials(more: (random: () => number, index: number) => Partial<Trial>): Outcome[] {
  return Array.from({ length: TRIALS }, (_, index) => {
    const seed = SEED + index
    const base = { seed, lossRate: 0, jitterMs: 0, helpers: index % 5, untilMs: 9_000 }
    return runTrial({ ...base, ...more(randomOf(~seed), index) })
  })
}

function stallAt(random: () => number): Span {
  const from = 1_000 + Math.floor(random() * 1_000)
  return { from, to: from + STALL_MS }
}

function percentiles(values: readonly number[]): string {
  const sorted = [...values].sort((a, b) => a - b)
  const at = (share: number) =>
    Math.round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0)
  return `p50 ${at(0.5)} p99 ${at(0.99)} max ${at(1)} ms`
}

function expectNoAlarm(t: ExecutionContext, name: string, outcomes: readonly Outcome[]): void {
  const confirmed = outcomes.filter(outcome => outcome.confirmedAt !== undefined).length
  const suspicions = outcomes.reduce((sum, outcome) => sum + outcome.suspicions, 0)
  const byPhi = outcomes.filter(outcome => outcome.phiAt !== undefined).length
  t.log(
    `ELASTICOS_SEED=${SEED}: ${name}: ${outcomes.length} trials of 9 s, ${confirmed} taken for dead, ` +
      `${suspicions} suspicions; phi above 8 in ${byPhi}`,
  )
  t.is(confirmed, 0)
}

test('trials: no stall of two seconds, loss or jitter is taken for a death', t => {
  expectNoAlarm(
    t,
    '5 % loss',
    trials(() => ({ lossRate: 0.05 })),
  )
  expectNoAlarm(
    t,
    '200 ms jitter',
    trials(() => ({ jitterMs: 200 })),
  )
  const both = { lossRate: 0.05, jitterMs: 200 }
  expectNoAlarm(
    t,
    'loss and jitter',
    trials(() => both),
  )
  expectNoAlarm(
    t,
    'a stall of its pager',
    trials(random => ({ ...both, pagerStall: stallAt(random) })),
  )
  const apart = (random: () => number) => ({ pagerStall: stallAt(random), agentStall: stallAt(random) })
  expectNoAlarm(
    t,
    'of its pager and its agent',
    trials(random => ({ ...both, ...apart(random) })),
  )
  const together = (random: () => number) => {
    const stall = stallAt(random)
    return { pagerStall: stall, agentStall: stall }
  }
  expectNoAlarm(
    t,
    'of both at once',
    trials(random => ({ ...both, ...together(random) })),
  )
  const longer = (random: () => number) => {
    const { from } = stallAt(random)
    return { pagerStall: { from, to: from + 5_000 }, agentStall: { from: from + 1_500, to: from + 3_500 } }
  }
  expectNoAlarm(
    t,
    'five seconds of its pager, two of its agent',
    trials(random => ({ ...both, ...longer(random) })),
  )
  const mine = (random: () => number) => ({ ...together(random), ownStall: stallAt(random) })
  expectNoAlarm(
    t,
    'of all three',
    trials(random => ({ ...both, ...mine(random) })),
  )
})

test('trials: a silent host is suspected within a second and given up within three', t => {
  for (const [name, more] of [
    ['calm', {}],
    ['5 % loss', { lossRate: 0.05 }],
    ['200 ms jitter', { jitterMs: 200 }],
    ['loss and jitter', { lossRate: 0.05, jitterMs: 200 }],
  ] as const) {
    const outcomes = trials(random => ({ ...more, deadAt: 2_000 + Math.floor(random() * 1_000) }))
    const since = (at: (outcome: Outcome) => number | undefined) =>
      outcomes.map(outcome => (at(outcome) ?? Infinity) - outcome.lastHeardAt)
    const suspected = since(outcome => outcome.suspectedAt)
    const confirmed = since(outcome => outcome.confirmedAt)
    t.log(`ELASTICOS_SEED=${SEED}: ${name}, ${TRIALS} trials, from the last frame heard on:`)
    t.log(`  suspected ${percentiles(suspected)}; given up ${percentiles(confirmed)}`)
    t.true(Math.max(...suspected) < 1_000)
    t.true(Math.max(...confirmed) < 3_000)
  }
})

test('trials: one that is only cut off from here, and reached through others, is not given up', t => {
  const cut = (random: () => number) => ({ cutAt: 2_000 + random() * 1_000, helpers: 2 })
  expectNoAlarm(t, 'the way is cut', trials(cut))
  const stalled = trials(random => ({ ...cut(random), pagerStall: { from: 1_500, to: 9_000 } }))
  expectNoAlarm(t, 'the way is cut, and its pager stalls', stalled)
  t.true(stalled.every(outcome => outcome.waitedFor))
})
