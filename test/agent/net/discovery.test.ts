/**
 * LAN discovery over the loopback interface: found within a second, only where the agent listens, other networks
 * are told apart, rubbish does no harm.
 */

import { createSocket } from 'node:dgram'
import { generateKeyPair } from '@libp2p/crypto/keys'
import type { PrivateKey } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import test from 'ava'
import { encode } from 'cborg'
import fc from 'fast-check'
import { newKey } from '../../../agent/key.js'
import type { Stranger } from '../../../agent/machines/membership.js'
import type { PeerId } from '../../../agent/machines/types.js'
import { ANNOUNCEMENT_BYTES_MAX, AnnouncementCodec } from '../../../agent/net/announcement.js'
import { DISCOVERY_GROUP, lanDiscovery } from '../../../agent/net/discovery.js'
import { Twins } from '../../../agent/net/twins.js'
import { addressOf, Cluster, joined, until } from '../cluster.js'
import { FakeWorld } from '../fake-pagers.js'

const quiet = { error: () => {}, warn: () => {}, info: () => {}, debug: () => {} }
const LOOP = '/ip4/127.0.0.1/tcp/4001'
const ANNOUNCED = { instance: '0'.repeat(32), claim: new Uint8Array(), name: 'n-1' }
let nextPort = 47_800 + (process.pid % 1000)

interface Twin {
  readonly identity: PrivateKey
  readonly incarnation: number
}

async function somePeer(): Promise<PeerId> {
  return peerIdFromPrivateKey(await generateKeyPair('Ed25519')).toString() as PeerId
}

async function listener(port: number, key = newKey(), addresses = [LOOP], twin?: Twin) {
  const identity = twin?.identity ?? (await generateKeyPair('Ed25519'))
  const twinsAt: (readonly string[])[] = []
  const twins = new Twins(identity, twin?.incarnation ?? 1, at => twinsAt.push(at))
  const self = peerIdFromPrivateKey(identity).toString() as PeerId
  const found: string[] = []
  const strangers: Stranger[] = []
  const onStranger = (one: Stranger) => strangers.push(one)
  const onFound = (peer: PeerId, at: readonly string[]) => found.push(`${peer} ${at}`)
  const site = { self, addresses: () => addresses, onStranger, onFound, twins }
  const discovery = lanDiscovery({ key, name: 'node', log: quiet, port })(site)
  return { self, found, strangers, twinsAt, discovery }
}

test('two agents on loopback find each other in less than a second, and only there', async t => {
  const port = nextPort++
  const key = newKey()
  const [a, b] = [await listener(port, key), await listener(port, key, ['/ip4/127.0.0.1/tcp/4002'])]
  t.teardown(() => [a, b].map(one => one.discovery.stop()))
  a.discovery.afterStart()
  await new Promise(resolve => setTimeout(resolve, 700))
  b.discovery.afterStart()
  const ms = await until('found', () => a.found.length > 0 && b.found.length > 0)
  t.log(`found after ${ms.toFixed(0)} ms`)
  t.true(ms < 1_000)
  t.is(a.found[0], `${b.self} /ip4/127.0.0.1/tcp/4002`)
  t.is(b.found[0], `${a.self} ${LOOP}`)
  t.deepEqual(a.discovery.interfaces(), ['127.0.0.1'])
})

test('an agent with another key is reported with the remedy, rubbish is ignored', async t => {
  const port = nextPort++
  const [a, b] = [await listener(port), await listener(port)]
  const noise = createSocket('udp4')
  t.teardown(() => {
    noise.close()
    a.discovery.stop()
    b.discovery.stop()
  })
  await new Promise<void>(resolve => noise.bind(0, '127.0.0.1', resolve))
  noise.setMulticastInterface('127.0.0.1')
  a.discovery.afterStart()
  b.discovery.afterStart()
  for (const packet of [
    Buffer.alloc(0),
    Buffer.alloc(60_000, 1),
    Buffer.from('elastic1 but not really, is it now? no'),
  ]) {
    noise.send(packet, port, DISCOVERY_GROUP)
  }
  await until('seen', () => a.strangers.length > 0 && b.strangers.length > 0)
  t.is(a.strangers[0]?.id, b.self)
  t.regex(a.strangers[0]?.remedy ?? '', /elasticos key show.*elasticos key set/)
  t.deepEqual([...a.found, ...b.found], [])
})

test('of two agents with one identity on a LAN the second is told where the first one is', async t => {
  const port = nextPort++
  const key = newKey()
  const identity = await generateKeyPair('Ed25519')
  const first = await listener(port, key, [LOOP], { identity, incarnation: 1 })
  const second = await listener(port, key, ['/ip4/127.0.0.1/tcp/4002'], { identity, incarnation: 2 })
  t.teardown(() => [first, second].map(one => one.discovery.stop()))
  second.discovery.afterStart()
  first.discovery.afterStart()
  await until('told', () => second.twinsAt.length > 0)
  t.deepEqual(second.twinsAt, [[LOOP]])
  t.deepEqual([first.twinsAt, first.found, second.found], [[], [], []])
})

test('an agent whose addresses are on no interface announces itself nowhere', async t => {
  const a = await listener(nextPort++, newKey(), ['/ip4/203.0.113.7/tcp/1', '/ip6/::1/tcp/1', '/unix/x'])
  t.teardown(() => a.discovery.stop())
  a.discovery.afterStart()
  await new Promise(resolve => setTimeout(resolve, 50))
  t.deepEqual(a.discovery.interfaces(), [])
})

test('announcements survive the codec; changed ones are refused', async t => {
  const codec = new AnnouncementCodec(newKey())
  const announcement = { ...ANNOUNCED, peer: await somePeer(), addresses: [LOOP] }
  const packet = codec.encode(announcement)
  t.deepEqual(codec.decode(packet), { kind: 'ours', announcement })
  fc.assert(
    fc.property(fc.nat(packet.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
      const changed = Uint8Array.from(packet)
      changed[at] = (changed[at] ?? 0) ^ flip
      return codec.decode(changed).kind !== 'ours'
    }),
  )
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: ANNOUNCEMENT_BYTES_MAX + 100 }), bytes => {
      const heard = codec.decode(Buffer.concat([Buffer.from('elastic1'), bytes]))
      return heard.kind === 'ignored' && codec.decode(bytes).kind === 'ignored'
    }),
  )
})

/** A packet that anybody can make: of a network whose name it invents. */
function forged(peer: PeerId, addresses: readonly string[]): Buffer {
  const body = encode({ key: '0123456789abcdef', ...ANNOUNCED, peer, addresses: [...addresses] })
  return Buffer.concat([Buffer.from('elastic1'), body, Buffer.alloc(32)])
}

test('addresses in an announcement are printable IP addresses, and few, whoever sends it', async t => {
  const codec = new AnnouncementCodec(newKey())
  const peer = await somePeer()
  const host = fc.oneof(fc.string({ unit: 'binary' }), fc.string(), fc.ipV4(), fc.ipV6())
  const anyAddress = fc
    .record({ kind: fc.constantFrom('ip4', 'ip6', 'dns', 'dns4', 'dns6'), host, port: fc.nat(70_000) })
    .map(({ kind, host, port }) => `/${kind}/${host}/tcp/${port}`)
  fc.assert(
    fc.property(fc.array(anyAddress, { maxLength: 12 }), addresses => {
      const heard = codec.decode(forged(peer, addresses))
      if (heard.kind === 'ignored') return true
      const shown = heard.announcement.addresses
      const plain = shown.every(address => /^\/ip[46]\/[\x21-\x7e]+$/.test(address) && address.length <= 100)
      return heard.kind === 'other-network' && plain && shown.length <= 8
    }),
    { numRuns: 1_000 },
  )
  t.is(codec.decode(forged(peer, [LOOP])).kind, 'other-network')
  for (const address of [
    '/dns4/\u001b[31m\n/tcp/1',
    '/dns4/example.org/tcp/1',
    '/ip6/fe80::1%\u001b[31m/tcp/1',
  ]) {
    t.deepEqual(codec.decode(forged(peer, [address])), { kind: 'ignored', reason: 'malformed' })
  }
  t.is(codec.decode(forged(peer, Array(9).fill('/ip4/1.2.3.4/tcp/1'))).kind, 'ignored')
})

test('three agents without --peer join through discovery', async t => {
  const cluster = await Cluster.make()
  t.teardown(() => cluster.stop())
  const world = new FakeWorld()
  const start = performance.now()
  const agents = await Promise.all(
    ['a', 'b', 'c'].map(name => cluster.start(name, world.pagers(), { discovery: true })),
  )
  await until('full mesh', () => agents.every(agent => joined(agent).length === 2))
  t.log(`started and joined after ${(performance.now() - start).toFixed(0)} ms`)
  t.true(agents.every(agent => addressOf(agent).startsWith('/ip4/127.0.0.1/')))
})
