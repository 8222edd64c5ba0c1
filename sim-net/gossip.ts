/**
 * Gossip on the simulated network: what an agent publishes reaches all others of its network key, passed on from one
 * to the next, wherever there is any way around cuts. It may be lost, come twice and be overtaken.
 *
 * It spreads in waves, each `MESH_DEGREE` times as large as the one before, over hosts in an order that is drawn each
 * time; all of a wave hear it at one moment, so that one event serves many receivers.
 */

import type { Load } from '../agent/machines/membership.js'
import type { NetworkEvent } from '../agent/net/port.js'
import type { SimAgent } from './agent.js'
import type { SeededRng } from './rng.js'
import type { LinkProfile } from './topology.js'
import type { World } from './world.js'

/** As gossipsub has it. */
const MESH_DEGREE = 6
/** A signature is made and checked at each hop; measured for agent/net. */
const HOP_MS = 1

export class Gossip {
  readonly #world: World
  readonly #rng: SeededRng
  /** Agents by network key, in the order of their hosts' first start. */
  readonly #agents = new Map<string, (SimAgent | undefined)[]>()
  readonly #places = new Map<SimAgent, number>()
  readonly #free = new Map<string, number[]>()
  /** Loads that were heard, by whomever. */
  delivered = 0

  constructor(world: World, rng: SeededRng) {
    this.#world = world
    this.#rng = rng
  }

  add(agent: SimAgent): void {
    const { key } = agent.host
    const agents = this.#agents.get(key) ?? []
    this.#agents.set(key, agents)
    const place = this.#free.get(key)?.pop() ?? agents.length
    agents[place] = agent
    this.#places.set(agent, place)
  }

  remove(agent: SimAgent): void {
    const place = this.#places.get(agent)
    const agents = this.#agents.get(agent.host.key)
    if (place === undefined || agents === undefined) return
    agents[place] = undefined
    this.#places.delete(agent)
    const free = this.#free.get(agent.host.key) ?? []
    this.#free.set(agent.host.key, free)
    free.push(place)
  }

  publish(from: SimAgent, load: Load, bytes: number): void {
    const { clock, topology, trace } = this.#world
    const { host } = from
    trace.count(clock.now(), 'publish', host.number, -1, bytes)
    const agents = this.#agents.get(host.key) ?? []
    const unreached = topology.isWhole ? undefined : this.#unreached(from, agents)
    const event: NetworkEvent = { kind: 'load', peer: from.self, load }
    const link = topology.uniform
    let place = this.#rng.below(agents.length)
    let time = clock.now()
    for (let done = 0, size = MESH_DEGREE; done < agents.length; size *= MESH_DEGREE) {
      const first = place
      const count = Math.min(size, agents.length - done)
      const { latencyMs, jitterMs } = link ?? topology.link(host.number, -1)
      time += HOP_MS + latencyMs + jitterMs * this.#rng.next()
      clock.at(time, () => this.#wave(from, agents, first, count, event, unreached))
      done += count
      place = (place + count) % agents.length
    }
  }

  #wave(
    from: SimAgent,
    agents: readonly (SimAgent | undefined)[],
    first: number,
    count: number,
    event: NetworkEvent,
    unreached: ReadonlySet<number> | undefined,
  ): void {
    const { clock, topology, trace } = this.#world
    const uniform = topology.uniform
    const before = this.delivered
    for (let i = 0, place = first; i < count; i++, place++) {
      if (place === agents.length) place = 0
      const agent = agents[place]
      if (agent === undefined || agent.self === from.self) continue
      const { number } = agent.host
      if (unreached?.has(number) === true || !agent.host.allows(from.self)) continue
      const link = uniform ?? topology.link(from.host.number, number)
      if (isPlain(link)) this.#deliver(agent, event)
      else this.#deliverBadly(agent, event, link)
    }
    trace.count(clock.now(), 'wave', from.host.number, first, this.delivered - before)
  }

  #deliver(agent: SimAgent, event: NetworkEvent): void {
    this.delivered++
    if (agent.host.stalled) agent.host.run(() => agent.emit(event))
    else agent.emit(event)
  }

  #deliverBadly(agent: SimAgent, event: NetworkEvent, link: LinkProfile): void {
    const { clock } = this.#world
    if (this.#rng.chance(link.loss)) return
    const late = this.#rng.chance(link.reorder)
    if (!late) this.#deliver(agent, event)
    if (!late && !this.#rng.chance(link.duplicate)) return
    const ms = this.#rng.between(0, Math.max(link.reorderMs, link.latencyMs))
    clock.at(clock.now() + ms, () => this.#deliver(agent, event))
  }

  #unreached(from: SimAgent, agents: readonly (SimAgent | undefined)[]): ReadonlySet<number> {
    const all = () => agents.flatMap(agent => (agent === undefined ? [] : [agent.host.number]))
    return this.#world.topology.unreached(from.host.number, all)
  }
}

function isPlain({ loss, duplicate, reorder }: LinkProfile): boolean {
  return loss === 0 && duplicate === 0 && reorder === 0
}
