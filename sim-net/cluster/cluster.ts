/**
 * A cluster in one process: machines with agents, elastic processes that come and go, and the handles by which faults
 * take hold of them. One seed picks everything.
 */

import { type ProcessId, toProcessId } from '../../agent/machines/types.js'
import { CONNECTIONS_MAX } from '../../agent/net/limits.js'
import { pageNumber, type ThreadId } from '../../placement/ids.js'
import { type PolicySpec, parsePolicy } from '../../placement/registry.js'
import { Checks } from '../checkers/checks.js'
import type { SimHost } from '../host.js'
import { type CrashKind, SimNetwork } from '../network.js'
import type { SeededRng } from '../rng.js'
import { ClusterAgent, type Machine } from './agent.js'
import { PATTERNS } from './guest.js'
import type { LaneEnd } from './lane.js'
import { SimPager } from './pager.js'
import { SimProcess } from './process.js'
import type { Planted, Site } from './site.js'

export interface ClusterOptions {
  readonly agents: number
  readonly seed: number
  /** Whether to keep a list of what happens, for pictures. */
  readonly record?: boolean
  readonly planted?: Planted
}

/** Of more agents than this each has streams to few others, which keeps thousands of them in memory. */
const WHOLE_VIEW_MAX = 200
const VIEW_MAX_OF_MORE = 64
/** Agents start within this time. */
const START_MS = 500
const PROCESSES_MAX = 50
/** Groups of operations of all threads together; among many agents it is more about what agents do. */
const GROUPS_PER_MS = 1
const GROUPS_PER_MS_OF_MORE = 0.5
const LIFE_MS_MIN = 8_000
const LIFE_MS_MAX = 40_000
const PAUSE_MS_MAX = 3_000
/** How soon another one follows one that has failed. */
const LOOK_MS = 500
const PORT_FIRST = 20_000
const PORTS = 40_000
const FIRST_PAGE = pageNumber(0x10_000)
const POLICIES = ['always-pull', 'multinode-adaptive-lru', 'multinode-adaptive-lru:window=6,threshold=0.5']
/** Free memory of lenders, some of them small. */
const CAPACITIES = [300, 400, 600, 1_000, 6_000]
const THREADS_MAX = 4

export class Cluster {
  readonly network: SimNetwork
  readonly checks: Checks
  readonly machines: Machine[] = []
  readonly agents = new Map<SimHost, ClusterAgent>()
  readonly processes: SimProcess[] = []
  readonly rng: SeededRng
  frames = 0
  /** Messages that agents which are gone have got. */
  #messages = 0
  readonly #site: Site
  readonly #listening = new Map<string, SimPager>()
  readonly #work: SeededRng
  /** So many would real agents know. */
  readonly #knownMin: number
  #ports = 0
  #closing = false

  constructor({ agents, seed, record = false, planted = 'none' }: ClusterOptions) {
    const isLarge = agents > WHOLE_VIEW_MAX
    this.network = new SimNetwork({
      seed,
      record,
      spareStrangers: true,
      ...(isLarge ? { viewMax: VIEW_MAX_OF_MORE } : {}),
    })
    const { clock, trace } = this.network
    this.checks = new Checks(seed, clock)
    this.rng = this.network.rng.fork('cluster')
    this.#work = this.network.rng.fork('work')
    const slots = Math.min(PROCESSES_MAX, Math.max(2, Math.ceil(agents / 5)))
    this.#site = {
      clock,
      network: this.network,
      rng: this.network.rng.fork('pagers'),
      checks: this.checks,
      planted,
      find: (address, port) => this.#listening.get(`${address}:${port}`),
      ended: ({ host, describe }) => this.#listening.delete(`${host.address}:${describe.lanePort}`),
      onFrame: (from, to, frame) => {
        this.frames++
        trace.count(
          clock.now(),
          frame.kind,
          from.number,
          to.number,
          frame.kind === 'status' ? frame.window : 0,
        )
      },
      thinkMs: Math.max(1, (slots * THREADS_MAX) / 2 / (isLarge ? GROUPS_PER_MS_OF_MORE : GROUPS_PER_MS)),
    }
    this.#knownMin = isLarge ? Math.min(agents - 1, CONNECTIONS_MAX) : 0
    for (let i = 0; i < agents; i++) this.#addMachine(i)
    for (let slot = 0; slot < slots; slot++) this.#begin(START_MS + 1_000 + this.#work.below(PAUSE_MS_MAX))
  }

  get messages(): number {
    let messages = this.frames + this.network.loadsHeard + this.#messages
    for (const agent of this.agents.values()) messages += agent.messages
    return messages
  }

  /** Lane ends of all pagers that are alive. */
  lanes(): LaneEnd[] {
    return this.processes.flatMap(({ pagers }) => [...pagers].flatMap(pager => [...pager.lanes.values()]))
  }

  start(machine: Machine): void {
    if (!machine.host.isUp)
      this.agents.set(machine.host, new ClusterAgent(this.network, machine, this.#knownMin))
  }

  /** The whole machine. */
  crash(machine: Machine, how: CrashKind): void {
    for (const pager of [...machine.homes.values(), ...machine.held.values()]) pager.kill()
    machine.homes.clear()
    machine.held.clear()
    machine.records.clear()
    machine.homeRecords.clear()
    this.crashAgent(machine, how)
  }

  /** One that is lent, alone and without a word; its agent notices. */
  killPager(pager: SimPager, { host }: Machine): void {
    pager.note('pager-death', pager.node, pager.process.title)
    pager.kill()
    host.run(() => this.agents.get(host)?.lending.onDeath(pager.process.plan.id))
  }

  /** Pagers run on without it. */
  crashAgent({ host }: Machine, how: CrashKind): void {
    this.#forgetAgent(host)
    this.network.crash(host, how)
  }

  /** In order; `then` when it is gone. */
  stop({ host }: Machine, then: () => void): void {
    const agent = this.agents.get(host)
    agent?.stop(() => {
      if (this.agents.get(host) === agent) this.#forgetAgent(host)
      then()
    })
  }

  /** All processes end by themselves, and none begins any more. */
  close(): void {
    this.#closing = true
    for (const process of this.processes) homeOf(process)?.end('')
  }

  #forgetAgent(host: SimHost): void {
    this.#messages += this.agents.get(host)?.messages ?? 0
    this.agents.delete(host)
  }

  #addMachine(number: number): void {
    const host = this.network.host(`n${number}`)
    const held: Machine['held'] = new Map()
    const machine: Machine = {
      host,
      capacityPages: this.#work.pick(CAPACITIES),
      held,
      homes: new Map(),
      records: new Map(),
      homeRecords: new Map(),
      spawn: (processId, node, memoryPages) => {
        const process = this.processes.find(({ plan, runs }) => plan.id === processId && runs)
        return process === undefined ? undefined : this.#newPager(host, process, 'peer', node, memoryPages)
      },
    }
    this.machines.push(machine)
    const { clock } = this.network
    clock.at(this.#work.between(0, START_MS), () => this.start(machine))
  }

  /** One elastic process after the other, each on a machine that is drawn. */
  #begin(ms: number): void {
    const { clock } = this.network
    clock.at(clock.now() + ms, () => {
      if (this.#closing) return
      const up = this.machines.filter(({ host }) => host.isUp && !host.stalled)
      if (up.length === 0) {
        this.#begin(PAUSE_MS_MAX)
        return
      }
      const process = this.#startProcess(this.#work.pick(up))
      const until = clock.now() + this.#work.between(LIFE_MS_MIN, LIFE_MS_MAX)
      const look = () => {
        if (clock.now() >= until) homeOf(process)?.end('')
        if (process.runs) clock.at(clock.now() + LOOK_MS, look)
        else this.#begin(this.#work.between(0, PAUSE_MS_MAX))
      }
      look()
    })
  }

  #startProcess(machine: Machine): SimProcess {
    const work = this.#work
    const number = this.processes.length + 1
    const memoryPages = 400 + work.below(300)
    const process = new SimProcess({
      id: toProcessId(number.toString(16).padStart(16, '0')) as ProcessId,
      number,
      program: {
        seed: work.below(2 ** 31),
        pattern: work.pick(PATTERNS),
        first: FIRST_PAGE,
        pages: Math.floor(memoryPages * work.between(0.8, 3)),
        writes: work.between(0.1, 0.8),
      },
      threads: 1 + work.below(THREADS_MAX),
      memoryPages,
      participantsMax: 2 + work.below(4),
      policy: policyOf(work.pick(POLICIES)),
      jumpEvery: work.pick([0, 0, 1, 10, 50]),
    })
    this.processes.push(process)
    const home = this.#newPager(machine.host, process, 'home', 0, memoryPages)
    machine.homes.set(process.plan.id, home)
    this.agents.get(machine.host)?.attach(process.plan.id, home, [])
    home.note('process', home.node, `${process.plan.program.pages} pages`)
    for (let thread = 0; thread < process.plan.threads; thread++) {
      const context = { thread: thread as ThreadId, pc: 0, pullsFirst: 0, left: 0, ranUs: 0, recent: [] }
      home.guests.arrive(context, false)
    }
    return process
  }

  #newPager(
    host: SimHost,
    process: SimProcess,
    role: 'home' | 'peer',
    node: number,
    memoryPages: number,
  ): SimPager {
    const port = PORT_FIRST + (this.#ports++ % PORTS)
    const { id, number } = process.plan
    const pager = new SimPager(
      this.#site,
      host,
      {
        role,
        node,
        memoryPages,
        pagerPid: 1 + this.#ports,
        appPid: 0,
        lanePort: port,
        epoch: 1,
        uid: 0,
        startedAtMs: host.clock.wall(),
        id,
        program: `program-${number}`,
        nodeName: host.name,
      },
      process,
    )
    this.#listening.set(`${host.address}:${port}`, pager)
    return pager
  }
}

function homeOf({ pagers }: SimProcess): SimPager | undefined {
  for (const pager of pagers) if (pager.node === 0) return pager
  return undefined
}

function policyOf(text: string): PolicySpec {
  const parsed = parsePolicy(text)
  if (parsed.kind === 'refused') throw new Error(parsed.reason)
  return parsed.value
}
