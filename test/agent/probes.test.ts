/**
 * What agents ask each other about pagers: who answers what, what is passed on, what is dropped; and the same end to
 * end, with agents on the loopback interface and pagers in memory.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import type { PagerConnection } from '../../agent/executor/pagers.js'
import { type ProbeMessage, Probes, pagerAnswers } from '../../agent/executor/probes.js'
import type { PagerState } from '../../agent/machines/failure-detector.js'
import type { PeerId, ProcessId } from '../../agent/machines/types.js'
import { systemClock } from '../../agent/ports/clock.js'
import { systemRng } from '../../agent/ports/rng.js'
import { addressOf, Cluster, joined, someId, until } from './cluster.js'
import { FakeConnection, type FakePager, FakeWorld } from './fake-pagers.js'

const [A, B, C] = ['peer-a', 'peer-b', 'peer-c'] as PeerId[] as [PeerId, PeerId, PeerId]
const processId = '0123456789abcdef' as ProcessId
const PROBES_PER_S = 256

/** Agents without a network: what one sends is taken by the other when the test says so. */
class Side {
  readonly sent: { to: PeerId; message: ProbeMessage }[] = []
  pager: PagerConnection | undefined
  alive = true
  others: readonly PeerId[] = []
  now = 0
  readonly probes: Probes

  constructor(readonly self: PeerId) {
    this.probes = new Probes({
      self,
      pagers: { isAlive: () => this.alive },
      send: (to, message) => this.sent.push({ to, message: message as ProbeMessage }) > 0,
      joined: () => [A, B, C, ...this.others],
      pagerOf: () => this.pager,
      answers: pagerAnswers(systemClock),
      rng: systemRng,
      clock: { ...systemClock, now: () => this.now },
    })
  }
}

/** Delivers until nobody has anything to say. */
async function settle(sides: readonly Side[]): Promise<void> {
  for (let quiet = 0; quiet < 3; quiet++) {
    for (const from of sides)
      for (const { to, message } of from.sent.splice(0)) {
        quiet = 0
        sides.find(side => side.self === to)?.probes.onMessage(from.self, message)
      }
    await sleep(5)
  }
}

function fakePager(): FakePager {
  return new FakeWorld().home(someId()).pager
}

async function answerOf(sides: readonly Side[], through?: PeerId): Promise<PagerState | undefined> {
  let state: PagerState | undefined
  sides[0]?.probes.ask({ peer: B, processId, leaseId: 7, through }, given => {
    state = given
  })
  await settle(sides)
  return state
}

for (const through of [undefined, C])
  test(`what an agent knows of its pager, asked ${through === undefined ? 'directly' : 'by another one'}`, async t => {
    const [a, b, c] = [new Side(A), new Side(B), new Side(C)]
    const sides = [a, b, c]
    t.is(await answerOf(sides, through), 'unknown')
    b.pager = new FakeConnection(fakePager())
    t.is(await answerOf(sides, through), 'runs')
    b.alive = false
    t.is(await answerOf(sides, through), 'unknown')
    b.probes.noteEnded(processId, 7)
    t.is(await answerOf(sides, through), 'ended')
  })

test('a pager that does not answer its agent stalls', async t => {
  const [a, b] = [new Side(A), new Side(B)]
  const pager = fakePager()
  pager.stalled = true
  b.pager = new FakeConnection(pager)
  const states: PagerState[] = []
  for (let i = 0; i < 3; i++) a.probes.ask({ peer: B, processId, leaseId: 7 }, state => states.push(state))
  await settle([a, b])
  await sleep(300)
  await settle([a, b])
  t.deepEqual(states, ['stalls', 'stalls', 'stalls'])
})

test('only who was asked may answer, once, and in time', t => {
  const a = new Side(A)
  const states: PagerState[] = []
  const ask = () => {
    a.probes.ask({ peer: B, processId, leaseId: 7 }, state => states.push(state))
    return a.sent.splice(0)[0]?.message.probeId ?? 0
  }
  const probeId = ask()
  a.probes.onMessage(C, { kind: 'probe-answer', probeId, state: 'ended' })
  a.probes.onMessage(B, { kind: 'probe-answer', probeId: probeId + 1, state: 'ended' })
  t.deepEqual(states, [])
  a.probes.onMessage(B, { kind: 'probe-answer', probeId, state: 'runs' })
  a.probes.onMessage(B, { kind: 'probe-answer', probeId, state: 'ended' })
  t.deepEqual(states, ['runs'])
  const late = ask()
  a.now = 5_001
  a.probes.onMessage(B, { kind: 'probe-answer', probeId: late, state: 'ended' })
  t.deepEqual(states, ['runs'])
})

test('one peer gets so many answers a second and no more; others are not held up by it', async t => {
  const b = new Side(B)
  const flood = (from: PeerId, count: number) => {
    for (let probeId = 0; probeId < count; probeId++)
      b.probes.onMessage(from, { kind: 'probe', probeId, processId, leaseId: 7 })
  }
  flood(A, 10 * PROBES_PER_S)
  flood(C, 1)
  await sleep(20)
  t.is(b.sent.filter(({ to }) => to === A).length, PROBES_PER_S)
  t.is(b.sent.filter(({ to }) => to === C).length, 1)
  b.sent.length = 0
  for (let probeId = 0; probeId < 10; probeId++)
    b.probes.onMessage(A, { kind: 'probe-for', probeId, peer: C, processId, leaseId: 7 })
  t.is(b.sent.length, 0)
  b.now = 1_000
  flood(A, 1)
  await sleep(20)
  t.is(b.sent.length, 1)
})

test('what others have an agent ask a peer leaves it answers for its own questions, and room to wait for them', async t => {
  const [a, b] = [new Side(A), new Side(B)]
  b.pager = new FakeConnection(fakePager())
  const askers = ['x', 'y', 'z'] as PeerId[]
  a.others = askers
  const states: PagerState[] = []
  a.probes.ask({ peer: C, processId, leaseId: 7 }, state => states.push(state))
  const toC = a.sent.splice(0)[0]?.message.probeId ?? 0
  for (let second = 0; second < 20; second++) {
    a.now = b.now = second * 1_000
    if (second === 4) a.probes.onMessage(C, { kind: 'probe-answer', probeId: toC, state: 'runs' })
    for (const asker of askers)
      for (let probeId = 0; probeId < 300; probeId++) {
        a.probes.onMessage(asker, { kind: 'probe-for', probeId, peer: B, processId, leaseId: 7 })
        a.probes.onMessage(asker, {
          kind: 'probe-for',
          probeId,
          peer: `${probeId}` as PeerId,
          processId,
          leaseId: 7,
        })
      }
    const passedOn = a.sent.filter(({ to }) => to === B).length
    t.true(passedOn > 0 && passedOn <= 64, `${passedOn} passed on`)
    t.is(a.sent.length, passedOn)
    for (let i = 0; i < 128; i++)
      a.probes.ask({ peer: B, processId, leaseId: 7 }, state => states.push(state))
    await settle([a, b])
    t.is(states.length, (second + 1) * 128 + (second >= 4 ? 1 : 0))
  }
})

test('agents: a pager that ends without a word is attested, by its lease; one that stalls is waited for', async t => {
  const cluster = await Cluster.make()
  t.teardown(() => cluster.stop())
  const world = new FakeWorld()
  const a = await cluster.start('a', world.pagers())
  const b = await cluster.start('b', world.pagers(), { peers: [addressOf(a)] })
  await until('both joined', () => [a, b].every(agent => joined(agent).length === 1))
  const id = someId()
  const { path, pager } = world.home(id)
  await a.attachHome({ id, pagerSocket: path, program: 'sort', participantsMax: 2, memoryPages: 1, uid: 0 })
  await until('a lane', () => a.participants(id) === 2)
  const leaseId =
    pager.received.flatMap(command => (command.kind === 'lane' ? [command.leaseId] : []))[0] ?? 0
  const verdicts = () => pager.received.filter(command => command.kind === 'node-verdict')

  pager.emit({ kind: 'node-silent', node: 1, leaseId: leaseId + 1, silentMs: 600 })
  pager.emit({ kind: 'node-silent', node: 1, leaseId, silentMs: 600 })
  await until('a verdict', () => verdicts().length > 0)
  t.like(verdicts(), [{ node: 1, leaseId, verdict: 'runs' }])
  pager.emit({ kind: 'node-silent', node: 1, leaseId, silentMs: 0 })
  const [peer] = world.peers()
  if (peer === undefined) return t.fail()
  peer.stalled = true
  pager.emit({ kind: 'node-silent', node: 1, leaseId, silentMs: 600 })
  await until('a second verdict', () => verdicts().length > 1)
  t.like(verdicts()[1], { node: 1, leaseId, verdict: 'stalls' })

  peer.vanish()
  const ms = await until('a third verdict', () => verdicts().length > 2)
  t.log(`attested ${ms.toFixed(0)} ms after its end`)
  t.like(verdicts()[2], { node: 1, leaseId, verdict: 'dead', reason: 'its agent has seen its pager end' })
})
