/** The simulated network as a bench of the network port's conformance suite. */

import type { SimHost } from '../../sim-net/host.js'
import { SimNetwork } from '../../sim-net/network.js'
import {
  type AgentUnderTest,
  loadOf,
  type NetworkBench,
  type StartOptions,
  WatchedAgent,
} from '../conformance/peer-network-agent.js'

const PATIENCE_MS = 600_000

export class SimulatedBench implements NetworkBench {
  readonly #network: SimNetwork
  readonly #hosts: SimHost[] = []
  readonly #hostOf = new Map<AgentUnderTest, SimHost>()

  constructor(seed: number) {
    this.#network = new SimNetwork({ seed })
  }

  start({ name, identity, key = 'ours', incarnation = 1 }: StartOptions): Promise<AgentUnderTest> {
    const known = this.#hosts[identity]
    const host =
      known === undefined || known.isUp
        ? this.#network.host(name, { key, ...(known === undefined ? {} : { identity: known.self }) })
        : known
    this.#hosts[identity] ??= host
    const agent = new WatchedAgent(this.#network.start(host, loadOf(name, incarnation, 1)))
    this.#hostOf.set(agent, host)
    return Promise.resolve(agent)
  }

  async until(what: string, done: () => boolean): Promise<void> {
    if (!this.#network.clock.runWhile(() => !done(), PATIENCE_MS)) throw new Error(`in vain: ${what}`)
  }

  readonly crash = async (agent: AgentUnderTest): Promise<void> => {
    const host = this.#hostOf.get(agent)
    if (host !== undefined) this.#network.crash(host, 'reset')
  }

  async close(): Promise<void> {}
}
