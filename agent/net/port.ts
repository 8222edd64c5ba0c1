/**
 * The port to other agents: what the executor needs of a network, and all it may use of one. The libp2p adapter is
 * net/libp2p.ts; the simulated network implements the same interface.
 *
 * Contract: events come one at a time and never while a method of the port runs. Between `joined` and `lost` of a
 * peer its messages arrive in order and at most once; `send` may silently lose what was not delivered when the
 * stream ends. Peers are authenticated: a message comes from whom it says it comes from.
 */

import type { Load, Stranger } from '../machines/membership.js'
import type { PeerId } from '../machines/types.js'
import type { PeerMessage } from './messages.js'

export type NetworkEvent =
  /** The stream to a peer is open and it has introduced itself. `host`: its address as seen from here. */
  | { readonly kind: 'joined'; readonly peer: PeerId; readonly load: Load; readonly host: string }
  | { readonly kind: 'message'; readonly peer: PeerId; readonly message: PeerMessage }
  | { readonly kind: 'lost'; readonly peer: PeerId }
  /** Gossip; may also come from agents without a stream to this one. */
  | { readonly kind: 'load'; readonly peer: PeerId; readonly load: Load }
  /** An agent that cannot join: another network key, or not on the allow list. */
  | { readonly kind: 'stranger'; readonly stranger: Stranger }
  /** Another agent has this one's identity and was there first: this one has to end. `addresses`: the other's. */
  | { readonly kind: 'twin'; readonly addresses: readonly string[] }

export interface PeerNetwork {
  readonly self: PeerId
  /** Where this agent can be dialled, as multiaddrs without peer id. */
  addresses(): string[]
  /** Queues a message; false when there is no stream to that peer or its queue is full. */
  send(peer: PeerId, message: PeerMessage): boolean
  /** What to say in hellos from now on, and gossips it. */
  publish(load: Load): void
  /** The only listener. */
  listen(listener: (event: NetworkEvent) => void): void
  stop(): Promise<void>
}
