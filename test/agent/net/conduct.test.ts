/**
 * A peer with the network key that sends what no agent sends: it is shut out, each time for longer, what it sent is
 * counted and costs little, and the agents beside it do not notice.
 */

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generateKeyPair } from '@libp2p/crypto/keys'
import test, { type ExecutionContext } from 'ava'
import { encode } from 'cborg'
import { newKey, setKey } from '../../../agent/key.js'
import type { PeerId } from '../../../agent/machines/types.js'
import { Conduct, type Rated } from '../../../agent/net/conduct.js'
import { Libp2pNetwork } from '../../../agent/net/libp2p.js'
import { encodeLoad, MESSAGE_BYTES_MAX } from '../../../agent/net/messages.js'
import { count, loadOf, numbered, WatchedAgent } from '../../conformance/peer-network-agent.js'
import { HostilePeer } from '../../helpers/hostile-peer.js'
import { until } from '../cluster.js'
import { PATIENCE_MS, QUIET } from './real-bench.js'

const SOMEBODY = '12D3KooWsomebody' as PeerId
const FLOOD = 10_000
const ALONE = () => 0
/** As gossipsub is by itself, more than 14 would be shut out. */
const MANY = 18
const SCORES_SEEN_MS = 2_500
const GROWTH_BYTES_MAX = 300 << 20

test('five offences within a minute shut a peer out, each time for twice as long, an hour at most', t => {
  const conduct = new Conduct()
  const note = (now: number) => conduct.note(SOMEBODY, '10.0.0.1', 'malformed', now, ALONE)
  t.deepEqual([0, 1, 2, 3].map(note), [0, 0, 0, 0])
  t.is(note(4), 10_000)
  t.true(conduct.isShutOut(SOMEBODY, 10_003))
  t.false(conduct.isShutOut(SOMEBODY, 10_004))
  t.deepEqual(
    [1, 2, 3, 4].map(i => note(20_000 + i * 20_000)),
    [0, 0, 0, 0],
    'further apart',
  )
  const lengths: number[] = []
  for (let now = 200_000; lengths.length < 12; now += 100) {
    if (conduct.isShutOut(SOMEBODY, now)) now += 10_000
    const ms = note(now)
    if (ms > 0) lengths.push(ms / 1000)
  }
  t.deepEqual(lengths, [20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600, 3600])
})

test('rates refill, addresses of who is shut out are let in slowly, and who is remembered is bounded', t => {
  const conduct = new Conduct()
  let taken = 0
  while (conduct.takes('messages', SOMEBODY, 0)) taken++
  t.is(taken, 2_000)
  t.true(conduct.takes('messages', SOMEBODY, 2))
  t.false(conduct.takes('messages', SOMEBODY, 2))
  for (let i = 0; i < 5; i++) conduct.note(SOMEBODY, '10.0.0.1', 'flood', 0, ALONE)
  t.is(Array.from({ length: 100 }, () => conduct.admits('10.0.0.1', 1)).filter(Boolean).length, 5)
  t.true(conduct.admits('10.0.0.2', 1))
  t.true(conduct.admits('10.0.0.1', 10_001))
  for (let i = 0; i < 1_024; i++) conduct.takes('messages', `p${i}` as PeerId, 2)
  t.false(conduct.isShutOut(SOMEBODY, 3), 'forgotten')
  t.deepEqual(conduct.counts, { malformed: 0, flood: 5, gossip: 0, connections: 0 })
})

test('streams and lists of agents are for a peer to have a few at a time; each kind has a rate of its own', t => {
  const conduct = new Conduct()
  const taken = (what: Rated, now: number) =>
    Array.from({ length: 10_000 }, () => conduct.takes(what, SOMEBODY, now)).filter(Boolean).length
  t.is(taken('streams', 0), 20)
  t.is(taken('streams', 1_000), 5)
  t.is(taken('introductionsHeard', 0), 4)
  t.is(taken('introductionsHeard', 61_000), 1)
  t.is(taken('passedOn', 0), 2_000)
  t.is(taken('messages', 0), 2_000)
})

test('an address where others were connected beside who is shut out is let in more often', t => {
  for (const [neighbours, perSecond] of [
    [0, 5],
    [2, 15],
    [400, 20],
  ] as const) {
    const conduct = new Conduct()
    for (let i = 0; i < 5; i++) conduct.note(SOMEBODY, '10.0.0.1', 'malformed', 0, () => neighbours)
    t.is(Array.from({ length: 100 }, () => conduct.admits('10.0.0.1', 0)).filter(Boolean).length, perSecond)
  }
})

/** Two agents that have joined, and a peer that has joined the first. */
async function scene(t: ExecutionContext) {
  t.timeout(2 * PATIENCE_MS)
  const directory = await mkdtemp(join(tmpdir(), 'elasticos-conduct-'))
  t.teardown(() => rm(directory, { recursive: true }))
  const key = newKey()
  const keyFile = join(directory, 'key')
  await setKey(keyFile, key.file)
  const start = async (name: string, peers: readonly string[]) => {
    const identity = await generateKeyPair('Ed25519')
    const load = loadOf(name, 1, 1)
    const listen = ['/ip4/127.0.0.1/tcp/0']
    const network = await Libp2pNetwork.start({ identity, key, listen, peers, allow: [], load, log: QUIET })
    const agent = new WatchedAgent(network)
    t.teardown(() => agent.stop())
    return { network, agent }
  }
  const a = await start('a', [])
  const b = await start('b', a.network.addresses())
  await until('two', () => count(a.agent, 'joined', b.agent.self) === 1, PATIENCE_MS)
  const [address = ''] = a.network.addresses()
  const load = { ...loadOf('mallory', 1, 1), addresses: [] }
  const another = async () => {
    const peer = await HostilePeer.join({ address, peerId: a.agent.self }, keyFile, load)
    t.teardown(() => peer.stop())
    return peer
  }
  const hostile = await another()
  const first = hostile.id
  await until('the hostile one', () => count(a.agent, 'joined', first) === 1, PATIENCE_MS)
  const before = process.memoryUsage.rss()
  const expectUnharmed = async (offence: 'malformed' | 'flood' | 'gossip' | 'connections') => {
    const { offences, shutOuts } = a.network.refused
    t.true(shutOuts >= 1)
    t.true(offences[offence] >= 5, JSON.stringify(offences))
    await until('gone', () => count(a.agent, 'lost', first) >= 1, PATIENCE_MS)
    t.is(b.network.refused.shutOuts, 0)
    t.is(count(a.agent, 'lost', b.agent.self), 0)
    const heard = b.agent.events.length
    t.is(await a.agent.send(b.agent.self, 0, 1), 1)
    await until('a message', () => b.agent.events.length > heard, PATIENCE_MS)
    t.true(process.memoryUsage.rss() - before < GROWTH_BYTES_MAX)
  }
  return { a, b, hostile, first, another, expectUnharmed }
}

const wrong = encode({ kind: 'offer', processId: 1 })
const MALFORMED: readonly [string, (hostile: HostilePeer) => Promise<void>][] = [
  ['messages that are none', hostile => hostile.sendFrame(wrong)],
  [
    'messages of the greatest length that are none',
    hostile => hostile.sendFrame(new Uint8Array(MESSAGE_BYTES_MAX)),
  ],
  ['lengths that nothing has', hostile => hostile.sendBytes(Uint8Array.of(0xff, 0xff, 0xff, 0x7f))],
]

for (const [what, say] of MALFORMED) {
  test.serial(`${what} shut their sender out`, async t => {
    const { a, hostile, first, expectUnharmed } = await scene(t)
    let said = 0
    while (hostile.id === first && said++ < FLOOD) {
      await say(hostile)
      await new Promise(resolve => setImmediate(resolve))
    }
    t.true(said < FLOOD)
    t.log(`${said} sent, ${JSON.stringify(a.network.refused)}`)
    await expectUnharmed('malformed')
  })
}

test.serial('a flood of messages that mean nothing shuts its sender out', async t => {
  const { a, hostile, first, expectUnharmed } = await scene(t)
  let said = 0
  while (hostile.id === first && said < 4 * FLOOD) await hostile.send(numbered(said++))
  t.log(`${said} sent, ${a.agent.events.length} heard, ${JSON.stringify(a.network.refused)}`)
  t.true(said < 4 * FLOOD)
  await expectUnharmed('flood')
})

test.serial(
  'one stream after the other shuts its owner out, and is not told each time who is known',
  async t => {
    const { a, hostile, expectUnharmed } = await scene(t)
    let opened = 0
    await until(
      'shut out',
      () => {
        if (opened++ < 1_000) void hostile.reopen().catch(() => {})
        return a.network.refused.shutOuts > 0
      },
      PATIENCE_MS,
    )
    const told = hostile.received.filter(message => message.kind === 'known').length
    t.log(`${opened} opened, told ${told} times, ${JSON.stringify(a.network.refused)}`)
    t.true(told <= 5)
    await expectUnharmed('flood')
  },
)

test.serial('too many connections shut their owner out', async t => {
  const { a, hostile, expectUnharmed } = await scene(t)
  let made = 0
  while (a.network.refused.shutOuts === 0 && made++ < 100) await hostile.connectAgain().catch(() => {})
  t.log(`${made} made, ${JSON.stringify(a.network.refused)}`)
  await expectUnharmed('connections')
})

test.serial('many agents behind one address are no offence', async t => {
  const { a, another } = await scene(t)
  const ids = (await Promise.all(Array.from({ length: MANY }, another))).map(peer => peer.id)
  await until('all', () => ids.every(id => count(a.agent, 'joined', id) === 1), PATIENCE_MS)
  await new Promise(resolve => setTimeout(resolve, SCORES_SEEN_MS))
  t.deepEqual(a.network.refused, {
    offences: { malformed: 0, flood: 0, gossip: 0, connections: 0 },
    shutOuts: 0,
  })
})

test.serial('gossip with wrong signatures shuts its sender out', async t => {
  const { a, b, hostile, first, expectUnharmed } = await scene(t)
  let said = 0
  await until(
    'an offence',
    () => {
      hostile.publishForged(a.agent.self, encodeLoad(loadOf('mallory', 1, ++said)))
      return a.network.refused.shutOuts > 0
    },
    PATIENCE_MS,
  )
  t.log(`${said} sent, ${JSON.stringify(a.network.refused)}`)
  t.false(b.agent.events.some(event => event.kind === 'load' && event.peer === first))
  await expectUnharmed('gossip')
})

for (const [what, load, offence] of [
  ['gossip that is none', () => wrong, 'gossip'],
  ['a flood of loads', (i: number) => encodeLoad(loadOf('mallory', 1, i)), 'flood'],
] as const) {
  test.serial(`${what} is not passed on, and shuts its sender out`, async t => {
    const { a, b, hostile, first, expectUnharmed } = await scene(t)
    let said = 0
    await until(
      'an offence',
      () => {
        for (let i = 0; i < 50 && a.network.refused.shutOuts === 0; i++)
          void hostile.publish(load(++said)).catch(() => {})
        return a.network.refused.shutOuts > 0
      },
      PATIENCE_MS,
    )
    const heard = b.agent.events.filter(event => event.kind === 'load' && event.peer === first).length
    t.log(`${said} published, ${heard} heard beyond, ${JSON.stringify(a.network.refused)}`)
    t.true(heard <= (offence === 'gossip' ? 0 : 200))
    await expectUnharmed(offence)
  })
}
