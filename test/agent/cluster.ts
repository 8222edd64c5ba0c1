/**
 * Several real agents in one process, on the loopback interface, with data directories of their own.
 */

import { randomInt } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startAgent } from '../../agent/agent.js'
import type { Pagers } from '../../agent/executor/pagers.js'
import { newKey, setKey } from '../../agent/key.js'
import { type Surroundings, SYSTEM } from '../../agent/ports/surroundings.js'
import type { AgentOptions, AgentService, Logger } from '../../agent/service.js'

export class Cluster {
  readonly #agents: AgentService[] = []
  readonly log: string[] = []
  readonly #quiet: boolean

  private constructor(
    readonly directory: string,
    quiet: boolean,
  ) {
    this.#quiet = quiet
  }

  /** Agents of one cluster share a network key. */
  static async make(quiet = process.env.AGENT_LOG === undefined): Promise<Cluster> {
    const cluster = new Cluster(await mkdtemp(join(tmpdir(), 'elasticos-test-')), quiet)
    await setKey(cluster.keyFile, newKey().file)
    return cluster
  }

  get keyFile(): string {
    return join(this.directory, 'network.key')
  }

  options(name: string, more: Partial<AgentOptions> = {}): AgentOptions {
    const dataDir = join(this.directory, name)
    return {
      name,
      dataDir,
      runtimeDir: join(dataDir, 'run'),
      listen: ['/ip4/127.0.0.1/tcp/0'],
      peers: [],
      discovery: false,
      keyFile: this.keyFile,
      allow: [],
      capacityPages: 10_000,
      processorThousandths: 1500,
      spillMaxBytes: 1 << 20,
      log: this.#logger(name),
      ...more,
    }
  }

  async start(
    name: string,
    pagers: Pagers,
    more: Partial<AgentOptions> = {},
    surroundings: Surroundings = SYSTEM,
  ): Promise<AgentService> {
    const agent = await startAgent(this.options(name, more), pagers, surroundings)
    this.#agents.push(agent)
    return agent
  }

  async stop(): Promise<void> {
    await Promise.all(this.#agents.map(agent => agent.stop()))
    await rm(this.directory, { recursive: true, force: true })
  }

  #logger(name: string): Logger {
    const write = (level: string) => (text: string) => {
      this.log.push(`${name} ${level} ${text}`)
      if (!this.#quiet) console.log(`${name} ${level} ${text}`)
    }
    return { error: write('error'), warn: write('warn'), info: write('info'), debug: write('debug') }
  }
}

/** The multiaddr of a running agent. */
export function addressOf(agent: AgentService): string {
  const self = agent.nodes().find(node => node.self)
  if (self?.addresses[0] === undefined) throw new Error('the agent listens nowhere')
  return `${self.addresses[0]}/p2p/${self.peerId}`
}

/** Waits until `done` holds; fails after `timeoutMs` with `what`. Returns how long it took in ms. */
export async function until(what: string, done: () => boolean, timeoutMs = 10_000): Promise<number> {
  const start = performance.now()
  while (!done()) {
    if (performance.now() - start > timeoutMs) throw new Error(`waited ${timeoutMs} ms in vain for: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 10))
  }
  return performance.now() - start
}

export function joined(agent: AgentService): string[] {
  return agent
    .nodes()
    .filter(node => node.state === 'joined' && !node.self)
    .map(node => node.name)
    .sort()
}

/** An id as `run` makes them. */
export function someId(): string {
  return randomInt(2 ** 47)
    .toString(16)
    .padStart(16, '0')
}
