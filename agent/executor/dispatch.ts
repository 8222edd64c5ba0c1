/** Which part of an agent hears of which message of another agent. */

import type { OwnedSummary } from '../machines/ownership-gossip.js'
import type { PeerId, ProcessId } from '../machines/types.js'
import type { PeerMessage } from '../net/messages.js'
import type { DistanceMessage } from './distances.js'
import type { HomeMessage } from './home.js'
import type { LendingMessage } from './lending.js'
import type { ProbeMessage } from './probes.js'

export interface Hearers {
  onLeaving(peer: PeerId): void
  readonly homes: { onMessage(peer: PeerId, processId: ProcessId, message: HomeMessage): void } | undefined
  readonly lending: { onMessage(peer: PeerId, message: LendingMessage): void } | undefined
  readonly probes: { onMessage(peer: PeerId, message: ProbeMessage): void } | undefined
  readonly distances: { onMessage(peer: PeerId, message: DistanceMessage): void } | undefined
  readonly ownership: { onHeard(peer: PeerId, summaries: readonly OwnedSummary[]): void } | undefined
}

export function dispatch(to: Hearers, peer: PeerId, message: PeerMessage): void {
  switch (message.kind) {
    case 'hello':
    case 'known':
    case 'twin-seen':
    case 'twin-claim':
    case 'twin-told':
      return // the network's own
    case 'leaving':
      to.onLeaving(peer)
      return
    case 'grant':
    case 'refuse':
    case 'lease-update':
      to.homes?.onMessage(peer, message.processId, message)
      return
    case 'pager-ended':
      to.homes?.onMessage(peer, message.processId, message)
      to.lending?.onMessage(peer, message)
      return
    case 'probe':
    case 'probe-for':
    case 'probe-answer':
      to.probes?.onMessage(peer, message)
      return
    case 'ping':
    case 'pong':
      to.distances?.onMessage(peer, message)
      return
    case 'owned':
      to.ownership?.onHeard(peer, message.summaries)
      return
    default:
      to.lending?.onMessage(peer, message)
  }
}
