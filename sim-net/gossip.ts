/**
 * Gossip on the simulated network: what an agent publishes reaches all others of its network key, passed on from one
 * to the next, wherever there is any way around cuts. It may be lost, come twice and be overtaken.
 *
 * It spreads in waves, each `MESH_DEGREE` times as large as the one before, over hosts in an order that is drawn each
 * time; all of a wave hear it at one moment, so that one event serves many receivers.
 *
 * Each receiver's fate is drawn, and it is counted. Who does not want loads of strangers (`spareStrangers`) is told of
 * those alone whom it has met: of others agents make nothing (Membership), and of thousands most are others.
 */

import type { Load } from '../agent/machines/membership.js'
import type { NetworkEvent } from '../agent/net/port.js'
import type { SimAgent } from './agent.js'
import type { SimHost } from './host.js'
import type { SeededRng } from './rng.js'
import type { LinkProfile } from './topology.js'
import type { World } from './world.js'

/** As gossipsub has it. */
const MESH_DEGREE = 6
/** A signature is made and checked at each hop; measured for agent/net. */
const HOP_MS = 1

/** All hosts of one network key, in the order of their first start. */
class Group {
  readonly agents: (SimAgent | undefined)[] = []
  /** By sender: a bit for each place whose agent has met it. */
  readonly #met: Uint8Array[] = []
  /** There are allow lists, or identities that two hosts have. */
  isPicky = false

  add(agent: SimAgent, place: number): void {
    if (place < this.agents.length) for (const met of this.#met) set(met, place, false)
    else this.#met.push(new Uint8Array(0))
    this.agents[place] = agent
    this.isPicky ||= agent.host.isPicky
  }

  metBy(sender: number): Uint8Array {
    return this.#met[sender] as Uint8Array
  }

  meet(place: number, sender: number): void {
    const met = this.metBy(sender)
    const wide = met.length * 8 > place ? met : widened(met, (this.agents.length >> 3) + 1)
    this.#met[sender] = wide
    set(wide, place, true)
  }
}

/** One message on its way. */
interface Rumour {
  readonly from: SimAgent
  readonly place: number
  readonly event: NetworkEvent
  readonly unreached: ReadonlySet<number> | undefined
}

export class Gossip {
  readonly #world: World
  readonly #rng: SeededRng
  readonly #spareStrangers: boolean
  readonly #groups = new Map<string, Group>()
  readonly #places = new Map<SimHost, number>()
  /** Loads that have reached an agent, whichever. */
  delivered = 0

  constructor(world: World, rng: SeededRng, spareStrangers: boolean) {
    this.#world = world
    this.#rng = rng
    this.#spareStrangers = spareStrangers
  }

  add(agent: SimAgent): void {
    const { host } = agent
    const group = this.#groups.get(host.key) ?? new Group()
    this.#groups.set(host.key, group)
    const place = this.#places.get(host) ?? group.agents.length
    this.#places.set(host, place)
    group.add(agent, place)
  }

  remove({ host }: SimAgent): void {
    const place = this.#places.get(host)
    const group = this.#groups.get(host.key)
    if (place !== undefined && group !== undefined) group.agents[place] = undefined
  }

  /** From now on `agent` hears what an agent of that host says. */
  meet({ host }: SimAgent, sender: SimHost): void {
    const [place, from] = [this.#places.get(host), this.#places.get(sender)]
    if (place !== undefined && from !== undefined) this.#groups.get(host.key)?.meet(place, from)
  }

  publish(from: SimAgent, load: Load, bytes: number): void {
    const { clock, topology, trace } = this.#world
    const { host } = from
    trace.count(clock.now(), 'publish', host.number, -1, bytes)
    const group = this.#groups.get(host.key)
    const sender = this.#places.get(host)
    if (group === undefined || sender === undefined) return
    const { agents } = group
    const unreached = topology.isWhole ? undefined : this.#unreached(from, agents)
    const rumour = { from, place: sender, event: { kind: 'load', peer: from.self, load }, unreached } as const
    const link = topology.uniform
    let place = this.#rng.below(agents.length)
    let time = clock.now()
    for (let done = 0, size = MESH_DEGREE; done < agents.length; size *= MESH_DEGREE) {
      const first = place
      const count = Math.min(size, agents.length - done)
      const { latencyMs, jitterMs } = link ?? topology.link(host.number, -1)
      time += HOP_MS + latencyMs + jitterMs * this.#rng.next()
      clock.soon(time, () => this.#wave(group, rumour, first, count))
      done += count
      place = (place + count) % agents.length
    }
  }

  #wave(group: Group, rumour: Rumour, first: number, count: number): void {
    const { clock, topology, trace } = this.#world
    const { agents, isPicky } = group
    const met = group.metBy(rumour.place)
    const isEasy = !isPicky && rumour.unreached === undefined && isPlain(topology.uniform)
    const before = this.delivered
    for (let i = 0, place = first; i < count; i++, place++) {
      if (place === agents.length) place = 0
      const agent = agents[place]
      if (agent === undefined || place === rumour.place) continue
      if (!isEasy) this.#tryToDeliver(group, rumour, place, agent)
      else {
        this.delivered++
        if (!this.#spareStrangers || isSet(met, place)) agent.hear(rumour.event)
      }
    }
    trace.count(clock.now(), 'wave', rumour.from.host.number, first, this.delivered - before)
  }

  #tryToDeliver(group: Group, rumour: Rumour, place: number, { self, host }: SimAgent): void {
    const { from, unreached } = rumour
    if (self === from.self || unreached?.has(host.number) === true || !host.allows(from.self)) return
    const link = this.#world.topology.link(from.host.number, host.number)
    if (isPlain(link)) this.#deliver(group, rumour, place)
    else this.#deliverBadly(group, rumour, place, link)
  }

  #deliver(group: Group, rumour: Rumour, place: number): void {
    this.delivered++
    const isTold = !this.#spareStrangers || isSet(group.metBy(rumour.place), place)
    if (isTold) group.agents[place]?.hear(rumour.event)
  }

  #deliverBadly(group: Group, rumour: Rumour, place: number, link: LinkProfile): void {
    const { clock } = this.#world
    if (this.#rng.chance(link.loss)) return
    const late = this.#rng.chance(link.reorder)
    if (!late) this.#deliver(group, rumour, place)
    if (!late && !this.#rng.chance(link.duplicate)) return
    const ms = this.#rng.between(0, Math.max(link.reorderMs, link.latencyMs))
    clock.soon(clock.now() + ms, () => this.#deliver(group, rumour, place))
  }

  #unreached(from: SimAgent, agents: readonly (SimAgent | undefined)[]): ReadonlySet<number> {
    const all = () => agents.flatMap(agent => (agent === undefined ? [] : [agent.host.number]))
    return this.#world.topology.unreached(from.host.number, all)
  }
}

function isPlain(link: LinkProfile | undefined): boolean {
  return link?.loss === 0 && link.duplicate === 0 && link.reorder === 0
}

function isSet(bits: Uint8Array, at: number): boolean {
  return (((bits[at >> 3] ?? 0) >> (at & 7)) & 1) === 1
}

function set(bits: Uint8Array, at: number, value: boolean): void {
  const byte = bits[at >> 3]
  if (byte === undefined) return
  const bit = 1 << (at & 7)
  bits[at >> 3] = value ? byte | bit : byte & ~bit
}

function widened(bits: Uint8Array, length: number): Uint8Array {
  const wide = new Uint8Array(length)
  wide.set(bits)
  return wide
}
