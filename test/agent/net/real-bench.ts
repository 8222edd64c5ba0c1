/** Real libp2p networks in this process, over TCP on loopback or in memory, as a bench of the conformance suite. */

import { generateKeyPair } from '@libp2p/crypto/keys'
import type { PrivateKey } from '@libp2p/interface'
import { memory } from '@libp2p/memory'
import { newKey } from '../../../agent/key.js'
import { Libp2pNetwork } from '../../../agent/net/libp2p.js'
import {
  type AgentUnderTest,
  loadOf,
  type NetworkBench,
  type StartOptions,
  WatchedAgent,
} from '../../conformance/peer-network-agent.js'
import { until } from '../cluster.js'

export const PATIENCE_MS = 100_000
export const QUIET = { error: () => {}, warn: () => {}, info: () => {}, debug: () => {} }
let nextAddress = 1

export class RealBench implements NetworkBench {
  readonly #transport: 'tcp' | 'memory'
  readonly #keys = { ours: newKey(), other: newKey() }
  readonly #identities: PrivateKey[] = []
  readonly #addresses = new Map<AgentUnderTest, string[]>()

  constructor(transport: 'tcp' | 'memory') {
    this.#transport = transport
  }

  async start(options: StartOptions): Promise<AgentUnderTest> {
    const { name, identity, key = 'ours', incarnation = 1, peers = [] } = options
    this.#identities[identity] ??= await generateKeyPair('Ed25519')
    const inMemory = this.#transport === 'memory'
    const network = await Libp2pNetwork.start({
      identity: this.#identities[identity],
      key: this.#keys[key],
      listen: [inMemory ? `/memory/conformance-${nextAddress++}` : '/ip4/127.0.0.1/tcp/0'],
      peers: peers.flatMap(peer => this.#addresses.get(peer) ?? []),
      allow: [],
      load: loadOf(name, incarnation, 1),
      log: QUIET,
      ...(inMemory ? { transports: [memory()] } : {}),
    })
    const agent = new WatchedAgent(network)
    this.#addresses.set(agent, network.addresses())
    return agent
  }

  async until(what: string, done: () => boolean): Promise<void> {
    await until(what, done, PATIENCE_MS)
  }

  async close(): Promise<void> {
    await Promise.all([...this.#addresses.keys()].map(agent => agent.stop()))
  }
}
