/**
 * Pagers without agents: a home and participants that a test starts and joins by itself, over wires of its own. Lanes
 * are told to both ends as agents tell them.
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { PagerClient } from '../../kmod/pager-client.js'
import { homePagerArguments } from '../../kmod/pager-host.js'
import type { PagerEvent, PagerStats } from '../../kmod/pager-messages.js'
import { until } from './cluster.js'
import { PAGER } from './native.js'
import { Wire } from './wire.js'

const LANE_KEY_BYTES = 32
const LEASE_PAGES = 16_384
const LEASE_TTL_MS = 10_000
const SPILL_BYTES_MAX = 1 << 30

interface Pager {
  readonly name: string
  readonly child: ChildProcess
  readonly client: PagerClient
  readonly events: PagerEvent[]
}

export interface PagersEnd {
  /** How home said that it ended, as `run` would; both undefined when it did not. */
  readonly status: number | undefined
  readonly message: string | undefined
  readonly stdout: Buffer
  readonly stats: PagerStats
}

export class Pagers {
  readonly directory: string
  readonly wires: Wire[] = []
  readonly #id = randomBytes(8).toString('hex')
  readonly #pagers: Pager[] = []
  readonly #output: Buffer[] = []
  readonly #leaseTtlMs: number
  #leases = 0

  /** `directory`: not in memory, for the spill refuses that. */
  private constructor(directory: string, leaseTtlMs: number) {
    this.directory = directory
    this.#leaseTtlMs = leaseTtlMs
  }

  /**
   * A home that will run `command`, and participants b, c ..., of which each has a lane to home and to those before it,
   * all over wires.
   */
  static async start(
    command: readonly string[],
    options: { participants: number; memoryPages: number; jumpEvery: number; leaseTtlMs?: number },
  ): Promise<Pagers> {
    const pagers = new Pagers(mkdtempSync('/var/tmp/el-wires-'), options.leaseTtlMs ?? LEASE_TTL_MS)
    await pagers.#startHome(command, options.memoryPages, options.jumpEvery)
    for (let node = 1; node <= options.participants; node++) await pagers.#startPeer(node)
    for (let node = 1; node <= options.participants; node++)
      for (let before = 0; before < node; before++) await pagers.#join(before, node)
    return pagers
  }

  get home(): PagerClient {
    return this.#of(0).client
  }

  pid(node: number): number {
    return this.#of(node).child.pid ?? 0
  }

  events(node: number): readonly PagerEvent[] {
    return this.#of(node).events
  }

  /** Runs the program to its end; the participants end with it. */
  async run(): Promise<PagersEnd> {
    this.home.send({ kind: 'start' })
    const { child, events } = this.#of(0)
    await new Promise(resolve => child.once('close', resolve))
    await until('the end of all pagers', () => this.#pagers.every(each => each.child.exitCode !== null))
    const exited = events.find(event => event.kind === 'exited')
    const stats = events.filter(event => event.kind === 'stats').at(-1)
    return {
      status: exited?.code,
      message: exited?.message,
      stdout: Buffer.concat(this.#output),
      stats: stats?.stats ?? ({} as PagerStats),
    }
  }

  stop(): void {
    for (const { child } of this.#pagers) child.kill('SIGKILL')
    for (const wire of this.wires) wire.remove()
    rmSync(this.directory, { recursive: true, force: true })
  }

  #of(node: number): Pager {
    const pager = this.#pagers[node]
    if (pager === undefined) throw new Error(`no node ${node}`)
    return pager
  }

  #remember(name: string, child: ChildProcess, client: PagerClient): void {
    const events: PagerEvent[] = []
    client.on(event => events.push(event))
    this.#pagers.push({ name, child, client, events })
  }

  async #startHome(command: readonly string[], memoryPages: number, jumpEvery: number): Promise<void> {
    const spillDir = join(this.directory, 'a')
    mkdirSync(spillDir)
    const args = homePagerArguments({
      id: this.#id,
      socketPath: join(this.directory, 'a.sock'),
      memoryPages,
      spillDir,
      spillMaxBytes: SPILL_BYTES_MAX,
      policy: 'always-pull',
      jumpEvery,
      nodeName: 'a',
      command,
    })
    const child = spawn(PAGER, args, { stdio: ['ignore', 'pipe', 'inherit', 'pipe'], cwd: this.directory })
    child.stdout?.on('data', chunk => this.#output.push(chunk))
    this.#remember('a', child, await PagerClient.over(child.stdio[3] as Socket, 'run'))
  }

  async #startPeer(node: number): Promise<void> {
    const name = String.fromCharCode('a'.charCodeAt(0) + node)
    const socket = join(this.directory, `${name}.sock`)
    const spillDir = join(this.directory, name)
    mkdirSync(spillDir)
    const args = ['peer', '--id', this.#id, '--socket', socket, '--spill-dir', spillDir, '--name', name]
    args.push('--node', String(node), '--listen', '127.0.0.1', '--memory-pages', String(LEASE_PAGES))
    const child = spawn(PAGER, args, { stdio: ['ignore', 'ignore', 'inherit'], cwd: this.directory })
    let client: PagerClient | undefined
    await until(`pager ${name}`, async () => {
      client = await PagerClient.connect(socket, 'agent').catch(() => undefined)
      return client !== undefined
    })
    if (client !== undefined) this.#remember(name, child, client)
  }

  /** `from` dials `to`, and both know of the other when this is over. */
  async #join(from: number, to: number): Promise<void> {
    const [dialler, listener] = [this.#of(from), this.#of(to)]
    const wire = await Wire.to(listener.client.describe.lanePort)
    this.wires.push(wire)
    const terms = {
      leaseId: ++this.#leases,
      pagesMax: LEASE_PAGES,
      threadsMax: 8,
      ttlMs: this.#leaseTtlMs,
      peerId: 'x',
      laneKey: Uint8Array.from(randomBytes(LANE_KEY_BYTES)),
    }
    listener.client.send({ kind: 'lane', ...terms, node: from, nodeName: dialler.name, host: '', port: 0 })
    dialler.client.send({
      kind: 'lane',
      ...terms,
      node: to,
      nodeName: listener.name,
      host: '127.0.0.1',
      port: wire.port,
    })
    const isUp = (pager: Pager, node: number) =>
      pager.events.some(event => event.kind === 'lane-up' && event.node === node)
    await until('the lane', () => isUp(dialler, to) && isUp(listener, from))
  }
}
