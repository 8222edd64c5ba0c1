/**
 * Pagers in memory for tests of the agent: they keep the contract of the pager's socket (DESCRIBE, LANE, LANE_UP,
 * BYE, PARTICIPANT_DROP, EXITED) and check lane keys as real ones do, but hold no pages.
 *
 * One `FakeWorld` is what real pagers share through the network: who listens on which port.
 */

import { EventEmitter } from 'node:events'
import type {
  Describe,
  PagerCommand,
  PagerConnection,
  PagerEvent,
  PagerStats,
  Pagers,
  PeerPagerOptions,
} from '../../agent/executor/pagers.js'
import { PagerError } from '../../agent/executor/pagers.js'
import type { CompatibilityFacts } from '../../agent/machines/types.js'

type LaneCommand = Extract<PagerCommand, { kind: 'lane' }>

export const FACTS: CompatibilityFacts = {
  protocolVersion: 1,
  pageSize: 4096,
  arch: 'x86_64',
  kernel: '6.1.0-13-amd64',
  cpuVendor: 'GenuineIntel',
  cpuFeatures: ['fpu', 'sse', 'sse2', 'avx', 'avx2'],
  xcr0: '0x7',
}

export class FakePager {
  readonly describe: Describe
  readonly received: PagerCommand[] = []
  readonly lanes = new Map<number, FakePager>()
  readonly accepting = new Map<number, LaneCommand>()
  readonly connections = new Set<FakeConnection>()
  readonly host: string
  readonly #world: FakeWorld
  alive = true
  stats: PagerStats = { residentPages: 7 }
  /** Set to refuse connections, as a pager that has closed its socket. */
  refusing = false
  /** Set to answer nothing, as one that is stopped. */
  stalled = false
  /** Set to hold on to pages when told to give them back. */
  stubborn = false

  constructor(world: FakeWorld, describe: Describe, host: string) {
    this.#world = world
    this.describe = describe
    this.host = host
  }

  onCommand(command: PagerCommand): void {
    this.received.push(command)
    switch (command.kind) {
      case 'lane':
        if (command.port === 0) this.accepting.set(command.node, command)
        else setTimeout(() => this.#dial(command), 2)
        break
      case 'participant-drop':
        setTimeout(() => this.#hangUp(command.node, 'contracted'), 5)
        break
      case 'terminate':
        this.exit('terminated')
        break
      default:
        break
    }
  }

  emit(event: PagerEvent): void {
    for (const connection of [...this.connections]) connection.emitter.emit('event', event)
  }

  exit(message: string): void {
    if (!this.alive) return
    this.alive = false
    for (const node of [...this.lanes.keys()]) this.#hangUp(node, 'the other pager ended')
    this.emit({ kind: 'exited', how: 'exit', code: 0, childrenLeft: 0, message })
    this.#world.gone(this)
    for (const connection of [...this.connections]) connection.end('the pager has closed the connection')
  }

  /** As when killed: without a word, and its lanes look as if they were only cut. */
  vanish(): void {
    this.alive = false
    this.#world.gone(this)
    for (const connection of [...this.connections]) connection.end('the pager has closed the connection')
  }

  #dial(command: LaneCommand): void {
    const other = this.#world.listening(command.port)
    const accepted = other?.accepting.get(this.describe.node)
    const fits = accepted !== undefined && Buffer.from(accepted.laneKey).equals(command.laneKey)
    if (!this.alive) return
    if (other === undefined || !fits || accepted.leaseId !== command.leaseId) {
      const reason = other === undefined ? 'connection refused' : 'wrong lane key'
      this.emit({ kind: 'lane-down', node: command.node, nodeName: command.nodeName, reason })
      return
    }
    this.lanes.set(command.node, other)
    other.lanes.set(this.describe.node, this)
    this.emit({ kind: 'lane-up', node: command.node, nodeName: command.nodeName })
    other.emit({ kind: 'lane-up', node: this.describe.node, nodeName: this.describe.nodeName })
  }

  #hangUp(node: number, reason: string): void {
    const other = this.lanes.get(node)
    if (other === undefined || (other.stubborn && this.alive)) return
    this.lanes.delete(node)
    other.lanes.delete(this.describe.node)
    this.emit({ kind: 'lane-down', node, nodeName: other.describe.nodeName, reason })
    const { node: own, nodeName } = this.describe
    other.emit({ kind: 'lane-down', node: own, nodeName, reason })
    if (own === 0) setTimeout(() => other.exit('home has said goodbye'), 5)
  }
}

export class FakeConnection implements PagerConnection {
  readonly emitter = new EventEmitter()
  readonly describe: Describe
  readonly #pager: FakePager
  #ended = false

  constructor(pager: FakePager) {
    this.#pager = pager
    this.describe = pager.describe
    pager.connections.add(this)
  }

  send(command: PagerCommand): void {
    if (!this.#ended && this.#pager.alive) this.#pager.onCommand(command)
  }

  on(listener: (event: PagerEvent) => void): () => void {
    this.emitter.on('event', listener)
    for (const [node, other] of this.#pager.lanes) {
      listener({ kind: 'lane-up', node, nodeName: other.describe.nodeName })
    }
    return () => this.emitter.off('event', listener)
  }

  onClose(listener: (reason: string) => void): void {
    this.emitter.once('close', listener)
  }

  requestStats(): Promise<PagerStats> {
    return this.#pager.stalled ? new Promise(() => {}) : Promise.resolve(this.#pager.stats)
  }

  close(): void {
    this.end('closed')
  }

  end(reason: string): void {
    if (this.#ended) return
    this.#ended = true
    this.#pager.connections.delete(this)
    this.emitter.emit('close', reason)
  }
}

export class FakeWorld {
  readonly sockets = new Map<string, FakePager>()
  readonly #ports = new Map<number, FakePager>()
  #next = 1

  /** A home pager that listens at the returned path. */
  home(id: string, memoryPages = 1024): { path: string; pager: FakePager } {
    const path = `/fake/${id}.home.sock`
    return { path, pager: this.#add(path, { role: 'home', id, node: 0, nodeName: 'home', memoryPages }, '') }
  }

  /** What one agent sees of it. `failing`: its peer pagers do not start. */
  pagers(options: { facts?: Partial<CompatibilityFacts>; failing?: string } = {}): Pagers {
    return {
      connect: async path => {
        const pager = this.sockets.get(path)
        if (pager === undefined || pager.refusing) throw new PagerError('gone', 'the pager is gone')
        return new FakeConnection(pager)
      },
      spawnPeer: async (wanted: PeerPagerOptions) => {
        await new Promise(resolve => setTimeout(resolve, 5))
        if (options.failing !== undefined) throw new Error(options.failing)
        const { id, node, nodeName, memoryPages, listenHost, runtimeDir } = wanted
        const socketPath = `${runtimeDir}/${id}.peer.${nodeName}.sock`
        const pager = this.#add(socketPath, { role: 'peer', id, node, nodeName, memoryPages }, listenHost)
        return { client: new FakeConnection(pager), socketPath }
      },
      list: async runtimeDir => [...this.sockets.keys()].filter(path => path.startsWith(runtimeDir)),
      facts: async () => ({ ...FACTS, ...options.facts }),
      kill: pid => {
        for (const pager of this.sockets.values()) if (pager.describe.pagerPid === pid) pager.exit('killed')
      },
      isAlive: pid => [...this.sockets.values()].some(pager => pager.describe.pagerPid === pid),
    }
  }

  /** Peer pagers that are alive. */
  peers(): FakePager[] {
    return [...this.sockets.values()].filter(pager => pager.describe.role === 'peer')
  }

  listening(port: number): FakePager | undefined {
    return this.#ports.get(port)
  }

  gone(pager: FakePager): void {
    this.#ports.delete(pager.describe.lanePort)
    for (const [path, one] of this.sockets) if (one === pager) this.sockets.delete(path)
  }

  #add(
    path: string,
    own: Pick<Describe, 'role' | 'id' | 'node' | 'nodeName' | 'memoryPages'>,
    host: string,
  ): FakePager {
    const number = this.#next++
    const lanePort = own.role === 'peer' ? 20_000 + number : 0
    const rest = { pagerPid: 900_000 + number, appPid: 0, epoch: 1, uid: 0, startedAtMs: 0, program: 'sort' }
    const pager = new FakePager(this, { ...own, ...rest, lanePort }, host)
    this.sockets.set(path, pager)
    if (lanePort !== 0) this.#ports.set(lanePort, pager)
    return pager
  }
}
