/**
 * How far away the other agents are: each is sent a ping on the stream there is, four within two seconds of its joining
 * and then one every five seconds or more. Of the last eight round trips the shortest counts, once there are four: what is
 * more is an event loop that was busy, as when agents join.
 *
 * Limits: of each member one ping is under way, whose answer counts until the next one; in a network of many agents they
 * go out more rarely, so that five a second are sent once all have joined.
 */

import { distanceOf } from '../machines/candidates.js'
import type { PeerId } from '../machines/types.js'
import type { PeerMessage } from '../net/messages.js'
import type { Surroundings } from '../ports/surroundings.js'

const PERIOD_MS = 5_000
const PERIOD_MS_PER_MEMBER = 200
const SAMPLES_MIN = 4
const SAMPLES_MAX = 8
/** Between the first ones. */
const FIRST_MS = 400
const PING_ID_MAX = 2 ** 47

export type DistanceMessage = Extract<PeerMessage, { kind: 'ping' | 'pong' }>

export interface DistancesPort extends Pick<Surroundings, 'clock' | 'rng'> {
  send(peer: PeerId, message: PeerMessage): boolean
  /** A peer is nearer or farther than it was thought to be. */
  onChange(peer: PeerId): void
}

interface Way {
  pingId: number
  sentAt: number
  dueAt: number
  /** The latest last. */
  samples: readonly number[]
}

export class Distances {
  readonly #port: DistancesPort
  readonly #ways = new Map<PeerId, Way>()

  constructor(port: DistancesPort) {
    this.#port = port
  }

  /** Undefined until it is known well enough. */
  rttMs(peer: PeerId): number | undefined {
    const samples = this.#ways.get(peer)?.samples ?? []
    return samples.length < SAMPLES_MIN ? undefined : Math.min(...samples)
  }

  /** Sends what is due. `joined`: all that there are streams to. */
  onTick(joined: readonly PeerId[]): void {
    const now = this.#port.clock.now()
    const here = new Set(joined)
    for (const peer of this.#ways.keys()) if (!here.has(peer)) this.#ways.delete(peer)
    const periodMs = Math.max(PERIOD_MS, PERIOD_MS_PER_MEMBER * joined.length)
    for (const peer of joined) if (now >= (this.#ways.get(peer)?.dueAt ?? 0)) this.#ping(peer, periodMs)
  }

  /** Its stream is a new one: what was measured may have been another way. */
  onJoined(peer: PeerId): void {
    this.#ways.delete(peer)
    this.#ping(peer, PERIOD_MS)
  }

  onMessage(peer: PeerId, { kind, pingId }: DistanceMessage): void {
    if (kind === 'ping') {
      this.#port.send(peer, { kind: 'pong', pingId })
      return
    }
    const way = this.#ways.get(peer)
    if (way === undefined || way.pingId !== pingId) return
    way.pingId = -1
    const before = this.rttMs(peer)
    way.samples = [...way.samples, this.#port.clock.now() - way.sentAt].slice(-SAMPLES_MAX)
    if (distanceOf(before) !== distanceOf(this.rttMs(peer))) this.#port.onChange(peer)
  }

  #ping(peer: PeerId, periodMs: number): void {
    const { clock, rng } = this.#port
    const pingId = rng.below(PING_ID_MAX)
    const sentAt = clock.now()
    const samples = this.#ways.get(peer)?.samples ?? []
    const dueAt = sentAt + (samples.length < SAMPLES_MIN ? FIRST_MS : periodMs) * rng.between(0.8, 1.2)
    this.#ways.set(peer, { pingId, sentAt, dueAt, samples })
    this.#port.send(peer, { kind: 'ping', pingId })
  }
}
