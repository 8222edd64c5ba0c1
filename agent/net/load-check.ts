/**
 * What is believed of gossip, before it is passed on. Each load is signed by the agent it is of, its origin; it comes from
 * there or from whoever passes it on, its source.
 *
 * Bytes that are no load count against the source, which has checked them as well, if it is an agent. Too many count
 * only against an agent that sends its own: others pass on what they are made to. What is not news counts against nobody.
 */

import { type Message as GossipMessage, TopicValidatorResult as Verdict } from '@chainsafe/libp2p-gossipsub'
import type { Load } from '../machines/membership.js'
import type { PeerId } from '../machines/types.js'
import type { Conduct } from './conduct.js'
import { decodeLoad } from './messages.js'

export interface LoadCheckPort {
  readonly self: PeerId
  readonly conduct: Conduct
  isAllowed(peer: PeerId): boolean
  /** What an agent that has joined has said of itself last. */
  saidBy(peer: PeerId): Load | undefined
  onOffence(source: PeerId, offence: 'gossip' | 'flood'): void
}

export class LoadCheck {
  readonly #port: LoadCheckPort
  /** For the delivery that follows. */
  readonly #accepted = new WeakMap<Uint8Array, Load>()

  constructor(port: LoadCheckPort) {
    this.#port = port
  }

  /** What is rejected or ignored goes no further. */
  check(from: { toString(): string }, message: GossipMessage, now: number): Verdict {
    const { self, conduct } = this.#port
    const source = from.toString() as PeerId
    if (message.type !== 'signed') return this.#reject(source)
    const origin = message.from.toString() as PeerId
    const isOwn = source === origin
    if (!conduct.takes(isOwn ? 'loads' : 'passedOn', source, now)) {
      if (isOwn) this.#port.onOffence(source, 'flood')
      return Verdict.Ignore
    }
    const load = decodeLoad(message.data)
    if (load.kind === 'malformed') return this.#reject(source)
    if (origin === self || !this.#port.isAllowed(origin) || conduct.isShutOut(origin, now))
      return Verdict.Ignore
    if (!conduct.isNews(origin, load.message, this.#port.saidBy(origin))) return Verdict.Ignore
    if (!isOwn && !conduct.takes('loadsByOthers', origin, now)) return Verdict.Ignore
    this.#accepted.set(message.data, load.message)
    return Verdict.Accept
  }

  /** What was accepted in these very bytes. */
  loadIn(data: Uint8Array): Load | undefined {
    return this.#accepted.get(data)
  }

  #reject(source: PeerId): Verdict {
    this.#port.onOffence(source, 'gossip')
    return Verdict.Reject
  }
}
