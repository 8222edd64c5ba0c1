/**
 * Real agents as people start them, on four hosts that are network namespaces on one bridge, several on each; without root
 * all on the loopback interface. They find each other by discovery alone and are watched through their control sockets.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { ControlClient } from '../../../agent/control/client.js'
import type { NodeInfo } from '../../../agent/service.js'
import { type AgentStart, TestCluster } from '../../helpers/cluster.js'
import { Hosts, namespacesMissing } from '../../helpers/namespaces.js'

const HOSTS = 4
const PATIENCE_MS = 120_000
const POLL_MS = 20
const LOOPBACK = '127.0.0.1'

export class AgentGroup {
  readonly cluster: TestCluster
  readonly #hosts: Hosts | undefined
  readonly #hostOf = new Map<string, number>()
  readonly #clients = new Map<string, ControlClient>()

  private constructor(cluster: TestCluster, hosts: Hosts | undefined) {
    this.cluster = cluster
    this.#hosts = hosts
  }

  static async make(): Promise<AgentGroup> {
    const hosts = namespacesMissing() === undefined ? Hosts.make(HOSTS) : undefined
    try {
      return new AgentGroup(await TestCluster.make(), hosts)
    } catch (error) {
      hosts?.remove()
      throw error
    }
  }

  /** Where something named `name` runs: each new name on the next host. */
  place(name: string): { readonly prefix: readonly string[]; readonly address: string } {
    const host = this.#hostOf.get(name) ?? this.#hostOf.size % HOSTS
    this.#hostOf.set(name, host)
    return { prefix: this.#hosts?.prefix(host) ?? [], address: this.#hosts?.address(host) ?? LOOPBACK }
  }

  /** Starts an agent; how long it took until it said that it is ready. */
  async start(name: string, start: Pick<AgentStart, 'env' | 'flags'> = {}): Promise<number> {
    const { prefix } = this.place(name)
    const listen = `/ip4/${this.#hosts === undefined ? LOOPBACK : '0.0.0.0'}/tcp/0`
    const flags = ['--listen', listen, ...(start.flags ?? [])]
    const fromMs = performance.now()
    const { control } = await this.cluster.startAgent(name, {
      ...start,
      prefix,
      flags,
      peers: [],
      discovery: true,
    })
    const tookMs = performance.now() - fromMs
    this.#clients.set(name, await ControlClient.connect(control))
    return tookMs
  }

  async stopAgent(name: string): Promise<void> {
    this.#clients.get(name)?.close()
    this.#clients.delete(name)
    await this.cluster.stopAgent(name)
  }

  get names(): string[] {
    return [...this.#clients.keys()]
  }

  pid(name: string): number {
    return this.cluster.agent(name).pid
  }

  /** Waits until each of `names` knows `count` agents that have joined, itself included. */
  async untilJoined(
    count: number,
    names: readonly string[] = this.names,
    how: 'exactly' | 'or-more' = 'exactly',
  ): Promise<void> {
    const deadline = performance.now() + PATIENCE_MS
    let missing = names
    while (missing.length > 0) {
      if (performance.now() > deadline)
        throw new Error(`${missing.join(', ')} did not come to know ${count} agents`)
      const counts = await Promise.all(missing.map(name => this.#joined(name)))
      missing = missing.filter((_, i) => {
        const joined = counts[i] ?? 0
        return how === 'exactly' ? joined !== count : joined < count
      })
      if (missing.length > 0) await sleep(POLL_MS)
    }
  }

  async stop(): Promise<void> {
    for (const client of this.#clients.values()) client.close()
    this.#clients.clear()
    await this.cluster.stop()
    this.#hosts?.remove()
  }

  async #joined(name: string): Promise<number> {
    const nodes = (await this.#clients.get(name)?.ask('nodes', {})) as NodeInfo[] | undefined
    return nodes?.filter(node => node.state === 'joined').length ?? 0
  }
}
