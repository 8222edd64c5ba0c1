/**
 * The conformance suite of the network port (agent/net/port.ts): what the agents' machines rely on, whatever carries
 * it. A tier calls `peerNetworkConformance` with a way to make a network of its own for each test.
 *
 * Nothing here measures time: waits are for what must come, and give up late.
 */

import test, { type ExecutionContext } from 'ava'
import type { PeerId } from '../../agent/machines/types.js'
import {
  type AgentUnderTest,
  count,
  loadOf,
  type NetworkBench,
  numbersFrom,
  type StartOptions,
} from './peer-network-agent.js'

const NOBODY = `12D3KooW${'1'.repeat(44)}` as PeerId
/** More than any queue between two agents holds. */
const FLOOD = 20_000
const PUBLISHES_MAX = 200
/** Between two of them. */
const LOOKS = 20

class Scene {
  readonly agents: AgentUnderTest[] = []

  constructor(
    readonly t: ExecutionContext,
    readonly bench: NetworkBench,
  ) {}

  async start(name: string, options: Partial<StartOptions> = {}): Promise<AgentUnderTest> {
    const identity = this.agents.length
    const agent = await this.bench.start({ name, identity, peers: this.agents.slice(0, 1), ...options })
    this.agents.push(agent)
    return agent
  }

  /** Two agents that have joined. */
  async pair(): Promise<[AgentUnderTest, AgentUnderTest]> {
    const [a, b] = [await this.start('a'), await this.start('b')]
    await this.joined(a, b)
    return [a, b]
  }

  async joined(a: AgentUnderTest, b: AgentUnderTest, times = 1): Promise<void> {
    await this.bench.until(
      'joined',
      () => count(a, 'joined', b.self) >= times && count(b, 'joined', a.self) >= 1,
    )
  }

  async lost(a: AgentUnderTest, peer: PeerId): Promise<void> {
    await this.bench.until('lost', () => count(a, 'lost', peer) > 0)
  }
}

type Body = (scene: Scene) => Promise<void>

/** Registers the suite; `name` leads the titles. */
export function peerNetworkConformance(name: string, make: () => Promise<NetworkBench>): void {
  for (const [title, body] of Object.entries({ ...streams, ...gossip, ...endings })) {
    test.serial(`${name}: ${title}`, async t => {
      t.timeout(170_000)
      const bench = await make()
      const scene = new Scene(t, bench)
      try {
        await body(scene)
      } finally {
        await bench.close()
      }
      t.deepEqual(
        scene.agents.flatMap(agent => agent.faults),
        [],
      )
    })
  }
}

function ascending(first: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => first + i)
}

const streams: Record<string, Body> = {
  'two agents join, and each is told once who the other is': async scene => {
    const { t } = scene
    const [a, b] = await scene.pair()
    for (const [agent, peer, name] of [
      [a, b, 'b'],
      [b, a, 'a'],
    ] as const) {
      t.is(count(agent, 'joined', peer.self), 1)
      const joined = agent.events.find(event => event.kind === 'joined')
      t.like(joined, { peer: peer.self, load: { name, incarnation: 1 } })
    }
  },

  'messages arrive in order and once, both ways': async scene => {
    const [a, b] = await scene.pair()
    for (let first = 0; first < 200; first += 50) {
      scene.t.is(await a.send(b.self, first, 50), 50)
      scene.t.is(await b.send(a.self, first, 50), 50)
    }
    const all = () => numbersFrom(a, b.self).length >= 200 && numbersFrom(b, a.self).length >= 200
    await scene.bench.until('all messages', all)
    scene.t.deepEqual(numbersFrom(a, b.self), ascending(0, 200))
    scene.t.deepEqual(numbersFrom(b, a.self), ascending(0, 200))
  },

  'nothing is taken for who has not joined or was lost': async scene => {
    const a = await scene.start('a')
    scene.t.is(await a.send(NOBODY, 0, 3), 0)
    const b = await scene.start('b')
    await scene.joined(a, b)
    scene.t.is(await a.send(b.self, 0, 1), 1)
    await b.stop()
    await scene.lost(a, b.self)
    scene.t.is(await a.send(b.self, 1, 3), 0)
  },

  'a queue is bounded: too much ends the stream, and the agents join again': async scene => {
    const [a, b] = await scene.pair()
    const taken = await a.send(b.self, 0, FLOOD)
    scene.t.true(taken > 0 && taken < FLOOD, `${taken} taken`)
    await scene.lost(a, b.self)
    await scene.joined(a, b, 2)
    await scene.bench.until('b has joined again', () => count(b, 'joined', a.self) >= 2)
    scene.t.is(await a.send(b.self, FLOOD, 1), 1)
    await scene.bench.until('a message', () => numbersFrom(b, a.self).includes(FLOOD))
    const before = numbersFrom(b, a.self).slice(0, -1)
    scene.t.deepEqual(before, ascending(0, before.length))
  },
}

const gossip: Record<string, Body> = {
  'what an agent publishes is heard by all, with who said it': async scene => {
    const [a, b] = await scene.pair()
    const c = await scene.start('c')
    await scene.joined(a, c)
    const heard = (agent: AgentUnderTest) =>
      agent.events.some(event => event.kind === 'load' && event.peer === b.self && event.load.sequence > 1)
    let [sequence, looks] = [1, 0]
    await scene.bench.until('heard', () => {
      // Gossip may be lost, and is while the mesh is being made.
      if (looks++ % LOOKS === 0 && sequence < PUBLISHES_MAX) void b.publish(loadOf('b', 1, ++sequence))
      return heard(a) && heard(c)
    })
    for (const agent of [a, c]) {
      const loads = agent.events.filter(event => event.kind === 'load' && event.peer === b.self)
      scene.t.true(loads.length > 0)
      for (const event of loads) scene.t.like(event, { load: { name: 'b', incarnation: 1 } })
    }
  },

  'an agent with another network key never joins, and who sees it is told': async scene => {
    const a = await scene.start('a')
    const b = await scene.start('b', { key: 'other' })
    const c = await scene.start('c')
    await scene.joined(a, c)
    await scene.bench.until('told', () => b.events.some(event => event.kind === 'stranger'))
    const stranger = b.events.find(event => event.kind === 'stranger')
    if (stranger?.kind === 'stranger') scene.t.regex(stranger.stranger.remedy, /network key/)
    scene.t.is(await b.send(a.self, 0, 1), 0)
    for (const agent of [a, b, c]) {
      const others = agent.events.filter(event => event.kind === 'joined')
      scene.t.is(others.length, agent === b ? 0 : 1)
    }
  },
}

const endings: Record<string, Body> = {
  'who leaves is heard to, and then lost': async scene => {
    const [a, b] = await scene.pair()
    scene.t.true(await b.say(a.self, { kind: 'leaving' }))
    await b.stop()
    await scene.lost(a, b.self)
    const [before, last] = a.events.filter(event => event.kind === 'message' || event.kind === 'lost')
    scene.t.like(before, { kind: 'message', message: { kind: 'leaving' } })
    scene.t.is(last?.kind, 'lost')
  },

  'after stop nothing arrives and nothing is taken': async scene => {
    const [a, b] = await scene.pair()
    const stopping = b.stop()
    await a.send(b.self, 0, 20)
    await stopping
    const told = b.events.length
    await a.send(b.self, 20, 20)
    await a.publish(loadOf('a', 1, 2))
    await scene.lost(a, b.self)
    const c = await scene.start('c')
    await scene.joined(a, c)
    scene.t.is(b.events.length, told)
    scene.t.is(await b.send(a.self, 0, 1), 0)
    await b.publish(loadOf('b', 1, 2))
    await b.stop()
  },

  'an agent that comes back with its identity joins anew, and says what it has then': async scene => {
    const [a, b] = await scene.pair()
    await b.stop()
    await scene.lost(a, b.self)
    const again = await scene.start('b', { identity: 1, incarnation: 2 })
    scene.t.is(again.self, b.self)
    await scene.joined(a, again, 2)
    const joins = a.events.filter(event => event.kind === 'joined')
    scene.t.like(joins.at(-1), { peer: b.self, load: { incarnation: 2 } })
    scene.t.is(await a.send(again.self, 0, 5), 5)
    await scene.bench.until('messages', () => numbersFrom(again, a.self).length === 5)
  },

  'an agent that crashes is lost, and joins again when it is back': async scene => {
    const { crash } = scene.bench
    if (crash === undefined) {
      scene.t.pass('agents of one process cannot crash alone')
      return
    }
    const [a, b] = await scene.pair()
    await crash(b)
    await scene.lost(a, b.self)
    const again = await scene.start('b', { identity: 1, incarnation: 2 })
    await scene.joined(a, again, 2)
    scene.t.is(await again.send(a.self, 0, 1), 1)
  },

  'of two agents with one identity another has one stream at a time': async scene => {
    const [a, b] = await scene.pair()
    await scene.start('twin', { identity: 1, incarnation: 2 })
    const c = await scene.start('c')
    await scene.joined(a, c)
    scene.t.true(count(a, 'joined', b.self) - count(a, 'lost', b.self) <= 1)
    scene.t.false(
      b.events.some(event => event.kind === 'twin'),
      'the first one stays',
    )
  },
}
