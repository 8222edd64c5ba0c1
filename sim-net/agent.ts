/**
 * The network as one agent has it: the port's other implementation. It lives until it is stopped or its host crashes;
 * the host then starts another.
 */

import type { Load, Stranger } from '../agent/machines/membership.js'
import type { PeerId } from '../agent/machines/types.js'
import { decodeLoad, encodeLoad, type PeerMessage } from '../agent/net/messages.js'
import type { NetworkEvent, PeerNetwork } from '../agent/net/port.js'
import type { SimHost } from './host.js'
import { Parcel } from './parcel.js'
import type { StreamEnd } from './stream.js'

/** Until somebody listens. */
const EARLY_MAX = 512
const PORT = 4001

/** What an agent needs of the network it is on. */
export interface AgentSite {
  /** Lets `act` happen on its host after all that has happened so far. */
  soon(act: () => void): void
  gossip(agent: SimAgent, load: Load, bytes: number): void
  /** The agent of that host has introduced itself to `agent`. */
  met(agent: SimAgent, host: SimHost): void
  left(agent: SimAgent): void
}

export class SimAgent implements PeerNetwork {
  readonly self: PeerId
  readonly ends = new Map<PeerId, StreamEnd>()
  readonly #site: AgentSite
  readonly #early: NetworkEvent[] = []
  #listener: ((event: NetworkEvent) => void) | undefined
  readonly #instance: string
  #hello: Parcel
  #gone = false

  /** Throws RangeError on a load that no peer would accept. */
  constructor(
    readonly host: SimHost,
    site: AgentSite,
    load: Load,
  ) {
    this.self = host.self
    this.#site = site
    this.#checked(load)
    this.#instance = hex(host.number) + hex(load.incarnation)
    this.#hello = Parcel.of({ kind: 'hello', instance: this.#instance, load })
  }

  /** How it introduces itself. */
  get hello(): Parcel {
    return this.#hello
  }

  get gone(): boolean {
    return this.#gone
  }

  addresses(): string[] {
    return [`/ip4/${this.host.address}/tcp/${PORT}`]
  }

  send(peer: PeerId, message: PeerMessage): boolean {
    const end = this.ends.get(peer)
    return end?.joined === true && end.send(Parcel.of(message))
  }

  /** Any bytes as a message, for hostile agents; also before `joined`. */
  sendBytes(peer: PeerId, bytes: Uint8Array): boolean {
    return this.ends.get(peer)?.send(new Parcel(bytes)) === true
  }

  publish(load: Load): void {
    if (this.#gone) return
    const checked = this.#checked(load)
    this.#hello = Parcel.of({ kind: 'hello', instance: this.#instance, load })
    if (this.ends.size > 0) this.#site.gossip(this, checked.load, checked.bytes)
  }

  listen(listener: (event: NetworkEvent) => void): void {
    this.#listener = listener
    const early = this.#early.splice(0)
    if (early.length > 0)
      this.#site.soon(() => {
        for (const event of early) this.emit(event)
      })
  }

  stop(): Promise<void> {
    if (!this.#gone) {
      const ends = [...this.ends.values()]
      this.end()
      for (const end of ends) end.abort('closed here')
      this.#site.left(this)
    }
    return Promise.resolve()
  }

  /** Nothing reaches it any more. */
  end(): void {
    this.#gone = true
    this.#listener = undefined
    this.ends.clear()
  }

  onMessage(end: StreamEnd, message: PeerMessage): void {
    const peer = end.peer.self
    if (message.kind !== 'hello') {
      this.emit({ kind: 'message', peer, message })
    } else if (end.joined) {
      this.emit({ kind: 'load', peer, load: message.load })
    } else {
      end.joined = true
      this.#site.met(this, end.peer.host)
      this.emit({ kind: 'joined', peer, load: message.load, host: end.peer.host.address })
    }
  }

  onStranger(stranger: Stranger): void {
    this.emit({ kind: 'stranger', stranger })
  }

  /** Gossip. */
  hear(event: NetworkEvent): void {
    if (this.host.stalled) this.host.run(() => this.emit(event))
    else this.emit(event)
  }

  /** On its host only. */
  emit(event: NetworkEvent): void {
    if (this.#gone) return
    if (this.#listener !== undefined) this.#listener(event)
    else if (this.#early.length < EARLY_MAX) this.#early.push(event)
  }

  /** As every receiver would see it: only what passes the codec is passed on. */
  #checked(load: Load): { load: Load; bytes: number } {
    const bytes = encodeLoad(load)
    const decoded = decodeLoad(bytes)
    if (decoded.kind === 'malformed') throw new RangeError(`a load that nobody accepts: ${decoded.reason}`)
    return { load: decoded.message, bytes: bytes.length }
  }
}

function hex(number: number): string {
  return number.toString(16).padStart(16, '0')
}
