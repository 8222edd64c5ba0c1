/**
 * Starts an agent: puts network, state machines and pagers together and runs the clock. Everything an agent does is
 * decided in agent/machines; this file only says who hears of what.
 *
 * An idle agent wakes up twice a second for its time-outs. It tells its load when that has changed, at most once
 * a second, and otherwise every five seconds or more: a signed gossip message costs a millisecond at every receiver.
 */

import { availableParallelism } from 'node:os'
import { lendablePages, memoryFor } from './executor/capacity.js'
import type { Context } from './executor/context.js'
import { describeAll } from './executor/describe.js'
import { dispatch, type Hearers } from './executor/dispatch.js'
import { Distances } from './executor/distances.js'
import { HomeWatch, WATCH_MS } from './executor/home-watch.js'
import { Homes } from './executor/homes.js'
import { Lending } from './executor/lending.js'
import { listNodes } from './executor/nodes.js'
import { OwnershipNews } from './executor/ownership-news.js'
import { type Pagers, systemPagers } from './executor/pagers.js'
import { Probes, pagerAnswers } from './executor/probes.js'
import { Records } from './executor/records.js'
import { automatic, contract, leases, stretch } from './executor/reshape.js'
import { loadOrMakeIdentity, lockDirectory, sameIdentity } from './identity.js'
import { loadOrMakeKey } from './key.js'
import { limitedLog } from './limited-log.js'
import { LoadNews } from './machines/load-news.js'
import { type Load, Membership, type MembershipEffect, type MembershipEvent } from './machines/membership.js'
import { NODE_NAME_PATTERN, type PeerId, type ProcessId } from './machines/types.js'
import { requireEndpoint, requirePeerId } from './net/address.js'
import { lanDiscovery } from './net/discovery.js'
import { Libp2pNetwork } from './net/libp2p.js'
import { type PeerMessage, parseFacts } from './net/messages.js'
import type { NetworkEvent } from './net/port.js'
import { type Clock, every, type Timer } from './ports/clock.js'
import { type Surroundings, SYSTEM } from './ports/surroundings.js'
import {
  type AgentCounts,
  AgentError,
  type AgentOptions,
  type AgentService,
  type HomeAttachment,
  type LeaseInfo,
  type NodeInfo,
  type ProcessInfo,
} from './service.js'

const TICK_MS = 500
const CAPACITY_MS = 5_000
const LOAD_MS = 1_000
const UNCHANGED_LOAD_MS = 5_000
/** In a network of many agents each tells its load more rarely, so that hearing all stays below 1 % of a CPU. */
const LOAD_MS_PER_MEMBER = 100
const HAND_BACK_MS = 10_000

/** Starts an agent. Throws AgentError with a line that says what to do. */
export async function startAgent(
  given: AgentOptions,
  pagers: Pagers = systemPagers,
  surroundings: Surroundings = SYSTEM,
): Promise<AgentService> {
  const options = { ...given, log: limitedLog(given.log, () => surroundings.clock.now()) }
  if (!NODE_NAME_PATTERN.test(options.name)) {
    throw new AgentError(
      'bad-name',
      `bad --name ${options.name}: letters, digits, dot, dash and underscore, at most 64`,
    )
  }
  const listenHosts = options.listen.map(address => requireEndpoint(address, '--listen').host)
  for (const address of options.peers) requireEndpoint(address, '--peer')
  const allow = options.allow.map(requirePeerId)
  const unlock: (() => Promise<void>)[] = []
  try {
    for (const directory of new Set([options.runtimeDir, options.dataDir])) {
      unlock.push(await lockDirectory(directory))
    }
    const key = await loadOrMakeKey(options.keyFile)
    const identity = await loadOrMakeIdentity(options.dataDir)
    const facts = parseFacts(await pagers.facts())
    if (facts === undefined)
      throw new AgentError('no-pager', 'the pager gives no usable facts; build it again')
    const agent = new Agent(options, pagers, surroundings)
    const network = await Libp2pNetwork.start({
      identity,
      key,
      listen: options.listen,
      peers: options.peers,
      allow,
      load: agent.load(0),
      log: options.log,
      ...(options.discovery
        ? { discovery: lanDiscovery({ key, name: options.name, log: options.log }) }
        : {}),
    })
    await agent.start(network, { facts, listenHosts, allow, unlock })
    return agent
  } catch (error) {
    for (const release of unlock) await release()
    throw error
  }
}

interface Parts {
  readonly facts: Context['facts']
  readonly listenHosts: readonly string[]
  readonly allow: readonly PeerId[]
  readonly unlock: readonly (() => Promise<void>)[]
}

class Agent implements AgentService {
  readonly #options: AgentOptions
  readonly #pagers: Pagers
  readonly #surroundings: Surroundings
  readonly #clock: Clock
  readonly #membership = new Membership()
  readonly #news = new LoadNews()
  readonly #incarnation: number
  readonly #timers: Timer[] = []
  #network: Libp2pNetwork | undefined
  #lending: Lending | undefined
  #homes: Homes | undefined
  #probes: Probes | undefined
  #distances: Distances | undefined
  #ownership: OwnershipNews | undefined
  #unlock: Parts['unlock'] = []
  #sequence = 0
  #messagesSent = 0
  #messagesReceived = 0
  #loadTimer: Timer | undefined
  #stopping: Promise<void> | undefined
  #failure: AgentError | undefined
  #onFailure: (error: AgentError) => void = () => {}

  constructor(options: AgentOptions, pagers: Pagers, surroundings: Surroundings) {
    this.#options = options
    this.#pagers = pagers
    this.#surroundings = surroundings
    this.#clock = surroundings.clock
    this.#incarnation = this.#clock.wall()
  }

  async start(network: Libp2pNetwork, parts: Parts): Promise<void> {
    this.#network = network
    this.#unlock = parts.unlock
    const context = this.#context(network, parts)
    const records = new Records(this.#options.runtimeDir, this.#options.log)
    this.#lending = new Lending(context, records, this.#options, parts.allow)
    this.#homes = new Homes(context, records)
    const watch = new HomeWatch(this.#clock, this.#options.log, parts.facts.pageSize)
    this.#watchCapacity(parts.facts.pageSize)
    await this.#lending.restore()
    await this.#homes.restore(() => this.#membership.members())
    network.listen(event => this.#onNetwork(event))
    this.#timers.push(
      every(this.#clock, TICK_MS, () => this.#onTick()),
      every(this.#clock, CAPACITY_MS, () => this.#watchCapacity(parts.facts.pageSize)),
      every(this.#clock, WATCH_MS, () => void watch.look(this.#homes?.all() ?? [])),
    )
    this.#publishLoad()
  }

  nodes(): NodeInfo[] {
    const rttMs = (peer: PeerId) => this.#distances?.rttMs(peer)
    return listNodes(this.load(this.#sequence), this.#network?.self ?? '', this.#membership, rttMs)
  }

  counts(): AgentCounts {
    return {
      messagesSent: this.#messagesSent,
      messagesReceived: this.#messagesReceived,
      leasesGiven: this.#lending?.held().length ?? 0,
      leasesTaken: (this.#homes?.all() ?? []).reduce((sum, home) => sum + home.participants() - 1, 0),
      offences: this.#network?.refused.offences ?? {},
      shutOuts: this.#network?.refused.shutOuts ?? 0,
    }
  }

  processes(): Promise<ProcessInfo[]> {
    return describeAll(this.#clock, this.#options.name, this.#homes, this.#lending)
  }

  async attachHome(home: HomeAttachment): Promise<void> {
    if (this.#stopping !== undefined) throw new AgentError('no-pager', 'the agent is shutting down')
    await this.#homes?.attach(home, () => this.#membership.members())
  }

  participants(id: string): number {
    return this.#homes?.get(id)?.participants() ?? 0
  }

  onParticipants(id: string, listener: (count: number) => void): () => void {
    return this.#homes?.get(id)?.onParticipants(listener) ?? (() => {})
  }

  refusals(id: string): string[] {
    return this.#homes?.get(id)?.refusals() ?? []
  }

  async leases(id: string): Promise<LeaseInfo[]> {
    return leases(this.#homes, id)
  }

  async contract(id: string, node: string | undefined): Promise<LeaseInfo[]> {
    return contract(this.#homes, id, node)
  }

  stretch(id: string, node: string): Promise<string> {
    return stretch(this.#homes, this.#membership, id, node)
  }

  automatic(id: string): Promise<void> {
    return automatic(this.#homes, id)
  }

  onFailure(listener: (error: AgentError) => void): void {
    this.#onFailure = listener
    if (this.#failure !== undefined) listener(this.#failure)
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stop()
    return this.#stopping
  }

  /** What this agent says about itself. */
  load(sequence: number): Load {
    const nextMs = Math.max(UNCHANGED_LOAD_MS, LOAD_MS_PER_MEMBER * this.#membership.size)
    const held = this.#lending?.held().length ?? 0
    return {
      name: this.#options.name,
      incarnation: this.#incarnation,
      sequence,
      freePages: this.#lending?.freePages ?? this.#options.capacityPages,
      capacityPages: this.#options.capacityPages,
      cpus: availableParallelism(),
      processes: held + (this.#homes?.all().length ?? 0),
      addresses: this.#network?.addresses() ?? [],
      nextMs,
    }
  }

  async #stop(): Promise<void> {
    for (const timer of this.#timers.splice(0)) timer.cancel()
    const ticking = every(this.#clock, TICK_MS, () => this.#onTick())
    for (const { peer } of this.#membership.members()) this.#network?.send(peer, { kind: 'leaving' })
    await this.#lending?.handBack(HAND_BACK_MS)
    ticking.cancel()
    this.#loadTimer?.cancel()
    this.#lending?.detach()
    this.#homes?.detach()
    await this.#network?.stop()
    for (const release of this.#unlock) await release()
  }

  #context(network: Libp2pNetwork, parts: Parts): Context {
    const { name, runtimeDir, dataDir, spillMaxBytes, log } = this.#options
    const member = (peer: PeerId) => this.#membership.member(peer)
    const send = (peer: PeerId, message: PeerMessage) => {
      this.#messagesSent++
      return network.send(peer, message)
    }
    const joined = () => this.#joined()
    const pagerOf = (id: ProcessId) => (this.#homes?.get(id) ?? this.#lending?.get(id))?.client
    const { self } = network
    const answers = pagerAnswers(this.#surroundings.clock)
    const port = { self, pagers: this.#pagers, send, joined, pagerOf, answers }
    this.#probes = new Probes({ ...this.#surroundings, ...port })
    const distances = new Distances({ ...this.#surroundings, send, onChange: peer => this.#tellHomes(peer) })
    this.#distances = distances
    const here = () => [...(this.#homes?.stretched() ?? []), ...(this.#lending?.stretched() ?? [])]
    this.#ownership = new OwnershipNews({ ...this.#surroundings, send }, here)
    return {
      ...this.#surroundings,
      name,
      runtimeDir,
      dataDir,
      spillMaxBytes,
      log,
      self,
      facts: parts.facts,
      listenHosts: parts.listenHosts,
      pagers: this.#pagers,
      probes: this.#probes,
      ownership: this.#ownership,
      send,
      hostOf: peer => member(peer)?.host ?? '',
      nameOf: peer => member(peer)?.load.name ?? peer,
      rttMs: peer => distances.rttMs(peer),
    }
  }

  #onNetwork(event: NetworkEvent): void {
    if (event.kind === 'message') {
      this.#messagesReceived++
      dispatch(this.#hearers(), event.peer, event.message)
      return
    }
    if (event.kind === 'twin') {
      this.#failure = sameIdentity(event.addresses, this.#options.dataDir)
      this.#onFailure(this.#failure)
      return
    }
    if (event.kind === 'joined') this.#distances?.onJoined(event.peer) // the homes are to know nothing old
    this.#feed(event)
    if (event.kind === 'joined') {
      this.#options.log.info(`${event.load.name} has joined (${event.host})`)
      for (const home of this.#homes?.all() ?? []) home.onJoined(event.peer)
      this.#lending?.onJoined(event.peer)
    }
  }

  #hearers(): Hearers {
    const onLeaving = (peer: PeerId) => {
      this.#options.log.info(`${this.#membership.member(peer)?.load.name ?? peer} is leaving`)
      this.#feed({ kind: 'leaving', peer })
    }
    const [homes, lending, probes] = [this.#homes, this.#lending, this.#probes]
    return { onLeaving, homes, lending, probes, distances: this.#distances, ownership: this.#ownership }
  }

  /** Peers that there are streams to. */
  #joined(): PeerId[] {
    return this.#membership.members().flatMap(({ peer, host }) => (host === '' ? [] : [peer]))
  }

  #tellHomes(peer: PeerId): void {
    const member = this.#membership.member(peer)
    if (member?.state !== 'joined') return
    for (const home of this.#homes?.all() ?? []) home.onAvailable([member])
  }

  #feed(event: MembershipEvent): void {
    for (const effect of this.#membership.onEvent(event, this.#clock.now())) this.#carryOut(effect)
  }

  #carryOut(effect: MembershipEffect): void {
    switch (effect.kind) {
      case 'available':
        for (const home of this.#homes?.all() ?? []) home.onAvailable([effect.member])
        return
      case 'unavailable':
        for (const home of this.#homes?.all() ?? []) home.onUnavailable(effect.peer, effect.why)
        if (effect.why === 'suspected') this.#network?.check(effect.peer)
        return
      case 'new-stranger': {
        const { name, address, remedy } = effect.stranger
        this.#options.log.warn(
          `agent ${name} at ${address} has not joined: ${remedy}`.replace('agent  at', 'agent at'),
        )
        return
      }
      case 'more-strangers':
        this.#options.log.warn('more agents have not joined; see `elasticos nodes`')
        return
    }
  }

  #onTick(): void {
    this.#feed({ kind: 'tick' })
    this.#lending?.onTick()
    this.#ownership?.onTick()
    for (const home of this.#homes?.all() ?? []) home.onTick()
    this.#distances?.onTick(this.#joined())
  }

  #watchCapacity(pageSize: number): void {
    const memory = memoryFor('self', pageSize)
    const lending = this.#lending
    if (memory === undefined || lending === undefined) return
    const besideRun = this.#homes?.all().some(home => home.attachment.memoryFollows === true) ?? false
    lending.setCapacity(lendablePages(this.#options.capacityPages, lending.promised, memory, besideRun))
  }

  /** Tells the load when it has changed (at most once a second), else only often enough to be missed when gone. */
  #publishLoad(): void {
    const { rng } = this.#surroundings
    const now = this.#clock.now()
    const load = this.load(this.#sequence + 1)
    if (this.#news.isDue(load, now, rng.between(0.7, 1))) {
      this.#sequence++
      this.#network?.publish(load)
    }
    this.#loadTimer = this.#clock.at(now + LOAD_MS * rng.between(0.8, 1.2), () => this.#publishLoad())
  }
}
