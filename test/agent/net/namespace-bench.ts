/** Real libp2p networks, each in a process and on a host of its own (network namespaces), as a bench of the suite. */

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { generateKeyPair, privateKeyToProtobuf } from '@libp2p/crypto/keys'
import { newKey } from '../../../agent/key.js'
import type { Load } from '../../../agent/machines/membership.js'
import type { PeerId } from '../../../agent/machines/types.js'
import type { PeerMessage } from '../../../agent/net/messages.js'
import type { NetworkEvent } from '../../../agent/net/port.js'
import {
  type AgentUnderTest,
  loadOf,
  type NetworkBench,
  type StartOptions,
} from '../../conformance/peer-network-agent.js'
import { Hosts } from '../../helpers/namespaces.js'
import { until } from '../cluster.js'
import type { Command, ProcessOptions, Report } from './network-process.js'
import { PATIENCE_MS } from './real-bench.js'

const HOSTS = 4
const PROGRAM = fileURLToPath(new URL('network-process.js', import.meta.url))

class ProcessAgent implements AgentUnderTest {
  readonly events: NetworkEvent[] = []
  readonly faults: string[] = []
  self = '' as PeerId
  addresses: readonly string[] = []
  readonly #child: ChildProcess
  readonly #waiting: ((value: number | boolean) => void)[] = []

  private constructor(child: ChildProcess) {
    this.#child = child
  }

  static async start(prefix: readonly string[], options: ProcessOptions): Promise<ProcessAgent> {
    const [command = '', ...words] = [...prefix, process.execPath, PROGRAM, JSON.stringify(options)]
    const child = spawn(command, words, { stdio: ['pipe', 'pipe', 'inherit'] })
    const agent = new ProcessAgent(child)
    child.stdin.on('error', () => {})
    createInterface({ input: child.stdout }).on('line', line => agent.#onReport(JSON.parse(line) as Report))
    await until('a network in a process', () => agent.self !== '', PATIENCE_MS)
    return agent
  }

  async send(peer: PeerId, first: number, count: number): Promise<number> {
    return Number(await this.#ask({ kind: 'send', peer, first, count }))
  }

  async say(peer: PeerId, message: PeerMessage): Promise<boolean> {
    return (await this.#ask({ kind: 'say', peer, message })) === true
  }

  async publish(load: Load): Promise<void> {
    await this.#ask({ kind: 'publish', load })
  }

  async stop(): Promise<void> {
    await this.#ask({ kind: 'stop' })
  }

  /** Ends the process, with all it has. */
  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const ended = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await ended
  }

  #ask(command: Command): Promise<number | boolean> {
    return new Promise(resolve => {
      this.#waiting.push(resolve)
      this.#child.stdin?.write(`${JSON.stringify(command)}\n`)
    })
  }

  #onReport(report: Report): void {
    switch (report.kind) {
      case 'started':
        this.addresses = report.addresses
        this.self = report.self
        return
      case 'told':
        this.events.push(...report.events)
        this.faults.push(...report.faults)
        return
      case 'answer':
        this.#waiting.shift()?.(report.value)
        return
    }
  }
}

export class NamespaceBench implements NetworkBench {
  readonly #hosts = Hosts.make(HOSTS)
  readonly #keys = { ours: base64(newKey().bytes), other: base64(newKey().bytes) }
  readonly #identities: string[] = []
  readonly #agents: ProcessAgent[] = []

  async start(options: StartOptions): Promise<AgentUnderTest> {
    const { name, identity, key = 'ours', incarnation = 1, peers = [] } = options
    this.#identities[identity] ??= base64(privateKeyToProtobuf(await generateKeyPair('Ed25519')))
    const host = this.#agents.length % HOSTS
    const agent = await ProcessAgent.start(this.#hosts.prefix(host), {
      identity: this.#identities[identity],
      key: this.#keys[key],
      listen: [`/ip4/${this.#hosts.address(host)}/tcp/0`],
      peers: this.#agents.flatMap(peer => (peers.includes(peer) ? peer.addresses : [])),
      load: loadOf(name, incarnation, 1),
    })
    this.#agents.push(agent)
    return agent
  }

  async until(what: string, done: () => boolean): Promise<void> {
    await until(what, done, PATIENCE_MS)
  }

  readonly crash = async (agent: AgentUnderTest): Promise<void> => {
    await this.#agents.find(one => one === agent)?.kill()
  }

  async close(): Promise<void> {
    await Promise.all(this.#agents.map(agent => agent.kill()))
    this.#hosts.remove()
  }
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64')
}
