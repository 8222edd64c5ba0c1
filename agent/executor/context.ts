/**
 * What the executors of one agent share: its identity, its way to peers and pagers, clock and chance, and its log.
 */

import type { CompatibilityFacts, PeerId } from '../machines/types.js'
import type { PeerMessage } from '../net/messages.js'
import type { Surroundings } from '../ports/surroundings.js'
import type { Logger } from '../service.js'
import type { OwnershipNews } from './ownership-news.js'
import type { Pagers } from './pagers.js'
import type { Probes } from './probes.js'

export interface Context extends Surroundings {
  readonly name: string
  readonly self: PeerId
  readonly facts: CompatibilityFacts
  readonly runtimeDir: string
  readonly dataDir: string
  readonly spillMaxBytes: number
  /** IP addresses this agent was told to listen on. */
  readonly listenHosts: readonly string[]
  readonly pagers: Pagers
  readonly probes: Probes
  readonly ownership: OwnershipNews
  readonly log: Logger
  /** False when there is no stream to that peer. */
  send(peer: PeerId, message: PeerMessage): boolean
  /** The peer's address as seen from here, "" when there is none. */
  hostOf(peer: PeerId): string
  nameOf(peer: PeerId): string
  /** The shortest of the last round trips to it; undefined until it is known. */
  rttMs(peer: PeerId): number | undefined
}

/**
 * Carries out machines' effects one event after the other: an effect that causes a further event (a message that
 * cannot be sent is a refusal) queues it instead of calling into the machine from within.
 * At most 10 000 events follow from one, more is a bug.
 */
export class EventLoop<Event, Effect> {
  readonly #machine: (event: Event, now: number) => readonly Effect[]
  readonly #carryOut: (effect: Effect) => void
  readonly #now: () => number
  readonly #queue: Event[] = []
  #running = false

  constructor(
    machine: (event: Event, now: number) => readonly Effect[],
    carryOut: (effect: Effect) => void,
    now: () => number,
  ) {
    this.#machine = machine
    this.#carryOut = carryOut
    this.#now = now
  }

  feed(event: Event): void {
    this.#queue.push(event)
    if (this.#running) return
    this.#running = true
    try {
      for (let count = 0; this.#queue.length > 0; count++) {
        if (count > 10_000) throw new Error('events follow from each other without end')
        const next = this.#queue.shift()
        if (next === undefined) break
        for (const effect of this.#machine(next, this.#now())) this.#carryOut(effect)
      }
    } finally {
      this.#running = false
    }
  }
}
