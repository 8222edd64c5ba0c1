/**
 * How each peer behaves: what it sends is counted against a rate, and what no honest agent sends against the peer. Too
 * much of that and it is shut out for a while, which doubles each time. Pure: time is an argument.
 *
 * An honest agent sends a few messages a second, hundreds at most while many leases change, and tells its load once a
 * second. The rates are far above, so that what piles up while this agent stalls for seconds is no flood.
 * Nobody answers for what others make it pass on: that has rates of its own, and beyond them it is dropped.
 *
 * Limits: 1024 peers; of more, the one that was heard of longest ago is forgotten, and with it what it has done: who has
 * the network key can have any number of identities. While somebody is shut out, his address is let in five times a
 * second, because each refusal costs a handshake, and as often again for each other peer there that was connected then,
 * three at most.
 */

import { isNewer, type LoadTime } from '../machines/membership.js'
import type { PeerId } from '../machines/types.js'

const PEERS_MAX = 1024
const RATES = {
  /** Messages on its own stream. */
  messages: { burst: 2_000, perSecond: 500 },
  /** Loads of others that it passes on. */
  passedOn: { burst: 2_000, perSecond: 500 },
  /** Its own loads, from itself. */
  loads: { burst: 100, perSecond: 10 },
  /** Its own loads, from others. */
  loadsByOthers: { burst: 100, perSecond: 10 },
  /** Streams it opens: an agent tries four times a second. */
  streams: { burst: 20, perSecond: 5 },
  /** Lists of those it knows: each makes this agent dial them. */
  introductionsHeard: { burst: 4, perSecond: 1 / 60 },
  introductionsSaid: { burst: 4, perSecond: 1 / 60 },
} as const
const CONNECTIONS_PER_SECOND = 5
const NEIGHBOURS_MAX = 3
/** So many offences within a minute shut a peer out. */
const OFFENCES_MAX = 5
const OFFENCES_MS = 60_000
const SHUT_OUT_MS = 10_000
const SHUT_OUT_MS_MAX = 3_600_000
/** After so long without an offence a peer begins anew. */
const FORGIVEN_MS = 3_600_000

export type Rated = keyof typeof RATES

export const OFFENCES = ['malformed', 'flood', 'gossip', 'connections'] as const
/** What a peer did: bytes that are no message; too many of them, or of streams; gossip that is none; too many connections. */
export type Offence = (typeof OFFENCES)[number]

interface Rate {
  readonly burst: number
  readonly perSecond: number
}

/** What may still come at once. */
class Bucket {
  readonly #rate: Rate
  #left: number
  #at: number

  constructor(rate: Rate, now: number) {
    this.#rate = rate
    this.#left = rate.burst
    this.#at = now
  }

  take(now: number): boolean {
    const { burst, perSecond } = this.#rate
    this.#left = Math.min(burst, this.#left + ((now - this.#at) / 1000) * perSecond)
    this.#at = now
    if (this.#left < 1) return false
    this.#left--
    return true
  }
}

interface Record {
  readonly buckets: { [what in Rated]?: Bucket }
  newest: LoadTime | undefined
  offences: number
  firstOffenceAt: number
  lastOffenceAt: number
  shutOut: number
  shutUntil: number
}

interface Door {
  readonly connections: Bucket
  until: number
}

export class Conduct {
  readonly counts: { [offence in Offence]: number } = { malformed: 0, flood: 0, gossip: 0, connections: 0 }
  /** How often a peer was shut out. */
  shutOuts = 0
  readonly #records = new Map<PeerId, Record>()
  /** By address, those behind which somebody is shut out. */
  readonly #doors = new Map<string, Door>()

  /** Whether one more of these of `peer` is within its rate. */
  takes(what: Rated, peer: PeerId, now: number): boolean {
    const { buckets } = this.#record(peer)
    buckets[what] ??= new Bucket(RATES[what], now)
    return buckets[what].take(now)
  }

  /**
   * Whether a load of `peer` is newer than those before, in which case it is the newest from now on. An old one is
   * still signed, and gossip remembers for two minutes only which it has seen. `said`: what is newest, if `peer` has a
   * stream to this agent and has said itself which of its starts it is.
   */
  isNews(peer: PeerId, { incarnation, sequence }: LoadTime, said: LoadTime | undefined): boolean {
    const record = this.#record(peer)
    const load = { incarnation, sequence }
    const newest = said ?? record.newest
    if (newest !== undefined && !isNewer(load, newest)) return false
    if (said !== undefined && incarnation !== said.incarnation) return false
    record.newest = load
    return true
  }

  /**
   * Notes an offence; for how long the peer at `host` is shut out from now on, 0 if it is not. `neighbours`: how many
   * others are connected from there.
   */
  note(peer: PeerId, host: string, offence: Offence, now: number, neighbours: () => number): number {
    this.counts[offence]++
    const record = this.#record(peer)
    if (now < record.shutUntil) return 0
    if (now - record.lastOffenceAt > FORGIVEN_MS) record.shutOut = 0
    if (now - record.firstOffenceAt > OFFENCES_MS) {
      record.offences = 0
      record.firstOffenceAt = now
    }
    record.lastOffenceAt = now
    if (++record.offences < OFFENCES_MAX) return 0
    const ms = Math.min(SHUT_OUT_MS_MAX, SHUT_OUT_MS * 2 ** record.shutOut++)
    record.offences = 0
    record.shutUntil = record.lastOffenceAt = now + ms
    this.shutOuts++
    this.#close(host, now, now + ms, neighbours())
    return ms
  }

  isShutOut(peer: PeerId, now: number): boolean {
    return now < (this.#records.get(peer)?.shutUntil ?? 0)
  }

  /** Whether one more connection from `host` is let in, before it is known whose it is. */
  admits(host: string, now: number): boolean {
    const door = this.#doors.get(host)
    if (door === undefined) return true
    if (now < door.until) return door.connections.take(now)
    this.#doors.delete(host)
    return true
  }

  #close(host: string, now: number, until: number, neighbours: number): void {
    const door = this.#doors.get(host)
    if (door !== undefined) door.until = Math.max(door.until, until)
    else {
      dropOldest(this.#doors)
      const perSecond = CONNECTIONS_PER_SECOND * (1 + Math.min(neighbours, NEIGHBOURS_MAX))
      this.#doors.set(host, { connections: new Bucket({ burst: perSecond, perSecond }, now), until })
    }
  }

  #record(peer: PeerId): Record {
    const known = this.#records.get(peer)
    if (known !== undefined) {
      this.#records.delete(peer)
      this.#records.set(peer, known)
      return known
    }
    dropOldest(this.#records)
    const never = Number.NEGATIVE_INFINITY
    const clean = { offences: 0, firstOffenceAt: never, lastOffenceAt: never, shutOut: 0, shutUntil: 0 }
    const record = { buckets: {}, newest: undefined, ...clean }
    this.#records.set(peer, record)
    return record
  }
}

function dropOldest(map: Map<string, unknown>): void {
  const oldest = map.keys().next()
  if (map.size >= PEERS_MAX && !oldest.done) map.delete(oldest.value)
}
