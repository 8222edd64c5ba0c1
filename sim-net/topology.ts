/**
 * Which of the simulated hosts can reach which, and over what kind of link. A cut is of one direction and wordless:
 * what is sent there vanishes. A partition keeps its groups apart in both directions.
 */

/** Of one direction; a link between two hosts is as a rule the same both ways. */
export interface LinkProfile {
  /** One way, at least. */
  readonly latencyMs: number
  /** Up to so much more, drawn for each message. */
  readonly jitterMs: number
  /** Probability that a packet is lost: a message on a stream is late by a retransmission, gossip does not arrive. */
  readonly loss: number
  /** Probability that gossip arrives twice. */
  readonly duplicate: number
  /** Probability that gossip is late by up to `reorderMs`, and so overtaken. */
  readonly reorder: number
  readonly reorderMs: number
  readonly bytesPerMs: number
}

/** A wired network of 1 Gbit/s. */
export const LAN: LinkProfile = {
  latencyMs: 0.2,
  jitterMs: 0.1,
  loss: 0,
  duplicate: 0,
  reorder: 0,
  reorderMs: 0,
  bytesPerMs: 125_000,
}

/** Hosts are numbers from 0 on. */
export class Topology {
  #default: LinkProfile
  readonly #profiles = new Map<number, Map<number, LinkProfile>>()
  readonly #cuts = new Map<number, Set<number>>()
  /** Empty: no partition. Who is in no group is in one with all the others that are in none. */
  #groups = new Map<number, number>()
  /** Whom a host does not reach even over others; kept until something changes. */
  readonly #unreached = new Map<number, ReadonlySet<number>>()

  constructor(profile: LinkProfile) {
    this.#default = profile
  }

  /** Links that were not set one by one; undefined when there are others. */
  get uniform(): LinkProfile | undefined {
    return this.#profiles.size === 0 ? this.#default : undefined
  }

  setDefault(profile: LinkProfile): void {
    this.#default = profile
  }

  setLink(from: number, to: number, profile: LinkProfile): void {
    const known = this.#profiles.get(from) ?? new Map<number, LinkProfile>()
    this.#profiles.set(from, known.set(to, profile))
  }

  link(from: number, to: number): LinkProfile {
    return this.#profiles.get(from)?.get(to) ?? this.#default
  }

  cut(from: number, to: number): void {
    const known = this.#cuts.get(from) ?? new Set<number>()
    this.#cuts.set(from, known.add(to))
    this.changed()
  }

  mend(from: number, to: number): void {
    const known = this.#cuts.get(from)
    known?.delete(to)
    if (known?.size === 0) this.#cuts.delete(from)
    this.changed()
  }

  partition(groups: readonly (readonly number[])[]): void {
    this.#groups = new Map(groups.flatMap((members, group) => members.map(host => [host, group] as const)))
    this.changed()
  }

  /** No cuts and no partition; links stay as they were set. */
  heal(): void {
    this.#cuts.clear()
    this.#groups.clear()
    this.changed()
  }

  get isWhole(): boolean {
    return this.#cuts.size === 0 && this.#groups.size === 0
  }

  /** Whether what `from` sends straight to `to` arrives. */
  isOpen(from: number, to: number): boolean {
    if (this.#groups.size > 0 && this.#groups.get(from) !== this.#groups.get(to)) return false
    return this.#cuts.get(from)?.has(to) !== true
  }

  /** Hosts among `all` that nothing from `from` reaches, not even passed on by others of them. */
  unreached(from: number, all: () => readonly number[]): ReadonlySet<number> {
    if (this.isWhole) return NOBODY
    const known = this.#unreached.get(from)
    if (known !== undefined) return known
    const left = new Set(all())
    left.delete(from)
    const reached = [from]
    for (let next = reached.pop(); next !== undefined; next = reached.pop()) {
      for (const host of left) {
        if (!this.isOpen(next, host)) continue
        left.delete(host)
        reached.push(host)
      }
    }
    this.#unreached.set(from, left)
    return left
  }

  /** Also to be called when hosts come or go: they pass on what others say. */
  changed(): void {
    this.#unreached.clear()
  }
}

const NOBODY: ReadonlySet<number> = new Set()
