/**
 * One end of the simulated stream between two agents, and what TCP makes of a bad link: messages arrive in order and
 * once, perhaps late, or the stream ends; a lost packet holds up all that were sent after it.
 *
 * An end knows that the other is gone when it is told (a reset, which a cut swallows like all else), or when its
 * pings have not been answered for `PING_MS` and `PING_TIMEOUT_MS`. Messages are bytes on the way: both codecs run.
 *
 * Limits: 256 KiB under way, as yamux has it; then UNSENT_MAX messages wait, and one more ends the stream.
 */

import { PING_MS, UNSENT_MAX } from '../agent/net/limits.js'
import type { SimAgent } from './agent.js'
import type { Parcel } from './parcel.js'
import type { World } from './world.js'

const WINDOW_BYTES = 256 * 1024
/** Linux: the least pause before a retransmission, and the most. */
const RETRANSMIT_MS = 200
const RETRANSMIT_MS_MAX = 120_000
const LOSSES_MAX = 8
const PING_TIMEOUT_MS = 10_000
/** Agents gossip once a second: until then a stream that the other host does not know is noticed. */
const RESET_MS = 1_000

/** `reason` is for the trace. */
export type OnClosed = (end: StreamEnd, reason: string) => void

export class StreamEnd {
  /** The other end has introduced itself. */
  joined = false
  readonly #world: World
  readonly #agent: SimAgent
  readonly #peer: SimAgent
  readonly #onClosed: OnClosed
  #other: StreamEnd | undefined
  #closed = false
  /** When the last byte that was sent leaves, and when it arrives. */
  #leavesAt = 0
  #arrivesAt = 0
  #underWayBytes = 0
  #unsent: Parcel[] | undefined
  /** Since when nothing passes in one direction at least. */
  #brokenAt: number | undefined

  private constructor(world: World, agent: SimAgent, peer: SimAgent, onClosed: OnClosed) {
    this.#world = world
    this.#agent = agent
    this.#peer = peer
    this.#onClosed = onClosed
  }

  /** Both ends of a new stream. `onClosed` hears once of each. */
  static pair(world: World, one: SimAgent, other: SimAgent, onClosed: OnClosed) {
    const ends = [
      new StreamEnd(world, one, other, onClosed),
      new StreamEnd(world, other, one, onClosed),
    ] as const
    ends[0].#other = ends[1]
    ends[1].#other = ends[0]
    return ends
  }

  get agent(): SimAgent {
    return this.#agent
  }

  get peer(): SimAgent {
    return this.#peer
  }

  get closed(): boolean {
    return this.#closed
  }

  /** Queues a message; false when the stream has ended, or ends because the other side does not read. */
  send(parcel: Parcel): boolean {
    if (this.#closed) return false
    if (this.#unsent !== undefined && this.#unsent.length >= UNSENT_MAX) {
      this.abort('the peer does not read')
      return false
    }
    if (this.#unsent === undefined && this.#canSend()) this.#transmit(parcel)
    else this.#wait(parcel)
    return true
  }

  /** Ends it here, and there as soon as what was sent has arrived. */
  abort(reason: string): void {
    if (this.#closed) return
    this.#close(reason)
    this.#tell()
  }

  /** Ends it without a word to the other end, which will miss it in time. */
  vanish(): void {
    this.#closed = true
    this.#other?.noteBreak()
  }

  /** To be called when something may have come between the ends. */
  noteBreak(): void {
    if (this.#closed || this.#brokenAt !== undefined || !this.#isBroken()) return
    const { clock } = this.#world
    const since = clock.now()
    this.#brokenAt = since
    const ms = this.#agent.host.wire.between(0, PING_MS) + PING_TIMEOUT_MS
    clock.at(since + ms, () => {
      if (this.#brokenAt === since) this.#agent.host.run(() => this.abort('no answer'))
    })
  }

  /**
   * To be called when what was between them may be gone: what was held up is sent again, sooner or later, and a host
   * that knows nothing of the stream says so.
   */
  noteHeal(): void {
    if (this.#closed || this.#brokenAt === undefined || !this.#isLinkOpen()) return
    const { clock } = this.#world
    const { host } = this.#agent
    if (this.#other?.closed === true) {
      if (!this.#peer.host.isUp) return
      clock.at(clock.now() + host.wire.between(0, RESET_MS), () => {
        if (this.#isLinkOpen()) host.run(() => this.#close('reset'))
      })
      return
    }
    const brokenMs = clock.now() - this.#brokenAt
    this.#brokenAt = undefined
    const most = Math.min(Math.max(brokenMs, RETRANSMIT_MS), RETRANSMIT_MS_MAX)
    clock.at(clock.now() + host.wire.between(0, most), () => this.#pump())
  }

  #isBroken(): boolean {
    return this.#other?.closed === true || !this.#isLinkOpen()
  }

  #isLinkOpen(): boolean {
    const [here, there] = [this.#agent.host.number, this.#peer.host.number]
    const { topology } = this.#world
    return topology.isOpen(here, there) && topology.isOpen(there, here)
  }

  #canSend(): boolean {
    const open = this.#world.topology.isOpen(this.#agent.host.number, this.#peer.host.number)
    return open && this.#underWayBytes < WINDOW_BYTES
  }

  #wait(parcel: Parcel): void {
    this.#unsent ??= []
    this.#unsent.push(parcel)
  }

  #pump(): void {
    const unsent = this.#unsent
    if (unsent === undefined || this.#closed) return
    let sent = 0
    while (sent < unsent.length && this.#canSend()) this.#transmit(unsent[sent++] as Parcel)
    unsent.splice(0, sent)
    if (unsent.length === 0) this.#unsent = undefined
  }

  #transmit(parcel: Parcel): void {
    const { length } = parcel.bytes
    const { clock } = this.#world
    this.#underWayBytes += length
    clock.soon(this.#arrival(length), () => {
      const host = this.#other?.agent.host
      if (host?.stalled === true) host.run(() => this.#arrive(parcel))
      else this.#arrive(parcel)
    })
  }

  /** When what is sent now is there: never before what was sent earlier. */
  #arrival(bytes: number): number {
    const { clock, topology } = this.#world
    const { host } = this.#agent
    const link = topology.link(host.number, this.#peer.host.number)
    this.#leavesAt = Math.max(clock.now(), this.#leavesAt) + bytes / link.bytesPerMs
    let ms = link.latencyMs + link.jitterMs * host.wire.next()
    for (let pauseMs = RETRANSMIT_MS, losses = 0; host.wire.chance(link.loss); pauseMs *= 2) {
      if (++losses > LOSSES_MAX) break
      ms += pauseMs
    }
    this.#arrivesAt = Math.max(this.#arrivesAt, this.#leavesAt + ms)
    return this.#arrivesAt
  }

  /** At the other end, on its host. */
  #arrive(parcel: Parcel): void {
    this.#underWayBytes -= parcel.bytes.length
    const other = this.#other
    if (other !== undefined && !other.#closed) other.#receive(parcel)
    this.#pump()
  }

  #receive(parcel: Parcel): void {
    const { clock, trace } = this.#world
    const { bytes } = parcel
    const decoded = parcel.open()
    const what = decoded.kind === 'ok' ? decoded.message.kind : 'malformed'
    trace.count(clock.now(), what, this.#peer.host.number, this.#agent.host.number, bytes.length)
    if (what !== 'hello') trace.bytes(bytes)
    if (decoded.kind === 'malformed') this.abort(`malformed message: ${decoded.reason}`)
    else if (!this.joined && decoded.message.kind !== 'hello') this.abort('no hello')
    else this.#agent.onMessage(this, decoded.message)
  }

  #close(reason: string): void {
    if (this.#closed) return
    this.#closed = true
    this.#unsent = undefined
    this.#onClosed(this, reason)
  }

  /** The end of the stream travels like a message, behind all others. */
  #tell(): void {
    const { clock, topology } = this.#world
    const other = this.#other
    if (other === undefined) return
    if (!topology.isOpen(this.#agent.host.number, this.#peer.host.number)) {
      other.noteBreak()
      return
    }
    clock.at(this.#arrival(0), () => other.agent.host.run(() => other.#close('closed there')))
  }
}
