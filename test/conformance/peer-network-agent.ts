/**
 * What the conformance suite of the network port works with: agents that write down what their network tells them,
 * and notice at once when it breaks the port's contract.
 */

import type { Load } from '../../agent/machines/membership.js'
import type { PeerId, ProcessId } from '../../agent/machines/types.js'
import type { PeerMessage } from '../../agent/net/messages.js'
import type { NetworkEvent, PeerNetwork } from '../../agent/net/port.js'

export interface AgentUnderTest {
  readonly self: PeerId
  /** All that it was told so far. */
  readonly events: readonly NetworkEvent[]
  /** What its network did that the contract forbids. */
  readonly faults: readonly string[]
  /** Sends messages `first` to `first + count - 1` in one go; how many were taken. */
  send(peer: PeerId, first: number, count: number): Promise<number>
  say(peer: PeerId, message: PeerMessage): Promise<boolean>
  publish(load: Load): Promise<void>
  stop(): Promise<void>
}

export interface StartOptions {
  readonly name: string
  /** Agents of one number have one identity; as a rule each has its own. */
  readonly identity: number
  readonly key?: 'ours' | 'other'
  readonly incarnation?: number
  /** Who is dialled, where agents do not find each other by themselves. */
  readonly peers?: readonly AgentUnderTest[]
}

/** A network on which agents can be started. */
export interface NetworkBench {
  start(options: StartOptions): Promise<AgentUnderTest>
  /** Lets time pass until `done`; throws when that takes too long. */
  until(what: string, done: () => boolean): Promise<void>
  /** Ends an agent without a word; where that is possible. */
  readonly crash?: (agent: AgentUnderTest) => Promise<void>
  close(): Promise<void>
}

export function loadOf(name: string, incarnation: number, sequence: number, addresses: string[] = []): Load {
  const numbers = { freePages: 10, capacityPages: 20, cpus: 2, processes: 0, nextMs: 5_000 }
  return { name, incarnation, sequence, addresses, ...numbers }
}

/** The message with this number; 400 bytes or so. */
export function numbered(leaseId: number): PeerMessage {
  const processId = '0123456789abcdef' as ProcessId
  const terms = { pages: 1, threads: 1, ttlMs: 1 }
  return { kind: 'lease-update', processId, leaseId, terms, reason: 'x'.repeat(300) }
}

/** Numbers of the messages that came from `peer`. */
export function numbersFrom(agent: AgentUnderTest, peer: PeerId): number[] {
  return agent.events.flatMap(event => {
    if (event.kind !== 'message' || event.peer !== peer) return []
    return event.message.kind === 'lease-update' ? [event.message.leaseId] : []
  })
}

/** How often `peer` has joined or was lost. */
export function count(agent: AgentUnderTest, kind: 'joined' | 'lost', peer: PeerId): number {
  return agent.events.filter(event => event.kind === kind && event.peer === peer).length
}

/** Watches one implementation of the port in this process. */
export class WatchedAgent implements AgentUnderTest {
  readonly events: NetworkEvent[] = []
  readonly faults: string[] = []
  readonly self: PeerId
  readonly #network: PeerNetwork
  readonly #joined = new Set<PeerId>()
  readonly #highest = new Map<PeerId, number>()
  #busy = false
  #stopped = false

  constructor(network: PeerNetwork) {
    this.#network = network
    this.self = network.self
    network.listen(event => this.#onEvent(event))
  }

  send(peer: PeerId, first: number, count: number): Promise<number> {
    let taken = 0
    for (let i = 0; i < count; i++) {
      const sent = this.#during(() => this.#network.send(peer, numbered(first + i)))
      if (sent && !this.#joined.has(peer))
        this.faults.push(`a message to ${peer} was taken, who is not there`)
      if (sent) taken++
    }
    return Promise.resolve(taken)
  }

  say(peer: PeerId, message: PeerMessage): Promise<boolean> {
    return Promise.resolve(this.#during(() => this.#network.send(peer, message)))
  }

  publish(load: Load): Promise<void> {
    this.#during(() => this.#network.publish(load))
    return Promise.resolve()
  }

  async stop(): Promise<void> {
    await this.#network.stop()
    this.#stopped = true
  }

  #during<T>(act: () => T): T {
    this.#busy = true
    try {
      return act()
    } finally {
      this.#busy = false
    }
  }

  #onEvent(event: NetworkEvent): void {
    this.events.push(event)
    if (this.#busy) this.faults.push(`${event.kind} while a method runs`)
    if (this.#stopped) this.faults.push(`${event.kind} after stop`)
    if (event.kind === 'stranger' || event.kind === 'load' || event.kind === 'twin') return
    const { peer } = event
    const joined = this.#joined.has(peer)
    if (joined === (event.kind === 'joined')) this.faults.push(`${event.kind} of ${peer}, joined: ${joined}`)
    if (event.kind === 'joined') {
      this.#joined.add(peer)
      this.#highest.delete(peer)
    }
    if (event.kind === 'lost') this.#joined.delete(peer)
    if (event.kind === 'message' && event.message.kind === 'lease-update') {
      const { leaseId } = event.message
      const highest = this.#highest.get(peer)
      if (highest !== undefined && leaseId <= highest) this.faults.push(`message ${leaseId} after ${highest}`)
      this.#highest.set(peer, leaseId)
    }
  }
}
