/**
 * Fault profiles: what goes wrong, how often, and for how long, all drawn from the seed. Each fault ends by itself, and
 * whatever is still broken when the faults end is mended then.
 *
 * To add a fault: a function in `FAULTS`, and its weight in the profiles that have it.
 */

import type { Machine } from '../cluster/agent.js'
import type { Cluster } from '../cluster/cluster.js'
import type { SimPager } from '../cluster/pager.js'
import type { SimHost } from '../host.js'
import type { SeededRng } from '../rng.js'
import { LAN, type LinkProfile } from '../topology.js'

export const PROFILES = ['calm', 'lossy', 'partition', 'churn', 'chaos'] as const
export type Profile = (typeof PROFILES)[number]

const LOSSY: LinkProfile = {
  latencyMs: 1,
  jitterMs: 30,
  loss: 0.03,
  duplicate: 0.1,
  reorder: 0.1,
  reorderMs: 200,
  bytesPerMs: 12_500,
}

/** Of 8 Mbit/s. */
const THIN: LinkProfile = { ...LAN, bytesPerMs: 1_000 }

type Fault =
  | 'lossy-link'
  | 'thin-link'
  | 'broken-connection'
  | 'cut-one-way'
  | 'cut'
  | 'partition'
  | 'crash'
  | 'silence'
  | 'agent-crash'
  | 'drain'
  | 'stall'
  | 'pager-stall'
  | 'pager-death'
  | 'clock-jump'
  | 'pressure'

/** How often each of them is drawn, relative to the others. */
const WEIGHTS: Record<Profile, Partial<Record<Fault, number>>> = {
  calm: {},
  lossy: { 'lossy-link': 4, 'thin-link': 2, 'broken-connection': 6 },
  partition: { 'cut-one-way': 4, cut: 4, partition: 1, 'broken-connection': 2 },
  churn: { crash: 2, silence: 1, 'agent-crash': 3, drain: 3, 'pager-death': 1, 'pager-stall': 1 },
  chaos: {
    'lossy-link': 2,
    'thin-link': 1,
    'broken-connection': 4,
    'cut-one-way': 2,
    cut: 2,
    partition: 1,
    crash: 1,
    silence: 1,
    'agent-crash': 2,
    drain: 2,
    stall: 3,
    'pager-stall': 2,
    'pager-death': 1,
    'clock-jump': 2,
    pressure: 3,
  },
}

/** Faults a second, for each agent and at most. */
const RATE_PER_AGENT = 0.05
const RATE_MIN = 1.5
const RATE_MAX = 10
const SHORT_MS_MAX = 3_000
const LONG_MS_MAX = 12_000
const CLOCK_MS_MAX = 60_000

export class Faults {
  readonly #cluster: Cluster
  readonly #rng: SeededRng
  readonly #profile: Profile
  /** Hosts that something is being done to. */
  readonly #busy = new Set<SimHost>()
  #over = false
  count = 0

  constructor(cluster: Cluster, profile: Profile) {
    this.#cluster = cluster
    this.#profile = profile
    this.#rng = cluster.network.rng.fork('faults')
  }

  /** Lets faults happen between two times (virtual ms); after the second nothing is broken any more. */
  schedule(from: number, until: number): void {
    const { network } = this.#cluster
    const { clock } = network
    if (this.#profile === 'calm') return
    if (this.#profile === 'lossy') clock.at(from, () => network.setLinks(LOSSY))
    // Clocks that were never right, before the first agent starts.
    if (this.#profile === 'chaos') for (const { host } of this.#cluster.machines) this.#jumpClock(host)
    const rate = Math.min(RATE_MAX, Math.max(RATE_MIN, RATE_PER_AGENT * this.#cluster.machines.length))
    const next = (time: number) => {
      const at = time + this.#rng.between(0, 2_000 / rate)
      if (at >= until) return
      clock.at(at, () => {
        this.#act(this.#draw())
        next(at)
      })
    }
    next(from)
    clock.at(until, () => this.#end())
  }

  #end(): void {
    this.#over = true
    const { network, machines } = this.#cluster
    network.heal()
    network.setLinks(LAN)
    for (const machine of machines) {
      this.#cluster.agents.get(machine.host)?.lending.setCapacity(machine.capacityPages)
      if (!this.#busy.has(machine.host)) this.#cluster.start(machine)
    }
  }

  #draw(): Fault {
    const weights = Object.entries(WEIGHTS[this.#profile]) as [Fault, number][]
    let left = this.#rng.below(weights.reduce((sum, [, weight]) => sum + weight, 0))
    for (const [fault, weight] of weights) {
      if (left < weight) return fault
      left -= weight
    }
    throw new Error('a profile without faults')
  }

  #act(fault: Fault): void {
    this.count++
    const { network, agents } = this.#cluster
    const acts: Record<Fault, () => void> = {
      'lossy-link': () => this.#badLink(LOSSY),
      'thin-link': () => this.#badLink(THIN),
      'broken-connection': () => this.#breakConnection(),
      'cut-one-way': () => this.#betweenTwo((a, b) => this.#cut(a, b)),
      cut: () =>
        this.#betweenTwo((a, b) => {
          this.#cut(a, b)
          this.#cut(b, a)
        }),
      partition: () => this.#partition(),
      crash: () => this.#onOne(machine => this.#crash(machine, 'reset')),
      silence: () => this.#onOne(machine => this.#crash(machine, 'silent')),
      'agent-crash': () =>
        this.#onOne(machine => {
          this.#cluster.crashAgent(machine, 'reset')
          this.#restart(machine)
        }),
      drain: () =>
        this.#onOne(machine => {
          this.#busy.add(machine.host)
          this.#cluster.stop(machine, () => this.#restart(machine))
        }),
      stall: () => this.#onOne(({ host }) => network.stall(host, this.#ms(SHORT_MS_MAX))),
      'pager-stall': () =>
        this.#onPager(pager => {
          const ms = this.#ms(LONG_MS_MAX)
          pager.note('pager-stall', pager.node, String(Math.round(ms)))
          pager.stalledUntil = network.clock.now() + ms
        }),
      'pager-death': () => this.#onPager((pager, machine) => this.#cluster.killPager(pager, machine)),
      'clock-jump': () => this.#onOne(({ host }) => this.#jumpClock(host)),
      pressure: () =>
        this.#onOne(({ host, capacityPages }) => {
          agents.get(host)?.lending.setCapacity(Math.floor(capacityPages * this.#rng.next()))
          this.#later(LONG_MS_MAX, () => agents.get(host)?.lending.setCapacity(capacityPages), true)
        }),
    }
    acts[fault]()
  }

  #ms(most: number): number {
    return this.#rng.between(most / 20, most)
  }

  #later(most: number, act: () => void, always = false): void {
    const { clock } = this.#cluster.network
    clock.at(clock.now() + this.#ms(most), () => {
      if (always || !this.#over) act()
    })
  }

  #jumpClock(host: SimHost): void {
    this.#cluster.network.jumpClock(host, Math.round(this.#rng.between(-CLOCK_MS_MAX, CLOCK_MS_MAX)))
  }

  #badLink(link: LinkProfile): void {
    const { network } = this.#cluster
    this.#betweenTwo((a, b) => {
      network.setLink(a, b, link)
      this.#later(LONG_MS_MAX, () => network.setLink(a, b, LAN), true)
    })
  }

  #cut(from: SimHost, to: SimHost): void {
    const { network } = this.#cluster
    network.cut(from, to)
    this.#later(LONG_MS_MAX, () => network.mend(from, to))
  }

  #partition(): void {
    const { network, machines } = this.#cluster
    const group = machines.map(({ host }) => host).filter(() => this.#rng.chance(0.3))
    if (group.length === 0) return
    network.partition([group])
    this.#later(LONG_MS_MAX, () => network.partition([]))
  }

  #crash(machine: Machine, how: 'reset' | 'silent'): void {
    this.#cluster.crash(machine, how)
    this.#restart(machine)
  }

  #restart(machine: Machine): void {
    this.#busy.add(machine.host)
    this.#later(
      LONG_MS_MAX,
      () => {
        this.#busy.delete(machine.host)
        this.#cluster.start(machine)
      },
      true,
    )
  }

  #onOne(act: (machine: Machine) => void): void {
    const machine = this.#rng.pick(this.#cluster.machines)
    if (machine.host.isUp && !machine.host.stalled && !this.#busy.has(machine.host)) act(machine)
  }

  /** One that somebody has lent. */
  #onPager(act: (pager: SimPager, machine: Machine) => void): void {
    this.#onOne(machine => {
      const held = [...machine.held.values()]
      if (held.length > 0) act(this.#rng.pick(held), machine)
    })
  }

  /** Most often two that have a lane. */
  #betweenTwo(act: (a: SimHost, b: SimHost) => void): void {
    const { machines } = this.#cluster
    const lanes = this.#cluster.lanes()
    if (lanes.length > 0 && this.#rng.chance(0.8)) {
      const lane = this.#rng.pick(lanes)
      act(lane.pager.host, lane.other.pager.host)
      return
    }
    const [a, b] = [this.#rng.pick(machines).host, this.#rng.pick(machines).host]
    if (a !== b) act(a, b)
  }

  #breakConnection(): void {
    const lanes = this.#cluster.lanes()
    if (lanes.length > 0) this.#rng.pick(lanes).breakOne(this.#rng.chance(0.5))
  }
}
