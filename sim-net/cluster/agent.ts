/**
 * One simulated agent: what agent/agent.ts puts together, on the simulated network. Machines and the executors of homes
 * and held processes are the real ones; what an agent leaves behind when it dies is kept by its `Machine`.
 */

import type { Context } from '../../agent/executor/context.js'
import { dispatch } from '../../agent/executor/dispatch.js'
import { type HomeMessage, HomeProcess } from '../../agent/executor/home.js'
import { OwnershipNews } from '../../agent/executor/ownership-news.js'
import { Probes } from '../../agent/executor/probes.js'
import type { Participant } from '../../agent/machines/lease-home.js'
import { LoadNews } from '../../agent/machines/load-news.js'
import { type Load, type Member, Membership, type MembershipEvent } from '../../agent/machines/membership.js'
import type { CompatibilityFacts, PeerId, ProcessId } from '../../agent/machines/types.js'
import type { PeerMessage } from '../../agent/net/messages.js'
import type { NetworkEvent } from '../../agent/net/port.js'
import { type Clock, every, type Timer } from '../../agent/ports/clock.js'
import type { SimAgent } from '../agent.js'
import type { SimHost } from '../host.js'
import type { SimNetwork } from '../network.js'
import { answersOf } from './connection.js'
import { type LenderHost, SimLending } from './lending.js'
import type { SimPager } from './pager.js'

/** As agent/agent.ts has them. */
const TICK_MS = 500
const LOAD_MS = 1_000
const UNCHANGED_LOAD_MS = 5_000
const LOAD_MS_PER_MEMBER = 100
const HAND_BACK_MS = 10_000

export const FACTS: CompatibilityFacts = {
  protocolVersion: 1,
  pageSize: 4096,
  arch: 'x86_64',
  kernel: '6.1.0-13-amd64',
  cpuVendor: 'GenuineIntel',
  cpuFeatures: ['avx', 'avx2', 'fpu', 'sse', 'sse2'],
  xcr0: '0x7',
}

const NO_ADDRESSES: readonly string[] = []
const NOBODY_LISTENS = () => Promise.reject(new Error('simulated pagers are connected to at once'))
const SILENT = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }

/** A host with what is on it besides the agent. */
export interface Machine extends LenderHost {
  readonly host: SimHost
  readonly capacityPages: number
  /** Home pagers that run here. */
  readonly homes: Map<ProcessId, SimPager>
  /** Leases of home processes, as the agent has noted them. */
  readonly homeRecords: Map<ProcessId, readonly Participant[]>
}

export class ClusterAgent {
  readonly membership = new Membership()
  readonly #news = new LoadNews()
  readonly lending: SimLending
  /** Messages it has got on streams. */
  messages = 0
  readonly #machine: Machine
  readonly #clock: Clock
  readonly #net: SimAgent
  readonly #context: Context
  readonly #homes = new Map<ProcessId, HomeProcess>()
  readonly #timers: Timer[] = []
  readonly #incarnation: number
  readonly #knownMin: number
  #sequence = 0
  #stopping = false

  /** @param knownMin how many others it is to tell its load as rarely as if it knew */
  constructor(network: SimNetwork, machine: Machine, knownMin: number) {
    this.#knownMin = knownMin
    this.#machine = machine
    const { host } = machine
    this.#clock = host.clock
    this.#incarnation = host.clock.wall()
    this.#net = network.start(host, this.#load(0))
    this.#context = this.#newContext()
    this.lending = new SimLending(this.#context, machine, machine.capacityPages, host.address)
    this.lending.restore()
    for (const [id, pager] of machine.homes) {
      if (pager.alive) this.attach(id, pager, machine.homeRecords.get(id) ?? [])
      else machine.homes.delete(id)
    }
    this.#net.listen(event => this.#onNetwork(event))
    const { clock, rng } = host
    const first = clock.now() + rng.between(0, TICK_MS)
    clock.at(first, () => this.#timers.push(every(clock, TICK_MS, () => this.#onTick())))
    this.#publishLoad()
  }

  get self(): PeerId {
    return this.#machine.host.self
  }

  get name(): string {
    return this.#machine.host.name
  }

  get homes(): ReadonlyMap<ProcessId, HomeProcess> {
    return this.#homes
  }

  /** Starts asking for participants for a home pager of this machine. */
  attach(id: ProcessId, pager: SimPager, restored: readonly Participant[]): void {
    const { plan } = pager.process
    const records = {
      saveHome: ({ participants }: { participants: readonly Participant[] }) => {
        this.#machine.homeRecords.set(id, participants)
      },
      remove: () => void this.#machine.homeRecords.delete(id),
    }
    const attachment = {
      id,
      pagerSocket: '',
      program: pager.describe.program,
      participantsMax: plan.participantsMax,
      memoryPages: plan.memoryPages,
      uid: 0,
    }
    const members = (): readonly Member[] => this.membership.members()
    const home = new HomeProcess(this.#context, records, attachment, pager.connect(), members, () => {
      this.#homes.delete(id)
      this.#machine.homes.delete(id)
    })
    this.#homes.set(id, home)
    home.start(restored)
  }

  /** In order: hands back what it holds for others, and `then` is called when that is done or has taken too long. */
  stop(then: () => void): void {
    if (this.#stopping) return
    this.#stopping = true
    for (const { peer } of this.membership.members()) this.#net.send(peer, { kind: 'leaving' })
    this.lending.handBack()
    const { clock } = this.#machine.host
    const deadline = clock.now() + HAND_BACK_MS
    const look = () => {
      if (this.lending.machine.leases().length > 0 && clock.now() < deadline) clock.at(clock.now() + 20, look)
      else {
        this.#detach()
        void this.#net.stop()
        then()
      }
    }
    look()
  }

  #detach(): void {
    for (const timer of this.#timers) timer.cancel()
    this.lending.detach()
    for (const home of this.#homes.values()) home.detach()
    this.#homes.clear()
  }

  #newContext(): Context {
    const { host } = this.#machine
    const { clock, rng, secrets, name, self } = host
    const send = (peer: PeerId, message: PeerMessage) => this.#net.send(peer, message)
    const { homes, held } = this.#machine
    const alive = (pid: number) =>
      [...homes.values(), ...held.values()].some(({ describe }) => describe.pagerPid === pid)
    const pagers = {
      connect: NOBODY_LISTENS,
      spawnPeer: NOBODY_LISTENS,
      list: NOBODY_LISTENS,
      facts: NOBODY_LISTENS,
      kill: () => {},
      isAlive: alive,
    }
    const joined = () => this.membership.members().flatMap(({ peer, host }) => (host === '' ? [] : [peer]))
    const pagerOf = (id: ProcessId) => this.#homes.get(id)?.client ?? this.lending.client(id)
    const answers = answersOf(clock)
    const probes = new Probes({ clock, rng, self, pagers, send, joined, pagerOf, answers })
    const here = () => [
      ...[...this.#homes.values()].map(home => home.stretched()),
      ...this.lending.stretched(),
    ]
    return {
      clock,
      rng,
      secrets,
      name,
      self,
      facts: FACTS,
      runtimeDir: '',
      dataDir: '',
      spillMaxBytes: 0,
      listenHosts: [host.address],
      pagers,
      probes,
      ownership: new OwnershipNews({ clock, rng, send }, here),
      log: SILENT,
      send,
      hostOf: peer => this.membership.member(peer)?.host ?? '',
      nameOf: peer => this.membership.member(peer)?.load.name ?? peer,
      rttMs: () => undefined,
    }
  }

  #onNetwork(event: NetworkEvent): void {
    if (event.kind === 'message') {
      this.#onMessage(event.peer, event.message)
      return
    }
    // Simulated agents have one identity each: two with the same one are tested with real ones.
    if (event.kind === 'twin') return
    this.#feed(event)
    if (event.kind !== 'joined') return
    for (const home of this.#homes.values()) home.onJoined(event.peer)
    this.lending.onJoined(event.peer)
  }

  #onMessage(peer: PeerId, message: PeerMessage): void {
    this.messages++
    const { probes, ownership } = this.#context
    const onLeaving = () => this.#feed({ kind: 'leaving', peer })
    // How far away others are is not measured here: all are near.
    const hearers = {
      onLeaving,
      homes: { onMessage: this.#onHomeMessage },
      probes,
      distances: undefined,
      ownership,
    }
    dispatch({ ...hearers, lending: this.lending }, peer, message)
  }

  readonly #onHomeMessage = (peer: PeerId, processId: ProcessId, message: HomeMessage): void => {
    const home = this.#homes.get(processId)
    if (home !== undefined) home.onMessage(peer, message)
    else if (message.kind === 'grant')
      this.#net.send(peer, { kind: 'release', processId, leaseId: message.leaseId, homeEnded: false })
  }

  #feed(event: MembershipEvent): void {
    const effects = this.membership.onEvent(event, this.#clock.now())
    if (effects.length === 0 || this.#homes.size === 0) return
    for (const effect of effects) {
      if (effect.kind === 'available')
        for (const home of this.#homes.values()) home.onAvailable([effect.member])
      else if (effect.kind === 'unavailable')
        for (const home of this.#homes.values()) home.onUnavailable(effect.peer, effect.why)
    }
  }

  #onTick(): void {
    this.#feed({ kind: 'tick' })
    this.lending.onTick()
    this.#context.ownership.onTick()
    for (const home of this.#homes.values()) home.onTick()
  }

  #load(sequence: number): Load {
    const { host, capacityPages, held } = this.#machine
    return {
      name: host.name,
      incarnation: this.#incarnation,
      sequence,
      freePages: sequence === 0 ? capacityPages : this.lending.machine.freePages,
      capacityPages,
      cpus: 2,
      processes: sequence === 0 ? 0 : held.size + this.#homes.size,
      addresses: NO_ADDRESSES,
      nextMs: this.#nextLoadMs(),
    }
  }

  #nextLoadMs(): number {
    const known = Math.max(this.membership.size, this.#knownMin)
    return Math.max(UNCHANGED_LOAD_MS, LOAD_MS_PER_MEMBER * known)
  }

  /** As agent/agent.ts. */
  #publishLoad(): void {
    const { clock, rng } = this.#machine.host
    const now = clock.now()
    const load = this.#load(this.#sequence + 1)
    if (this.#news.isDue(load, now, rng.between(0.7, 1))) {
      this.#sequence++
      this.#net.publish(load)
    }
    clock.at(now + LOAD_MS * rng.between(0.8, 1.2), () => this.#publishLoad())
  }
}
