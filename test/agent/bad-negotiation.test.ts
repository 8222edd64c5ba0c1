/**
 * Negotiations that go wrong, on real agents with pagers in memory: a lender that answers twice, late, or first so and
 * then otherwise; both sides offering at once; more offers than there is room for; words about processes that nobody
 * knows; clocks that are a minute apart. Each ends with what is said here, and with nothing held that nobody uses.
 */

import test, { type ExecutionContext } from 'ava'
import type { PeerId, ProcessId } from '../../agent/machines/types.js'
import type { PeerMessage } from '../../agent/net/messages.js'
import { SYSTEM } from '../../agent/ports/surroundings.js'
import type { AgentService } from '../../agent/service.js'
import { HostilePeer, LOAD } from '../helpers/hostile-peer.js'
import { addressOf, Cluster, joined, someId, until } from './cluster.js'
import { FACTS, FakeWorld } from './fake-pagers.js'

const TIMEOUT_MS = 60_000
const TERMS = { pages: 4096, threads: 1, ttlMs: 10_000 }
const MINUTE_MS = 60_000

type Kind = PeerMessage['kind']
type Heard<K extends Kind> = Extract<PeerMessage, { kind: K }>

function heard<K extends Kind>(peer: HostilePeer, kind: K): Heard<K>[] {
  return peer.received.filter((message): message is Heard<K> => message.kind === kind)
}

async function attach(agent: AgentService, world: FakeWorld, participantsMax: number) {
  const id = someId() as ProcessId
  const { path, pager } = world.home(id)
  const attachment = { id, pagerSocket: path, program: 'sort', participantsMax, memoryPages: 1024, uid: 0 }
  await agent.attachHome(attachment)
  return { id, pager }
}

/** An agent, and peers that have joined it and do what the test says. */
async function scene(t: ExecutionContext, count = 1) {
  t.timeout(TIMEOUT_MS)
  const cluster = await Cluster.make()
  t.teardown(() => cluster.stop())
  const world = new FakeWorld()
  const a = await cluster.start('a', world.pagers())
  const where = { address: addressOf(a), peerId: a.nodes()[0]?.peerId ?? '' }
  const peers: HostilePeer[] = []
  for (let i = 0; i < count; i++) {
    const peer = await HostilePeer.join(where, cluster.keyFile, { ...LOAD, name: `m${i}` })
    t.teardown(() => peer.stop())
    peers.push(peer)
  }
  await until('joined', () => joined(a).length === count)
  return { cluster, world, a, peers: peers as [HostilePeer, ...HostilePeer[]] }
}

async function offerTo(peer: HostilePeer): Promise<Heard<'offer'>> {
  await until('an offer', () => heard(peer, 'offer').length > 0)
  return heard(peer, 'offer').at(-1) as Heard<'offer'>
}

function grantOf({ processId, leaseId }: Heard<'offer'>, port: number): PeerMessage {
  return { kind: 'grant', processId, leaseId, terms: TERMS, host: '127.0.0.1', port }
}

test('two grants, then a refusal: the first grant counts, and what comes of its lane', async t => {
  const { a, world, peers } = await scene(t)
  const [lender] = peers
  const { id, pager } = await attach(a, world, 2)
  const offer = await offerTo(lender)
  await lender.send(grantOf(offer, 9))
  await lender.send(grantOf(offer, 10))
  const { processId, leaseId } = offer
  await lender.send({ kind: 'refuse', processId, leaseId, refusal: { code: 'full', detail: '' } })
  await until('the lease to be released', () => heard(lender, 'release').length > 0)
  const lanes = pager.received.filter(command => command.kind === 'lane' && command.leaseId === leaseId)
  t.like(lanes, [{ port: 9 }])
  t.is(lanes.length, 1)
  t.deepEqual(
    heard(lender, 'release').map(message => message.leaseId),
    [leaseId],
  )
  t.is(a.participants(id), 1)
  t.regex(a.refusals(id)[0] ?? '', /^m0: lane-failed: connection refused$/)
  await until('it to be asked again', () => heard(lender, 'offer').length > 1)
  pager.exit('done')
})

test('a grant of what was offered to somebody else is released, and the offer stays', async t => {
  const { a, world, peers } = await scene(t, 2)
  const { pager } = await attach(a, world, 2)
  const asked = () => peers.find(peer => heard(peer, 'offer').length > 0)
  await until('an offer', () => asked() !== undefined)
  const lender = asked() as HostilePeer
  const other = peers.find(peer => peer !== lender) as HostilePeer
  const offer = await offerTo(lender)
  await other.send(grantOf(offer, 9))
  await until('a release', () => heard(other, 'release').length === 1)
  t.false(pager.received.some(command => command.kind === 'lane'))
  await lender.send(grantOf(offer, 9))
  await until('the lane to be tried', () => pager.received.some(command => command.kind === 'lane'))
  pager.exit('done')
})

test('a grant that comes after the offer has expired is released, and leads to no lane', async t => {
  const { a, world, peers } = await scene(t)
  const [lender] = peers
  const { id, pager } = await attach(a, world, 2)
  const offer = await offerTo(lender)
  await until('the offer to expire', () => a.refusals(id).length > 0, TIMEOUT_MS)
  t.deepEqual(a.refusals(id), ['m0: timeout: no answer in time'])
  await lender.send(grantOf(offer, 9))
  const released = () => heard(lender, 'release').filter(message => message.leaseId === offer.leaseId)
  await until('a release for the expiry and one for the grant', () => released().length === 2)
  t.false(pager.received.some(command => command.kind === 'lane'))
  await until('it to be asked again, by another lease', () => {
    const leases = heard(lender, 'offer').map(message => message.leaseId)
    return leases.length === 2 && leases[0] !== leases[1]
  })
  pager.exit('done')
})

test('two agents that offer to each other at once each lend to the other', async t => {
  const { cluster, world, a } = await scene(t, 0)
  const b = await cluster.start('b', world.pagers(), { peers: [addressOf(a)] })
  await until('joined', () => joined(a).length === 1 && joined(b).length === 1)
  const [one, other] = await Promise.all([attach(a, world, 2), attach(b, world, 2)])
  await until('both lanes', () => a.participants(one.id) === 2 && b.participants(other.id) === 2)
  const roles = async (agent: AgentService) => (await agent.processes()).map(({ role }) => role).sort()
  t.deepEqual(await roles(a), ['home', 'participant'])
  t.deepEqual(await roles(b), ['home', 'participant'])
  one.pager.exit('done')
  other.pager.exit('done')
  await until('all to be free', () => [a, b].every(agent => agent.nodes()[0]?.freePages === 10_000))
})

test('more offers of one peer than there is room for: each is answered once, and all is free again', async t => {
  const { a, world, peers } = await scene(t)
  const [home] = peers
  const ids = Array.from({ length: 200 }, () => someId() as ProcessId)
  for (const [leaseId, processId] of ids.entries()) {
    const names = { program: 'x', homeName: 'm0', facts: FACTS, laneKey: new Uint8Array(32) }
    const wants = { node: 1, epoch: 1, pages: 1 << 26, threads: 64 }
    await home.send({ kind: 'offer', processId, leaseId, ...names, ...wants })
  }
  const answers = () => [...heard(home, 'grant'), ...heard(home, 'refuse')]
  await until('all answers', () => answers().length >= ids.length)
  t.is(new Set(answers().map(({ leaseId }) => leaseId)).size, ids.length)
  t.is(answers().length, ids.length)
  const granted = heard(home, 'grant')
  const pages = granted.reduce((sum, { terms }) => sum + terms.pages, 0)
  t.true(granted.length > 0 && pages <= 10_000, `${granted.length} were granted ${pages} pages`)
  t.is(a.nodes()[0]?.freePages, 10_000 - pages)
  t.is(world.peers().length, granted.length)
  for (const { processId, leaseId } of granted)
    await home.send({ kind: 'release', processId, leaseId, homeEnded: true })
  await until('all to be free', () => a.nodes()[0]?.freePages === 10_000)
  t.deepEqual(joined(a), ['m0'])
})

const UNKNOWN = '00112233aabbccdd' as ProcessId
const about = { processId: UNKNOWN, leaseId: 7 }
const refusal = { code: 'full', detail: '' } as const
const where = { terms: TERMS, host: '127.0.0.1', port: 9 }
const laneKey = new Uint8Array(32)

/** What is said about a process that is not here, and the answers. */
const WORDS: readonly [PeerMessage, object[]][] = [
  [{ kind: 'grant', ...about, ...where }, [{ kind: 'release', ...about, homeEnded: false }]],
  [{ kind: 'refuse', ...about, refusal }, []],
  [{ kind: 'lease-update', ...about, terms: TERMS, reason: '' }, []],
  [{ kind: 'release', ...about, homeEnded: true }, []],
  [
    {
      kind: 'members',
      processId: UNKNOWN,
      members: [{ node: 1, name: 'x', peer: 'p'.repeat(46) as PeerId }],
    },
    [],
  ],
  [
    { kind: 'lane-ask', ...about, fromNode: 2, laneKey },
    [{ kind: 'lane-refuse', ...about, refusal: { code: 'not-allowed', detail: 'that process is not here' } }],
  ],
  [{ kind: 'lane-agree', ...about, ...where }, []],
  [{ kind: 'lane-refuse', ...about, refusal }, []],
  [{ kind: 'pager-ended', ...about }, []],
  [{ kind: 'probe', probeId: 5, ...about }, [{ kind: 'probe-answer', probeId: 5, state: 'unknown' }]],
  [{ kind: 'probe-for', probeId: 6, peer: 'p'.repeat(46) as PeerId, ...about }, []],
  [{ kind: 'probe-answer', probeId: 7, state: 'ended' }, []],
  [{ kind: 'pong', pingId: 8 }, []],
]

for (const [message, answers] of WORDS) {
  test(`${message.kind} about what nobody knows: ${answers.length} answers, and nothing else`, async t => {
    const { a, cluster, peers } = await scene(t)
    const [peer] = peers
    const before = { free: a.nodes()[0]?.freePages, lines: cluster.log.length }
    peer.received.length = 0
    await peer.send(message)
    await peer.send({ kind: 'ping', pingId: 1 })
    await until('the message after it to be answered', () => heard(peer, 'pong').length === 1)
    t.deepEqual(
      peer.received.filter(({ kind }) => kind !== 'pong' && kind !== 'ping' && kind !== 'hello'),
      answers as PeerMessage[],
    )
    t.deepEqual(await a.processes(), [])
    t.deepEqual(joined(a), ['m0'])
    t.is(a.nodes()[0]?.freePages, before.free)
    t.is(cluster.log.length, before.lines)
  })
}

/** A machine whose clock is wrong. */
function skewed(ms: number) {
  return { ...SYSTEM, clock: { ...SYSTEM.clock, wall: () => SYSTEM.clock.wall() + ms } }
}

test('clocks that are a minute apart, and one that is set back: leases and restarts are as ever', async t => {
  const { cluster, world, a } = await scene(t, 0)
  const peers = [addressOf(a)]
  const slow = await cluster.start('slow', world.pagers(), { peers }, skewed(-MINUTE_MS))
  await cluster.start('fast', world.pagers(), { peers }, skewed(MINUTE_MS))
  await until('joined', () => joined(a).length === 2 && joined(slow).length === 2)
  const { id, pager } = await attach(slow, world, 3)
  await until('two lanes', () => slow.participants(id) === 3)
  await slow.stop()
  const options = { peers: [addressOf(a)] }
  const back = await cluster.start('slow', world.pagers(), options, skewed(-2 * MINUTE_MS))
  await until('joined again', () => joined(back).length === 2 && joined(a).length === 2)
  t.is(back.participants(id), 3)
  pager.exit('done')
  await until('all to be free', () => [a, back].every(agent => agent.nodes()[0]?.freePages === 10_000))
})
