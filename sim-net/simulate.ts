/**
 * One simulation from its seed to its result: the cluster runs for so long, with faults in the middle; then nothing is
 * broken any more and it has to be live again; then all processes end and nothing may be left of them.
 */

import type { Simulator } from '../agent/cli/simulate.js'
import type { Violation } from './checkers/checks.js'
import { checkLeases } from './checkers/leases.js'
import { disagreement, Leaving, leftover, progressOf, standstill } from './checkers/liveness.js'
import { Cluster } from './cluster/cluster.js'
import type { Planted } from './cluster/site.js'
import { Faults, PROFILES, type Profile } from './faults/faults.js'
import { Hash } from './hash.js'
import { plot } from './plot.js'

export interface SimulationOptions {
  readonly agents: number
  /** Virtual seconds before the end phases. */
  readonly seconds: number
  readonly seed: number
  readonly faults: Profile
  /** Whether to keep a list of what happens. */
  readonly record?: boolean
  /** A bug on purpose. */
  readonly planted?: Planted
}

export interface SimulationResult {
  readonly seed: number
  readonly agents: number
  readonly faults: Profile
  readonly hash: string
  readonly violations: readonly Violation[]
  readonly violationsLeft: number
  readonly virtualSeconds: number
  readonly messages: number
  readonly frames: number
  readonly faultsMade: number
  readonly processes: number
  readonly failed: number
  readonly operations: number
  readonly pulls: number
  readonly jumps: number
  readonly pagesPushed: number
  readonly askedByHint: number
}

/** Faults happen between these shares of the time. */
const FAULTS_FROM = 0.1
const FAULTS_UNTIL = 0.7
const SLICE_MS = 1_000
/** Streams that hung on a cut end after 40 s at the latest, and are opened again within 10 s. */
const LIVE_MS_MAX = 90_000
/** An agent takes 10 s at most to hand back what it holds. */
const LEAVE_MS_MAX = 12_000
/** A lease that nobody took, or whose home is gone: 10 s, then 4 s, then 3 s until it is killed. */
const FREE_MS_MAX = 40_000
/** Pages of all processes are looked at this often, in looks of a slice. */
const SWEEP_PAGES_MAX = 20_000

export class Simulation {
  readonly #options: SimulationOptions
  readonly #cluster: Cluster
  readonly #faults: Faults
  #phase: 'main' | 'live' | 'leave' | 'free' | 'over' = 'main'
  /** Of the phase in which one agent leaves in order. */
  #leaving: Leaving | undefined
  #phaseEndsAt: number
  #before: ReturnType<typeof progressOf> = new Map()
  #nextSwept = 0

  constructor(options: SimulationOptions) {
    this.#options = options
    this.#cluster = new Cluster(options)
    this.#faults = new Faults(this.#cluster, options.faults)
    const ms = options.seconds * 1_000
    this.#faults.schedule(ms * FAULTS_FROM, ms * FAULTS_UNTIL)
    this.#phaseEndsAt = ms
  }

  /** Virtual seconds so far. */
  get seconds(): number {
    return this.#cluster.network.clock.now() / 1_000
  }

  /** As SVG; only of a run that was recorded. */
  plot(): string {
    const { network, machines } = this.#cluster
    return plot(
      machines.map(({ host }) => host.name),
      network.trace.events,
      this.seconds,
    )
  }

  /** Lets a virtual second pass; false when all is over. What throws is a bug, and ends it. */
  step(): boolean {
    const { clock } = this.#cluster.network
    const slice = this.#phase === 'main' ? Math.min(SLICE_MS, this.#phaseEndsAt - clock.now()) : SLICE_MS
    try {
      clock.runFor(slice)
      this.#look()
      this.#turn()
    } catch (error) {
      this.#cluster.checks.report('error', error instanceof Error ? error.message : String(error))
      this.#phase = 'over'
    }
    return this.#phase !== 'over'
  }

  run(): SimulationResult {
    while (this.step());
    return this.result()
  }

  result(): SimulationResult {
    const { network, checks, processes, messages, frames } = this.#cluster
    const { seed, agents, faults } = this.#options
    const sum = (of: (process: (typeof processes)[number]) => number) =>
      processes.reduce((total, process) => total + of(process), 0)
    return {
      seed,
      agents,
      faults,
      hash: network.trace.hash,
      violations: checks.violations,
      violationsLeft: checks.left,
      virtualSeconds: network.clock.now() / 1_000,
      messages,
      frames,
      faultsMade: this.#faults.count,
      processes: processes.length,
      failed: processes.filter(({ ended }) => ended !== undefined && ended !== '').length,
      operations: sum(process => process.operations()),
      pulls: sum(({ pulls }) => pulls),
      jumps: sum(({ jumps }) => jumps),
      pagesPushed: sum(({ pushes }) => pushes),
      askedByHint: sum(({ askedByHint }) => askedByHint),
    }
  }

  /** Some of the processes in turn, so that a look costs the same however many there are. */
  #look(): void {
    const { processes, checks } = this.#cluster
    checkLeases(this.#cluster)
    let pages = 0
    const running = processes.filter(({ runs }) => runs)
    for (let i = 0; i < running.length && pages < SWEEP_PAGES_MAX; i++) {
      const process = running[this.#nextSwept++ % running.length]
      if (process === undefined) break
      checks.sweep(process)
      pages += process.plan.program.pages
    }
  }

  #turn(): void {
    const cluster = this.#cluster
    const { clock } = cluster.network
    const late = clock.now() >= this.#phaseEndsAt
    switch (this.#phase) {
      case 'main':
        if (!late) return
        this.#before = progressOf(cluster)
        this.#begin('live', LIVE_MS_MAX)
        return
      case 'live':
        if (!this.#isOver(LIVE_MS_MAX, disagreement(cluster) ?? standstill(cluster, this.#before))) return
        this.#leaving = new Leaving(cluster)
        this.#begin('leave', LEAVE_MS_MAX)
        return
      case 'leave':
        if (!this.#isOver(LEAVE_MS_MAX, this.#leaving?.lack())) return
        this.#reportErrors()
        cluster.close()
        this.#begin('free', FREE_MS_MAX)
        return
      case 'free':
        if (this.#isOver(FREE_MS_MAX, leftover(cluster))) this.#phase = 'over'
    }
  }

  /** Whether nothing lacks any more, or the time for it has passed, which is a violation. */
  #isOver(msMax: number, lack: string | undefined): boolean {
    if (lack === undefined) return true
    if (this.#cluster.network.clock.now() < this.#phaseEndsAt) return false
    this.#cluster.checks.report('liveness', `after ${msMax / 1000} s: ${lack}`)
    return true
  }

  #begin(phase: 'live' | 'leave' | 'free', ms: number): void {
    this.#phase = phase
    this.#phaseEndsAt = this.#cluster.network.clock.now() + ms
  }

  /** Without faults no run ends with an error. */
  #reportErrors(): void {
    if (this.#options.faults !== 'calm') return
    for (const { title, ended } of this.#cluster.processes)
      if (ended !== undefined && ended !== '') this.#cluster.checks.report('error', `${title}: ${ended}`)
  }
}

/** What `elasticos simulate` needs of this folder (agent/cli/simulate.ts). */
export const simulator: Simulator = {
  profiles: PROFILES,
  start: ({ faults, ...options }) => {
    const profile = PROFILES.find(each => each === faults)
    if (profile === undefined) throw new RangeError(`no profile ${faults}`)
    return new Simulation({ ...options, faults: profile })
  },
  hashOf: texts => {
    const hash = new Hash()
    for (const text of texts) hash.text(text)
    return hash.digest()
  },
}
