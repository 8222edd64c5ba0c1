/**
 * A simulated network of agents: who finds whom, streams between them, gossip, and the faults of links and hosts, all
 * from one seed and in virtual time.
 *
 * Agents of one network key find each other within half a second of the later one's start, as over LAN discovery, and
 * again whenever they can reach each other and have no stream. Beyond `viewMax` agents each has streams to some others
 * that are drawn; gossip still comes from all.
 *
 * Limits: bandwidth is counted on streams only. A cut loses what is sent from then on; what is under way arrives.
 */

import type { Load } from '../agent/machines/membership.js'
import { CONNECTIONS_MAX, REMEDY_OTHER_KEY, remedyNotAllowed } from '../agent/net/limits.js'
import { type AgentSite, SimAgent } from './agent.js'
import { VirtualClock } from './clock.js'
import { Gossip } from './gossip.js'
import { type HostOptions, SimHost } from './host.js'
import { SeededRng } from './rng.js'
import { StreamEnd } from './stream.js'
import { LAN, type LinkProfile, Topology } from './topology.js'
import { Trace } from './trace.js'
import type { World } from './world.js'

export interface SimNetworkOptions {
  readonly seed: number
  /** All links that are not set one by one. */
  readonly link?: LinkProfile
  /** Up to so many agents all know each other; of more, each new one knows half as many others, nobody over 1.5 times. */
  readonly viewMax?: number
  /** Agents are not told of loads of others that they have never had a stream to: faster. */
  readonly spareStrangers?: boolean
  /** Whether to keep a list of what happens, for pictures. */
  readonly record?: boolean
}

/** `reset`: its kernel closes its connections. `silent`: it says nothing more, like a host without power. */
export type CrashKind = 'reset' | 'silent'

/** Then nobody has more streams than libp2p's connections. */
const VIEW_MAX = Math.floor((2 / 3) * CONNECTIONS_MAX)
const FOUND_MS = 500
/** The dialer's pauses; handshakes take three round trips. */
const REDIAL_MS = 250
const REDIAL_MS_MAX = 10_000
const HANDSHAKE_TRIPS = 6
/** How often discovery tells of an agent that may not join. */
const STRANGERS_MS = 4_000

/** Two hosts that know of each other. */
interface Pair {
  readonly one: SimHost
  readonly other: SimHost
  /** Of their last stream, each open or closed. */
  ends: readonly StreamEnd[]
  dialling: boolean
  apartSince: number
}

export class SimNetwork {
  readonly clock = new VirtualClock()
  readonly trace: Trace
  readonly rng: SeededRng
  readonly #topology: Topology
  readonly #world: World
  readonly #gossip: Gossip
  readonly #discovery: SeededRng
  readonly #viewMax: number
  readonly #hosts: SimHost[] = []
  /** Those that can know more others. */
  readonly #roomy: SimHost[] = []
  readonly #agents = new Map<SimHost, SimAgent>()
  readonly #pairs = new Map<SimHost, Pair[]>()
  readonly #strangers: Pair[] = []
  /** When partitions ended, and cuts of two hosts. */
  #healedAt = Number.NEGATIVE_INFINITY
  readonly #mended = new Map<string, number>()
  readonly #site: (host: SimHost) => AgentSite

  constructor(options: SimNetworkOptions) {
    const { seed, link = LAN, viewMax = VIEW_MAX, spareStrangers = false, record = false } = options
    this.rng = new SeededRng(seed)
    this.trace = new Trace({ record })
    this.#topology = new Topology(link)
    this.#world = { clock: this.clock, topology: this.#topology, trace: this.trace }
    this.#gossip = new Gossip(this.#world, this.rng.fork('gossip'), spareStrangers)
    this.#discovery = this.rng.fork('discovery')
    this.#viewMax = viewMax
    this.#site = host => ({
      soon: act => this.clock.at(this.clock.now(), () => host.run(act)),
      gossip: (agent, load, bytes) => this.#gossip.publish(agent, load, bytes),
      met: (agent, other) => this.#gossip.meet(agent, other),
      left: agent => this.#end(agent, 'stopped'),
    })
  }

  /** Loads that have reached agents. */
  get loadsHeard(): number {
    return this.#gossip.delivered
  }

  /** Whether what `from` sends straight to `to` arrives. */
  isOpen(from: SimHost, to: SimHost): boolean {
    return this.#topology.isOpen(from.number, to.number)
  }

  /** Both ways. */
  areOpen(one: SimHost, other: SimHost): boolean {
    return this.isOpen(one, other) && this.isOpen(other, one)
  }

  link(from: SimHost, to: SimHost): LinkProfile {
    return this.#topology.link(from.number, to.number)
  }

  /** Until when something was wrong with one of two hosts, or between them: a cut, a stall, an agent that was down. */
  troubledUntil(one: SimHost, other: SimHost): number {
    const now = this.clock.now()
    if (!this.areOpen(one, other) || one.stalled || other.stalled || !one.isUp || !other.isUp) return now
    const mended = this.#mended.get(pairKey(one, other)) ?? Number.NEGATIVE_INFINITY
    return Math.max(this.#healedAt, mended, one.soundSince, other.soundSince)
  }

  /** A new machine; what it draws depends on seed and name alone. */
  host(name: string, options: HostOptions = {}): SimHost {
    const host = new SimHost(this.#hosts.length, name, this.clock, this.rng.fork(`host/${name}`), options)
    this.#introduce(host)
    this.#hosts.push(host)
    this.#roomy.push(host)
    return host
  }

  /** Starts an agent on a host, on which none runs; again after a crash. */
  start(host: SimHost, load: Load): SimAgent {
    if (host.isUp) throw new Error(`an agent runs on ${host.name} already`)
    const agent = new SimAgent(host, this.#site(host), load)
    host.isUp = true
    host.soundSince = this.clock.now()
    this.#agents.set(host, agent)
    this.#gossip.add(agent)
    this.#topology.changed()
    this.#note('start', host)
    for (const pair of this.#pairsOf(host)) {
      for (const end of pair.ends) end.noteHeal()
      this.#dialIn(pair, this.#discovery.between(FOUND_MS / 10, FOUND_MS))
    }
    return agent
  }

  crash(host: SimHost, how: CrashKind): void {
    const agent = this.#agents.get(host)
    if (agent === undefined) return
    const ends = [...agent.ends.values()]
    agent.end()
    for (const end of ends) {
      if (how === 'reset') end.abort('crashed')
      else end.vanish()
    }
    this.#end(agent, how)
  }

  /** Nothing runs on the host for so long; then all that has come meanwhile. */
  stall(host: SimHost, ms: number): void {
    this.#note('stall', host, undefined, String(ms))
    host.stall(ms)
  }

  jumpClock(host: SimHost, ms: number): void {
    this.#note('clock', host, undefined, String(ms))
    host.jumpClock(ms)
  }

  /** What `from` sends to `to` vanishes from now on. */
  cut(from: SimHost, to: SimHost): void {
    this.#note('cut', from, to)
    this.#topology.cut(from.number, to.number)
    for (const pair of this.#pairsBetween(from, to)) for (const end of pair.ends) end.noteBreak()
  }

  /** Undoes a cut. */
  mend(from: SimHost, to: SimHost): void {
    this.#note('mend', from, to)
    this.#topology.mend(from.number, to.number)
    this.#mended.set(pairKey(from, to), this.clock.now())
    for (const pair of this.#pairsBetween(from, to)) this.#reunite(pair)
  }

  /** Only hosts of the same group reach each other; those that are in none are one group. */
  partition(groups: readonly (readonly SimHost[])[]): void {
    this.trace.note(this.clock.now(), 'partition', -1, -1, groups.map(group => group.length).join(' '))
    this.#healedAt = this.clock.now()
    this.#topology.partition(groups.map(group => group.map(host => host.number)))
    this.#forAllPairs(pair => {
      for (const end of pair.ends) end.noteBreak()
      this.#reunite(pair)
    })
  }

  /** Ends all cuts and partitions. */
  heal(): void {
    this.trace.note(this.clock.now(), 'heal')
    this.#healedAt = this.clock.now()
    this.#topology.heal()
    this.#forAllPairs(pair => this.#reunite(pair))
  }

  /** Sets both directions of one link. */
  setLink(one: SimHost, other: SimHost, profile: LinkProfile): void {
    this.#note('link', one, other)
    this.#topology.setLink(one.number, other.number, profile)
    this.#topology.setLink(other.number, one.number, profile)
  }

  /** Sets all links that were not set one by one. */
  setLinks(profile: LinkProfile): void {
    this.trace.note(this.clock.now(), 'links')
    this.#topology.setDefault(profile)
  }

  #end(agent: SimAgent, how: string): void {
    const { host } = agent
    host.endLife()
    this.#agents.delete(host)
    this.#gossip.remove(agent)
    this.#topology.changed()
    this.#note(how, host)
  }

  /** Draws whom a new host knows. */
  #introduce(host: SimHost): void {
    const all = this.#roomy
    const most = this.#hosts.length <= this.#viewMax ? all.length : Math.max(1, this.#viewMax >> 1)
    const count = Math.min(most, all.length)
    // Those that are drawn go to the front (Fisher and Yates); who knows enough others then leaves.
    for (let i = 0; i < count; i++) this.#swap(i, i + this.#discovery.below(all.length - i))
    for (let i = count - 1; i >= 0; i--) {
      const other = all[i] as SimHost
      if (other.self !== host.self) this.#acquaint(other, host)
      if (this.#pairsOf(other).length < 1.5 * this.#viewMax) continue
      this.#swap(i, all.length - 1)
      all.pop()
    }
  }

  #swap(i: number, j: number): void {
    const all = this.#roomy
    const one = all[i] as SimHost
    all[i] = all[j] as SimHost
    all[j] = one
  }

  #acquaint(one: SimHost, other: SimHost): void {
    const pair = { one, other, ends: [], dialling: false, apartSince: 0 }
    if ((refusal(one, other) ?? refusal(other, one)) !== undefined) {
      this.#addStrangers(pair)
      return
    }
    this.#addPair(one, pair)
    this.#addPair(other, pair)
  }

  #addPair(host: SimHost, pair: Pair): void {
    const pairs = this.#pairs.get(host)
    if (pairs === undefined) this.#pairs.set(host, [pair])
    else pairs.push(pair)
  }

  #addStrangers(pair: Pair): void {
    this.#strangers.push(pair)
    if (this.#strangers.length > 1) return
    const tell = () => {
      for (const { one, other } of this.#strangers) {
        this.#tellStranger(one, other)
        this.#tellStranger(other, one)
      }
      this.clock.at(this.clock.now() + STRANGERS_MS, tell)
    }
    this.clock.at(this.clock.now() + FOUND_MS, tell)
  }

  #tellStranger(host: SimHost, seen: SimHost): void {
    const agent = this.#agents.get(host)
    const remedy = refusal(host, seen)
    if (agent === undefined || remedy === undefined || !seen.isUp) return
    if (!this.#topology.isOpen(seen.number, host.number)) return
    const { self: id, name } = seen
    const address = this.#agents.get(seen)?.addresses()[0] ?? ''
    host.run(() => agent.onStranger({ id, name, address, remedy }))
  }

  #reunite(pair: Pair): void {
    for (const end of pair.ends) end.noteHeal()
    if (pair.dialling || isOpen(pair)) return
    const apartMs = this.clock.now() - pair.apartSince
    const most = Math.min(Math.max(apartMs, REDIAL_MS), REDIAL_MS_MAX)
    this.#dialIn(pair, this.#discovery.between(0, most))
  }

  /** One dial; who cannot reach the other is dialled again when that changes. */
  #dialIn(pair: Pair, ms: number): void {
    if (pair.dialling || isOpen(pair) || !this.#canMeet(pair)) return
    pair.dialling = true
    const { latencyMs } = this.#topology.link(pair.one.number, pair.other.number)
    this.clock.at(this.clock.now() + ms + HANDSHAKE_TRIPS * latencyMs, () => {
      pair.dialling = false
      if (this.#canMeet(pair)) this.#open(pair)
    })
  }

  #canMeet({ one, other }: Pair): boolean {
    if (!one.isUp || !other.isUp) return false
    return this.areOpen(one, other)
  }

  #open(pair: Pair): void {
    const [one, other] = [this.#agents.get(pair.one), this.#agents.get(pair.other)]
    if (one === undefined || other === undefined || isOpen(pair)) return
    this.#note('open', pair.one, pair.other)
    const ends = StreamEnd.pair(this.#world, one, other, (end, reason) => this.#onClosed(pair, end, reason))
    pair.ends = ends
    for (const end of ends) {
      end.agent.ends.get(end.peer.self)?.abort('replaced by a new stream')
      end.agent.ends.set(end.peer.self, end)
    }
    for (const end of ends) end.send(end.agent.hello)
  }

  #onClosed(pair: Pair, end: StreamEnd, reason: string): void {
    const { agent, peer } = end
    this.trace.note(this.clock.now(), 'closed', agent.host.number, peer.host.number, reason)
    if (agent.ends.get(peer.self) === end) agent.ends.delete(peer.self)
    const lost = { kind: 'lost', peer: peer.self } as const
    if (end.joined) this.#site(agent.host).soon(() => agent.emit(lost))
    if (isOpen(pair)) return
    pair.apartSince = this.clock.now()
    this.#dialIn(pair, REDIAL_MS * this.#discovery.between(0.8, 1.2))
  }

  #pairsOf(host: SimHost): readonly Pair[] {
    return this.#pairs.get(host) ?? []
  }

  #pairsBetween(one: SimHost, other: SimHost): readonly Pair[] {
    return this.#pairsOf(one).filter(pair => pair.one === other || pair.other === other)
  }

  #forAllPairs(act: (pair: Pair) => void): void {
    for (const host of this.#hosts) {
      for (const pair of this.#pairsOf(host)) if (pair.one === host) act(pair)
    }
  }

  #note(what: string, host: SimHost, other?: SimHost, detail = ''): void {
    this.trace.note(this.clock.now(), what, host.number, other?.number ?? -1, detail)
  }
}

/** Whether one of two hosts still believes in their stream. */
function isOpen({ ends }: Pair): boolean {
  return ends.some(end => !end.closed)
}

function pairKey(one: SimHost, other: SimHost): string {
  const [a, b] = [one.number, other.number]
  return a < b ? `${a} ${b}` : `${b} ${a}`
}

/** Why two agents do not join, as the first is told of the second; undefined when they do. */
function refusal(host: SimHost, seen: SimHost): string | undefined {
  if (host.key !== seen.key) return REMEDY_OTHER_KEY
  if (!host.allows(seen.self)) return remedyNotAllowed(seen.self)
  return undefined
}
