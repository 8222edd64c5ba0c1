/**
 * Who is there: which agents have joined, what they have to lend, whom we no longer hear, whom we see on the LAN but
 * cannot let in. Pure; one instance per agent.
 *
 * An agent is joined while its stream is open and it is heard from in time. It is suspected when the stream is gone or
 * its load is overdue; that changes what is *shown* and where new leases are offered, never a lane that is up.
 * A suspected agent without a stream is forgotten after a while, and at once when it said that it leaves.
 *
 * Limits: 1024 members, 256 strangers (the oldest give way), 10 of them told a minute, because anybody on the LAN can
 * pretend to be any number of them; loads older than the newest one seen are ignored.
 */

import type { PeerId } from './types.js'

const MEMBERS_MAX = 1024
const STRANGERS_MAX = 256
/** Missed load messages after which a silent agent is suspected. */
const OVERDUE_FACTOR = 3.5
/** How long a suspected agent without a stream stays in the list. */
const FORGET_MS = 30_000
/** How long a stranger that announces itself no more stays in the list; announcements come every 12 s at the least. */
const STRANGER_MS = 30_000
const STRANGERS_TOLD_MAX = 10
const STRANGERS_TOLD_MS = 60_000

/** What an agent says about itself, in its hello and then in each load message. */
export interface Load {
  readonly name: string
  /** Larger at every start of the agent (ms since 1970 when it started). */
  readonly incarnation: number
  /** Counts the load messages of this incarnation. */
  readonly sequence: number
  readonly freePages: number
  readonly capacityPages: number
  readonly cpus: number
  readonly processes: number
  readonly addresses: readonly string[]
  /** When the next load message is due at the latest. */
  readonly nextMs: number
}

/** What tells the loads of one agent apart. */
export type LoadTime = Pick<Load, 'incarnation' | 'sequence'>

export interface Member {
  readonly peer: PeerId
  readonly state: 'joined' | 'suspected'
  readonly load: Load
  /** Host of the peer as this agent sees it; "" without a stream. */
  readonly host: string
}

/** An agent that was seen and has not joined. */
export interface Stranger {
  /** Peer id it claims, or its address where only that is known. */
  readonly id: string
  readonly name: string
  readonly address: string
  readonly remedy: string
}

export type MembershipEvent =
  | { readonly kind: 'joined'; readonly peer: PeerId; readonly load: Load; readonly host: string }
  | { readonly kind: 'load'; readonly peer: PeerId; readonly load: Load }
  | { readonly kind: 'lost'; readonly peer: PeerId }
  | { readonly kind: 'leaving'; readonly peer: PeerId }
  | { readonly kind: 'stranger'; readonly stranger: Stranger }
  | { readonly kind: 'tick' }

export type MembershipEffect =
  | { readonly kind: 'available'; readonly member: Member }
  | {
      readonly kind: 'unavailable'
      readonly peer: PeerId
      readonly why: 'suspected' | 'leaving' | 'forgotten'
    }
  | { readonly kind: 'new-stranger'; readonly stranger: Stranger }
  /** There are others, of whom nothing is told for now. */
  | { readonly kind: 'more-strangers' }

interface Record {
  load: Load
  host: string
  connected: boolean
  leaving: boolean
  suspected: boolean
  heardAt: number
}

/** Most loads change nothing for most agents. */
const NOTHING: readonly MembershipEffect[] = []

export class Membership {
  readonly #members = new Map<PeerId, Record>()
  readonly #strangers = new Map<string, { stranger: Stranger; seenAt: number }>()
  /** Until then the time that passes changes nothing about the members. */
  #quietUntil = Number.POSITIVE_INFINITY
  #told = { since: Number.NEGATIVE_INFINITY, count: 0 }

  /** How many are joined or suspected. */
  get size(): number {
    return this.#members.size
  }

  /** Everybody who is joined or suspected, in the order they came. */
  members(): Member[] {
    return [...this.#members].map(([peer, record]) => toMember(peer, record))
  }

  member(peer: PeerId): Member | undefined {
    const record = this.#members.get(peer)
    return record === undefined ? undefined : toMember(peer, record)
  }

  strangers(): Stranger[] {
    return [...this.#strangers.values()].map(entry => entry.stranger)
  }

  onEvent(event: MembershipEvent, now: number): readonly MembershipEffect[] {
    switch (event.kind) {
      case 'joined':
        return this.#onJoined(event.peer, event.load, event.host, now)
      case 'load':
        return this.#onLoad(event.peer, event.load, now)
      case 'lost':
        return this.#onLost(event.peer, now)
      case 'leaving':
        return this.#onLeaving(event.peer)
      case 'stranger':
        return this.#onStranger(event.stranger, now)
      case 'tick':
        return this.#onTick(now)
    }
  }

  #onJoined(peer: PeerId, load: Load, host: string, now: number): MembershipEffect[] {
    const known = this.#members.get(peer)
    if (known === undefined && this.#members.size >= MEMBERS_MAX) return []
    // What a peer says on its own stream is so, even if the clock that numbers its starts has gone back.
    const same = known?.load.incarnation === load.incarnation
    const newest = known !== undefined && same && known.load.sequence > load.sequence ? known.load : load
    const record = { load: newest, host, connected: true, leaving: false, suspected: false, heardAt: now }
    this.#members.set(peer, record)
    this.#expect(record)
    this.#strangers.delete(peer)
    return [{ kind: 'available', member: toMember(peer, record) }]
  }

  #onLoad(peer: PeerId, load: Load, now: number): readonly MembershipEffect[] {
    const record = this.#members.get(peer)
    if (record === undefined || !isNewer(load, record.load)) return NOTHING
    // While its stream is open that says which of its starts it is: gossip of another one is a twin's, or early.
    if (record.connected && load.incarnation !== record.load.incarnation) return NOTHING
    const isNews = record.suspected || isOther(load, record.load)
    record.load = load
    record.heardAt = now
    if (!record.connected || record.leaving) return NOTHING
    record.suspected = false
    this.#expect(record)
    return isNews ? [{ kind: 'available', member: toMember(peer, record) }] : NOTHING
  }

  #onLost(peer: PeerId, now: number): MembershipEffect[] {
    const record = this.#members.get(peer)
    if (record === undefined) return []
    if (record.leaving) {
      this.#members.delete(peer)
      return []
    }
    record.connected = false
    record.suspected = true
    record.host = ''
    record.heardAt = now
    this.#expect(record)
    return [{ kind: 'unavailable', peer, why: 'suspected' }]
  }

  #onLeaving(peer: PeerId): MembershipEffect[] {
    const record = this.#members.get(peer)
    if (record === undefined) return []
    record.leaving = true
    record.suspected = true
    if (!record.connected) this.#members.delete(peer)
    return [{ kind: 'unavailable', peer, why: 'leaving' }]
  }

  #onStranger(stranger: Stranger, now: number): MembershipEffect[] {
    if (this.#members.has(stranger.id as PeerId)) return []
    const known = this.#strangers.delete(stranger.id)
    if (this.#strangers.size >= STRANGERS_MAX) {
      const oldest = this.#strangers.keys().next()
      if (!oldest.done) this.#strangers.delete(oldest.value)
    }
    this.#strangers.set(stranger.id, { stranger, seenAt: now })
    return known ? [] : this.#tell(stranger, now)
  }

  #tell(stranger: Stranger, now: number): MembershipEffect[] {
    if (now - this.#told.since >= STRANGERS_TOLD_MS) this.#told = { since: now, count: 0 }
    const count = ++this.#told.count
    if (count <= STRANGERS_TOLD_MAX) return [{ kind: 'new-stranger', stranger }]
    return count === STRANGERS_TOLD_MAX + 1 ? [{ kind: 'more-strangers' }] : []
  }

  #onTick(now: number): MembershipEffect[] {
    const effects: MembershipEffect[] = []
    for (const [id, { seenAt }] of this.#strangers) {
      if (now - seenAt > STRANGER_MS) this.#strangers.delete(id)
    }
    if (now <= this.#quietUntil) return effects
    this.#quietUntil = Number.POSITIVE_INFINITY
    for (const [peer, record] of this.#members) {
      const silentMs = now - record.heardAt
      if (!record.connected && silentMs > FORGET_MS) {
        this.#members.delete(peer)
        effects.push({ kind: 'unavailable', peer, why: 'forgotten' })
      } else if (!record.suspected && silentMs > OVERDUE_FACTOR * record.load.nextMs) {
        record.suspected = true
        effects.push({ kind: 'unavailable', peer, why: 'suspected' })
      } else {
        this.#expect(record)
      }
    }
    return effects
  }

  #expect({ connected, suspected, heardAt, load }: Record): void {
    if (connected && suspected) return
    const silentMs = connected ? OVERDUE_FACTOR * load.nextMs : FORGET_MS
    this.#quietUntil = Math.min(this.#quietUntil, heardAt + silentMs)
  }
}

/** Whether it was said later, as far as the agent itself can tell. */
export function isNewer(load: LoadTime, than: LoadTime): boolean {
  if (load.incarnation !== than.incarnation) return load.incarnation > than.incarnation
  return load.sequence > than.sequence
}

/** Whether it has anything else to lend. */
function isOther(load: Load, than: Load): boolean {
  return load.freePages !== than.freePages || load.incarnation !== than.incarnation || load.name !== than.name
}

function toMember(peer: PeerId, record: Record): Member {
  return { peer, state: record.suspected ? 'suspected' : 'joined', load: record.load, host: record.host }
}
