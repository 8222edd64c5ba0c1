/**
 * How agents meet that do not know of each other from the start: through one that both know, again after a restart on
 * another port, and on interfaces and addresses that come and go. Where nothing is published, gossip tells of nobody.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { generateKeyPair } from '@libp2p/crypto/keys'
import type { PrivateKey } from '@libp2p/interface'
import test, { type ExecutionContext } from 'ava'
import { newKey } from '../../../agent/key.js'
import type { PeerId } from '../../../agent/machines/types.js'
import { Libp2pNetwork } from '../../../agent/net/libp2p.js'
import { count, loadOf, WatchedAgent } from '../../conformance/peer-network-agent.js'
import { TestCluster } from '../../helpers/cluster.js'
import { Hosts, namespacesMissing } from '../../helpers/namespaces.js'
import { until as untilAsync } from '../../helpers/outcome.js'
import { until } from '../cluster.js'
import { PATIENCE_MS, QUIET } from './real-bench.js'

const LISTEN = ['/ip4/127.0.0.1/tcp/0']
const EVERYWHERE = ['--listen', '/ip4/0.0.0.0/tcp/7420']
const SEVERAL_MS = 25_000

class Scene {
  readonly #key = newKey()
  readonly #t: ExecutionContext

  constructor(t: ExecutionContext) {
    this.#t = t
    t.timeout(2 * PATIENCE_MS)
  }

  /** An agent that never publishes; where it can be dialled it says in its hello. */
  async start(name: string, identity: PrivateKey, peers: readonly string[], incarnation = 1) {
    const load = loadOf(name, incarnation, 1)
    const rest = { listen: LISTEN, allow: [], log: QUIET, key: this.#key, load }
    const network = await Libp2pNetwork.start({ ...rest, identity, peers: [] })
    const addresses = network.addresses()
    network.publish({ ...load, addresses })
    for (const peer of peers) network.discovered(...split(peer), 'lan')
    const agent = new WatchedAgent(network)
    this.#t.teardown(() => agent.stop())
    return { agent, network, address: `${addresses[0]}/p2p/${agent.self}` }
  }
}

function split(address: string): [PeerId, string[]] {
  const [where = '', peer = ''] = address.split('/p2p/')
  return [peer as PeerId, [where]]
}

test('two agents that know the same third one meet, and again when one is back on another port', async t => {
  const scene = new Scene(t)
  const [one, two, three] = await Promise.all([1, 2, 3].map(() => generateKeyPair('Ed25519')))
  if (one === undefined || two === undefined || three === undefined) throw new Error('no keys')
  const a = await scene.start('a', one, [])
  const b = await scene.start('b', two, [a.address])
  await until('b', () => count(a.agent, 'joined', b.agent.self) > 0, PATIENCE_MS)
  const c = await scene.start('c', three, [a.address])
  const ms = await until('b and c', () => count(b.agent, 'joined', c.agent.self) > 0, PATIENCE_MS)
  await c.agent.stop()
  await until('c is gone', () => count(b.agent, 'lost', c.agent.self) > 0, PATIENCE_MS)
  const again = await scene.start('c', three, [a.address], 2)
  t.not(again.address, c.address)
  const msAgain = await until('c again', () => count(b.agent, 'joined', c.agent.self) > 1, PATIENCE_MS)
  t.log(`met after ${ms.toFixed(0)} ms, again after ${msAgain.toFixed(0)} ms`)
  t.like(b.agent.events.filter(event => event.kind === 'joined').at(-1), { load: { incarnation: 2 } })
  t.deepEqual([...a.agent.faults, ...b.agent.faults, ...again.agent.faults], [])
})

test('an agent that is kept out does not dial all the time', async t => {
  const key = newKey()
  t.timeout(2 * PATIENCE_MS)
  const [one, two] = await Promise.all([generateKeyPair('Ed25519'), generateKeyPair('Ed25519')])
  const start = async (name: string, identity: PrivateKey, peers: string[], allow: PeerId[]) => {
    const load = loadOf(name, 1, 1)
    const network = await Libp2pNetwork.start({
      identity,
      key,
      listen: LISTEN,
      peers,
      allow,
      load,
      log: QUIET,
    })
    const agent = new WatchedAgent(network)
    t.teardown(() => agent.stop())
    return { network, agent }
  }
  const nobody = '12D3KooWEBAKjPYRLa1b1vd1Gsq86sLbCPkwNBRnhoDmKfXL1FQe' as PeerId
  const a = await start('a', one, [], [nobody])
  const b = await start('b', two, a.network.addresses(), [])
  const refused = () => a.agent.events.filter(event => event.kind === 'stranger').length
  await until('refused', () => refused() >= 3, PATIENCE_MS)
  const before = refused()
  await sleep(3_000)
  t.log(`${refused() - before} times in three seconds`)
  t.true(refused() - before <= 6)
  t.is(count(b.agent, 'joined', a.agent.self), 0)
})

test('whatever is said of where a connected agent is, by itself or by others, its connection stays', async t => {
  const scene = new Scene(t)
  const [one, two] = await Promise.all([generateKeyPair('Ed25519'), generateKeyPair('Ed25519')])
  const a = await scene.start('a', one, [])
  const b = await scene.start('b', two, [a.address])
  await until('b', () => count(a.agent, 'joined', b.agent.self) > 0, PATIENCE_MS)
  for (let i = 0; i < 20; i++) {
    for (const source of ['lan', 'gossip', 'another'] as const)
      a.network.discovered(b.agent.self, [`/ip4/10.99.${i}.1/tcp/1`, `/ip4/10.99.${i}.2/tcp/1`], source)
    if (i % 10 === 0) await sleep(1_000)
  }
  await sleep(3_000)
  t.is(count(a.agent, 'lost', b.agent.self), 0)
  t.is(count(b.agent, 'lost', a.agent.self), 0)
})

const missing = namespacesMissing()
const maybe = missing === undefined ? test.serial : test.serial.skip
if (missing !== undefined) console.log(`skipped, no network namespaces: ${missing}`)

maybe('cables and addresses that come and go', async t => {
  t.timeout(300_000)
  const hosts = Hosts.make(2)
  t.teardown(() => hosts.remove())
  const cluster = await TestCluster.make()
  t.teardown(() => cluster.stop())
  hosts.setLink(1, 'down')
  hosts.readdress(1, hosts.address(1), undefined)
  for (const [i, name] of ['a', 'b'].entries())
    await cluster.startAgent(name, {
      discovery: true,
      flags: EVERYWHERE,
      peers: [],
      prefix: hosts.prefix(i),
    })
  const b = async () => (await cluster.nodes('a')).find(node => node.name === 'b')
  t.is(await b(), undefined)
  const sees = (what: string, address: string) =>
    untilAsync(
      what,
      async () => (await b())?.addresses.includes(`/ip4/${address}/tcp/7420`) === true,
      SEVERAL_MS,
    )
  let from = performance.now()
  const tookMs = () => (performance.now() - from).toFixed(0)
  hosts.setLink(1, 'up')
  hosts.readdress(1, undefined, '10.77.0.9')
  await sees('b, once it has an address', '10.77.0.9')
  t.log(`an interface that comes: joined after ${tookMs()} ms`)
  from = performance.now()
  hosts.readdress(1, '10.77.0.9', '10.77.0.10')
  await sees('b, under its new address', '10.77.0.10')
  await untilAsync('b joined', async () => (await b())?.state === 'joined', SEVERAL_MS)
  t.log(`an address that changes: known after ${tookMs()} ms`)
  const [address] = (await cluster.nodes('b')).filter(node => node.self).flatMap(node => node.addresses)
  t.is(address, '/ip4/10.77.0.10/tcp/7420')
})

maybe('agents that have IPv6 alone find each other, and lend', async t => {
  t.timeout(300_000)
  const hosts = Hosts.make(2)
  t.teardown(() => hosts.remove())
  const cluster = await TestCluster.make()
  t.teardown(() => cluster.stop())
  const flags = ['--listen', '/ip6/::/tcp/7420']
  for (const [i, name] of ['a', 'b'].entries()) {
    hosts.useIPv6(i)
    await cluster.startAgent(name, { discovery: true, flags, peers: [], prefix: hosts.prefix(i) })
  }
  const from = performance.now()
  await cluster.whenJoined(2)
  t.log(`joined after ${(performance.now() - from).toFixed(0)} ms`)
  const [, b] = await cluster.nodes('a')
  t.deepEqual(b?.addresses, ['/ip6/fd77::2/tcp/7420'])
  const run = ['--memory', '4M', '--participants-min', '2', '--wait', '20s']
  const end = await cluster.run('a', run, ['echo', 'right'], { prefix: hosts.prefix(0) }).outcome
  t.is(end.status, 0, end.stderr)
  t.is(end.stdout.toString(), 'right\n')
})
