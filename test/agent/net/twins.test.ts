/**
 * Two agents with one identity, as the network sees them: exactly the later one is told, by proof that nobody else can
 * give; others keep their stream to the first one; who was started again is no twin.
 */

import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { generateKeyPair, privateKeyToProtobuf } from '@libp2p/crypto/keys'
import type { PrivateKey } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import test, { type ExecutionContext } from 'ava'
import { encode } from 'cborg'
import fc from 'fast-check'
import { newKey } from '../../../agent/key.js'
import type { PeerId } from '../../../agent/machines/types.js'
import { Libp2pNetwork } from '../../../agent/net/libp2p.js'
import { Twins } from '../../../agent/net/twins.js'
import { count, loadOf, WatchedAgent } from '../../conformance/peer-network-agent.js'
import { until } from '../cluster.js'
import { PATIENCE_MS, QUIET } from './real-bench.js'

const PROGRAM = fileURLToPath(new URL('network-process.js', import.meta.url))
const LISTEN = ['/ip4/127.0.0.1/tcp/0']

/** Two identities, that with the smaller peer id first. */
async function identities(): Promise<[PrivateKey, PrivateKey]> {
  const keys = [await generateKeyPair('Ed25519'), await generateKeyPair('Ed25519')] as [
    PrivateKey,
    PrivateKey,
  ]
  return keys.sort((a, b) => (idOf(a) < idOf(b) ? -1 : 1))
}

function idOf(identity: PrivateKey): string {
  return peerIdFromPrivateKey(identity).toString()
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64')
}

class Scene {
  readonly key = newKey()
  readonly #t: ExecutionContext

  constructor(t: ExecutionContext) {
    this.#t = t
    t.timeout(2 * PATIENCE_MS)
  }

  async start(identity: PrivateKey, incarnation: number, peers: readonly string[] = []) {
    const load = loadOf(`n${incarnation}`, incarnation, 1)
    const rest = { listen: LISTEN, peers, allow: [], log: QUIET }
    const network = await Libp2pNetwork.start({ identity, key: this.key, load, ...rest })
    const agent = new WatchedAgent(network)
    const addresses = network.addresses()
    network.publish({ ...load, addresses })
    this.#t.teardown(() => agent.stop())
    return { agent, addresses, twins: () => agent.events.filter(event => event.kind === 'twin') }
  }
}

for (const order of ['smaller', 'larger'] as const) {
  for (const [start, second] of [
    ['started later', 2],
    ['started in the same millisecond', 1],
  ] as const) {
    test(`who has the ${order} id and a twin that ${start}: one of the two is told`, async t => {
      const [small, large] = await identities()
      const scene = new Scene(t)
      const twin = order === 'smaller' ? small : large
      const other = await scene.start(order === 'smaller' ? large : small, 1)
      const a = await scene.start(twin, 1, other.addresses)
      const b = await scene.start(twin, second, other.addresses)
      const told = () => a.twins().length + b.twins().length
      await until('told', () => told() > 0, PATIENCE_MS)
      const [stays, goes] = a.twins().length > 0 ? [b, a] : [a, b]
      if (second === 2) t.is(goes, b)
      t.deepEqual(goes.twins(), [{ kind: 'twin', addresses: stays.addresses }])
      await goes.agent.stop()
      const streams = () =>
        count(other.agent, 'joined', stays.agent.self) - count(other.agent, 'lost', stays.agent.self)
      await until(
        'one stream',
        () => streams() === 1 && stays.agent.events.at(-1)?.kind !== 'lost',
        PATIENCE_MS,
      )
      t.is(told(), 1)
      if (stays === a) t.is(count(other.agent, 'lost', stays.agent.self), 0, 'the first one is kept')
      t.deepEqual([...other.agent.faults, ...a.agent.faults, ...b.agent.faults], [])
    })
  }
}

test('an agent that was started again while its old connection is still there, and silent, is no twin', async t => {
  const [small, large] = await identities()
  const scene = new Scene(t)
  for (const [one, again] of [
    [large, small],
    [small, large],
  ] as const) {
    const other = await scene.start(one, 1)
    const options = {
      identity: base64(privateKeyToProtobuf(again)),
      key: base64(scene.key.bytes),
      listen: LISTEN,
    }
    const argument = JSON.stringify({ ...options, peers: other.addresses, load: loadOf('old', 1, 1) })
    const old = spawn(process.execPath, [PROGRAM, argument], { stdio: ['pipe', 'pipe', 'inherit'] })
    t.teardown(() => old.kill('SIGKILL'))
    const peer = idOf(again) as PeerId
    await until('the old one', () => count(other.agent, 'joined', peer) === 1, PATIENCE_MS)
    old.kill('SIGSTOP')
    const back = await scene.start(again, 2, other.addresses)
    await until('the new one', () => count(other.agent, 'joined', peer) === 2, PATIENCE_MS)
    const joins = other.agent.events.filter(event => event.kind === 'joined')
    t.like(joins.at(-1), { load: { incarnation: 2 } })
    await until('both', () => count(back.agent, 'joined', other.agent.self) > 0, PATIENCE_MS)
    t.deepEqual([...back.twins(), ...back.agent.faults, ...other.agent.faults], [])
  }
})

test('only a claim of the own key that names this instance counts', async t => {
  const [identity, other] = await identities()
  const first = new Twins(identity, 1, () => {})
  const second = new Twins(identity, 2, () => {})
  t.is(await second.judge(await first.claim(second.instance)), 'give-way')
  t.is(await first.judge(await second.claim(first.instance)), 'stay')
  t.is(
    await second.judge(await first.claim(new Twins(identity, 2, () => {}).instance)),
    'no-claim',
    'an old one',
  )
  t.is(await second.judge(await second.claim(second.instance)), 'no-claim', 'its own')
  t.is(
    await second.judge(await new Twins(other, 1, () => {}).claim(second.instance)),
    'no-claim',
    "another's",
  )
  const same = new Twins(identity, 1, () => {})
  const verdicts = [
    await first.judge(await same.claim(first.instance)),
    await same.judge(await first.claim(same.instance)),
  ]
  t.deepEqual(verdicts.sort(), ['give-way', 'stay'])
  const claim = await first.claim(second.instance)
  await fc.assert(
    fc.asyncProperty(fc.nat(claim.length - 1), fc.integer({ min: 1, max: 255 }), async (at, flip) => {
      const changed = Uint8Array.from(claim, (byte, i) => (i === at ? byte ^ flip : byte))
      return (await second.judge(changed)) === 'no-claim'
    }),
  )
  for (const rubbish of [
    new Uint8Array(),
    new Uint8Array(1000),
    encode({ body: encode(null), signature: claim }),
  ])
    t.is(await second.judge(rubbish), 'no-claim')
})
