/**
 * An agent that has the network key and says what no honest one does, to real agents beside an honest run: rubbish, too
 * much, replays, messages about others' leases and about runs that it has nothing to do with. It is refused or passed
 * over in few lines of the log, no agent ends, none lends more than it has, and the run's output is right.
 */

import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import type { PeerId, ProcessId } from '../../agent/machines/types.js'
import { encodeMessage, MESSAGE_BYTES_MAX, type PeerMessage, parseFacts } from '../../agent/net/messages.js'
import { PagerClient } from '../../kmod/pager-client.js'
import { listPagerSockets, pagerFacts } from '../../kmod/pager-host.js'
import { TestCluster, until } from '../helpers/cluster.js'
import { HostilePeer, LOAD } from '../helpers/hostile-peer.js'
import { alive } from '../helpers/processes.js'
import { SEED } from '../helpers/seed.js'
import { expectClean, expectProgress, type Scene, startScene } from './scene.js'

const TIMEOUT_MS = 180_000
const CAPACITY_PAGES = 16_384
const ROUNDS = 8
const STEPS = { minLength: 15, maxLength: 40 }
/** Of the two agents' logs together, however much was said to them. */
const LINES_MAX = 700
/** A lease without a lane ends after 10 s, one that is released after 4 s. */
const GIVEN_BACK_WITHIN_MS = 30_000
const TERMINATED = 128 + 15

interface Frame {
  readonly kind: 'frame'
  readonly bytes: Uint8Array
}
interface Bytes {
  readonly kind: 'bytes'
  readonly bytes: Uint8Array
}
type Step = PeerMessage | Frame | Bytes

/** What may be said: about the honest run, about others, with what is in and out of every range. */
function steps(run: ProcessId, peers: readonly PeerId[], facts: ReturnType<typeof parseFacts>) {
  if (facts === undefined) throw new Error('no facts')
  const edge = (...values: number[]) => fc.constantFrom(0, 1, ...values)
  const processId = fc.constantFrom(run, ...['1', '2', '3'].map(digit => digit.repeat(16) as ProcessId))
  const leaseId = fc.oneof(fc.nat({ max: 5 }), fc.maxSafeNat())
  const pages = edge(256, 4096, CAPACITY_PAGES, Number.MAX_SAFE_INTEGER)
  const terms = fc.record({ pages, threads: edge(64, 1_000_000), ttlMs: edge(10_000, 1_000_000) })
  const about = { processId, leaseId }
  const node = edge(2, 63)
  const laneKey = fc.uint8Array({ minLength: 32, maxLength: 32 })
  const where = {
    host: fc.constantFrom('', '127.0.0.1', '0.0.0.0', '::1'),
    port: edge(9, 65_535).map(p => p || 1),
  }
  const refusal = fc.record({
    code: fc.constantFrom('full' as const, 'stale-epoch' as const),
    detail: fc.constant('x'),
  })
  const kind = <K extends string>(name: K) => fc.constant(name)
  const named = fc.record({ node, name: fc.constant('n'), peer: fc.constantFrom(...peers) })
  const offered = fc.record({
    ...{ kind: kind('offer'), ...about, node, pages, laneKey },
    ...{
      program: fc.constant('x'.repeat(4096)),
      homeName: fc.constant('h'),
      epoch: edge(Number.MAX_SAFE_INTEGER),
    },
    ...{ threads: edge(64, 1_000_000), facts: fc.constantFrom(facts, { ...facts, pageSize: 65_536 }) },
  })
  return fc.oneof(
    { arbitrary: offered, weight: 3 },
    fc.record({ kind: kind('grant'), ...about, terms, ...where }),
    fc.record({ kind: kind('refuse'), ...about, refusal }),
    fc.record({ kind: kind('lease-update'), ...about, terms, reason: fc.constant('x') }),
    fc.record({ kind: kind('release'), ...about, homeEnded: fc.boolean() }),
    fc.record({ kind: kind('members'), processId, members: fc.array(named, { maxLength: 64 }) }),
    fc.record({ kind: kind('lane-ask'), ...about, fromNode: node, laneKey }),
    fc.record({ kind: kind('lane-agree'), ...about, terms, ...where }),
    fc.record({ kind: kind('lane-refuse'), ...about, refusal }),
    fc.record({ kind: kind('leaving') }),
    fc.record({
      kind: kind('hello'),
      instance: fc.constant('5'.repeat(32)),
      load: fc.record({ incarnation: edge(5), sequence: edge(7) }).map(more => ({ ...LOAD, ...more })),
    }),
    fc.record({ kind: kind('frame'), bytes: fc.uint8Array({ maxLength: 300 }) }),
    fc.record({ kind: kind('bytes'), bytes: fc.uint8Array({ minLength: 1, maxLength: 300 }) }),
    fc.record({ kind: kind('bytes'), bytes: fc.constant(Uint8Array.of(0xff, 0xff, 0xff, 0x7f)) }),
    fc.record({ kind: kind('frame'), bytes: fc.constant(new Uint8Array(MESSAGE_BYTES_MAX)) }),
  )
}

async function say(peer: HostilePeer, step: Step): Promise<void> {
  if (step.kind === 'bytes') await peer.sendBytes(step.bytes)
  else if (step.kind === 'frame') await peer.sendFrame(step.bytes)
  else await peer.sendFrame(encodeMessage(step))
}

/** A home's offer that was taken at its word, and then not kept. */
async function betray(peer: HostilePeer): Promise<number> {
  const offers = peer.received.splice(0).filter(message => message.kind === 'offer')
  for (const { processId, leaseId } of offers) {
    const terms = { pages: Number.MAX_SAFE_INTEGER, threads: 64, ttlMs: 1_000_000 }
    const grant = { kind: 'grant', processId, leaseId, terms, host: '127.0.0.1', port: 9 } as const
    for (const each of [grant, grant]) await peer.send(each)
    await peer.send({ kind: 'lease-update', processId, leaseId, terms: { ...terms, ttlMs: 0 }, reason: '' })
  }
  return offers.length
}

async function expectSound(t: ExecutionContext, scene: Scene, said: string): Promise<void> {
  for (const name of ['a', 'b']) {
    t.true(alive(scene.cluster.agent(name).pid), `${name} ended. ${said}`)
    const self = (await scene.cluster.nodes(name)).find(node => node.self)
    t.is(self?.capacityPages, CAPACITY_PAGES, said)
  }
  const within = async () => (await leased(scene.cluster)) <= CAPACITY_PAGES
  await until(`b to have leased no more than it has. ${said}`, within)
}

/** Pages of all leases that the pagers on `b` have been told of. */
async function leased(cluster: TestCluster): Promise<number> {
  let pages = 0
  for (const path of await listPagerSockets(join(cluster.agent('b').dataDir, 'run'))) {
    const pager = await PagerClient.connect(path, 'observer').catch(() => undefined)
    pages += pager?.describe.memoryPages ?? 0
    pager?.close()
  }
  return pages
}

test('an agent that says what it likes harms neither agents nor runs', async t => {
  t.timeout(TIMEOUT_MS)
  const said = `ELASTICOS_SEED=${SEED} repeats what is said`
  const facts = parseFacts(await pagerFacts())
  const cluster = await TestCluster.make()
  t.teardown(async () => {
    const left = await cluster.stop()
    if (left.length > 0) throw new Error(`left over: ${left.join('; ')}`)
  })
  await cluster.startAgents(2, { flags: ['--capacity', '64M'] })
  const scene = await startScene(cluster, 2)
  const run = cluster.pagerOf('a').id as ProcessId
  const [a, b] = [cluster.agent('a'), cluster.agent('b')]
  const hostile = await Promise.all([a, b].map(agent => HostilePeer.join(agent, cluster.keyFile, LOAD)))
  t.teardown(() => Promise.all(hostile.map(peer => peer.stop())))
  const linesBefore = lines(cluster)
  const peers = [a, b].map(agent => agent.peerId as PeerId)
  const rounds = fc.sample(fc.array(steps(run, peers, facts), STEPS), {
    numRuns: ROUNDS,
    seed: SEED,
  })
  let betrayed = 0
  for (const round of rounds) {
    for (const step of round) for (const peer of hostile) await say(peer, step)
    for (const step of round.slice(0, 3)) for (const peer of hostile) await say(peer, step)
    for (const peer of hostile) betrayed += await betray(peer)
    await expectSound(t, scene, said)
  }
  await expectProgress(t, scene)
  t.log(`${said}; ${hostile.map(peer => peer.streams)} streams, ${betrayed} offers betrayed`)
  t.log(`${lines(cluster) - linesBefore} lines of the logs`)
  t.true(betrayed > 0, 'it was believed to lend')
  t.true(lines(cluster) - linesBefore < LINES_MAX, said)
  t.regex(cluster.log('b'), /stream to \S+ ended: malformed message/)
  await Promise.all(hostile.map(peer => peer.stop()))
  const ofRunAlone = async (name: string) => (await cluster.processes(name)).length === 1
  const free = async () => (await ofRunAlone('a')) && (await ofRunAlone('b'))
  await until('its leases to end', free, GIVEN_BACK_WITHIN_MS)
  await expectProgress(t, scene)
  scene.running.child.kill('SIGTERM')
  const end = await scene.running.outcome
  t.is(end.status, TERMINATED, `${end.stderr} ${said}`)
  await expectClean(t, scene)
})

function lines(cluster: TestCluster): number {
  return ['a', 'b'].reduce((sum, name) => sum + cluster.log(name).split('\n').length, 0)
}
