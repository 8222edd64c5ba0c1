/**
 * The libp2p node of an agent: which modules it is made of and the limits they are given.
 *
 * TLS rather than noise (three times faster here); pnet around everything; gossipsub signed and strict.
 */

import './with-resolvers.js'
import { type GossipSub, type GossipSubComponents, gossipsub } from '@chainsafe/libp2p-gossipsub'
import { createTopicScoreParams } from '@chainsafe/libp2p-gossipsub/score'
import { identify } from '@libp2p/identify'
import type { PrivateKey } from '@libp2p/interface'
import { type Ping, ping } from '@libp2p/ping'
import { preSharedKey } from '@libp2p/pnet'
import { tcp } from '@libp2p/tcp'
import { tls } from '@libp2p/tls'
import { yamux } from '@libp2p/yamux'
import { createLibp2p, type Libp2p, type Libp2pOptions as NodeOptions } from 'libp2p'
import type { NetworkKey } from '../key.js'
import type { Load, Stranger } from '../machines/membership.js'
import type { PeerId } from '../machines/types.js'
import { AgentError, type Logger } from '../service.js'
import { toEndpoint } from './address.js'
import type { DialOutcome } from './dialer.js'
import type { DiscoveryFactory } from './discovery.js'
import { CONNECTIONS_MAX, remedyNotAllowed } from './limits.js'
import { LOAD_BYTES_MAX } from './messages.js'
import type { Twins } from './twins.js'

export const LOAD_TOPIC = 'elasticos/load/1'
export const ADDRESSES_MAX = 8
/** One address: a handshake takes 0.1 s, ten times that on a busy machine. A wrong key may only show as silence. */
export const ADDRESS_TIMEOUT_MS = 4_000
/** All addresses of a peer. */
export const DIAL_TIMEOUT_MS = 10_000

/**
 * A ping is a stream of its own, some ten packets each way, so as a rule only who has fallen silent gets one (`check` in
 * libp2p.ts). yamux would ping besides: gossip keeps a connection alive.
 */
const PING_ANYWAY_MS = 300_000

/** Of one connection; each protocol has fewer. */
const STREAMS_MAX = 32
/** Ten wrong messages in a row are -100: below the -80 from which on gossipsub takes nothing more of a peer. */
const WRONG_GOSSIP = {
  topicWeight: 1,
  invalidMessageDeliveriesWeight: -1,
  invalidMessageDeliveriesDecay: 0.6,
}
const DECAY_MS = 5_000
/**
 * Who publishes sends to everybody it is connected to, which as a rule is everybody. What is passed on is for those few
 * pairs that have no connection: three neighbours reach all, and each more is one more copy of everything. For the
 * same reason nobody is told what there is to ask for.
 */
const MESH = { D: 3, Dlo: 2, Dhi: 4, Dout: 1, Dscore: 1, Dlazy: 0, gossipFactor: 0 }
const SCORE_KEPT_MS = 5_000

/** As it is; its own type leaves the scores out. */
export type Gossip = GossipSub & { getScore(peer: string): number }
export type Node = Libp2p<{ identify: unknown; ping: Ping; pubsub: Gossip }>

export interface Libp2pOptions {
  readonly identity: PrivateKey
  readonly key: NetworkKey
  readonly listen: readonly string[]
  readonly peers: readonly string[]
  /** Empty: everybody who has the key. */
  readonly allow: readonly PeerId[]
  readonly load: Load
  readonly log: Logger
  readonly discovery?: DiscoveryFactory
  /** TCP unless others are given, as tests do that stay in their process. */
  readonly transports?: NonNullable<NodeOptions['transports']>
}

/** What a node asks and tells. */
export interface NodeSite {
  /** Hears of peers that the allow list keeps out. */
  onStranger(stranger: Stranger): void
  /** An agent was seen on the LAN. */
  onFound(peer: PeerId, addresses: readonly string[]): void
  readonly twins: Twins
  /** Whether a connection from `host` is let in, before it is known whose it is. */
  admits(host: string): boolean
  isShutOut(peer: PeerId): boolean
}

/** A node that is not started yet. */
export async function makeNode(options: Libp2pOptions, site: NodeSite): Promise<Node> {
  const { onStranger, onFound, twins } = site
  const { allow, discovery, transports = [tcp()] } = options
  const denied = (peer: { toString(): string }, address: { toString(): string }): boolean => {
    const id = peer.toString()
    if (site.isShutOut(id as PeerId)) return true
    if (allow.length === 0 || allow.some(allowed => allowed === id)) return false
    onStranger({ id, name: '', address: address.toString(), remedy: remedyNotAllowed(id) })
    return true
  }
  return createLibp2p({
    start: false,
    nodeInfo: { userAgent: 'elasticos' },
    privateKey: options.identity,
    addresses: { listen: [...options.listen] },
    transports,
    connectionProtector: preSharedKey({
      psk: new TextEncoder().encode(options.key.file),
      timeout: DIAL_TIMEOUT_MS,
    }),
    connectionEncrypters: [tls()],
    streamMuxers: [yamux({ maxInboundStreams: STREAMS_MAX, enableKeepAlive: false })],
    connectionManager: {
      maxConnections: CONNECTIONS_MAX,
      inboundConnectionThreshold: 200,
      maxIncomingPendingConnections: 128,
      maxPeerAddrsToDial: 2 * ADDRESSES_MAX,
      // As they are given: what a peer says of itself comes before what others say of it.
      addressSorter: () => 0,
      dialTimeout: DIAL_TIMEOUT_MS,
      addressDialTimeout: ADDRESS_TIMEOUT_MS,
      reconnectRetries: 0,
    },
    connectionMonitor: { pingInterval: PING_ANYWAY_MS },
    connectionGater: {
      denyInboundConnection: ({ remoteAddr }) => !site.admits(toEndpoint(remoteAddr)?.host ?? ''),
      denyInboundEncryptedConnection: (peer, connection) => denied(peer, connection.remoteAddr),
      denyOutboundEncryptedConnection: (peer, connection) => denied(peer, connection.remoteAddr),
    },
    peerDiscovery:
      discovery === undefined
        ? []
        : [
            ({ peerId, addressManager }) =>
              discovery({
                self: peerId.toString() as PeerId,
                addresses: () =>
                  addressManager.getAddresses().map(address => address.decapsulate('/p2p').toString()),
                onStranger,
                onFound,
                twins,
              }),
          ],
    services: {
      identify: identify(),
      // Two, of the monitor and of whoever asks besides: the monitor ends a connection that lets it have none.
      ping: ping({ maxInboundStreams: 4, maxOutboundStreams: 2 }),
      pubsub: gossip(),
    },
  })
}

function gossip(): (components: GossipSubComponents) => Gossip {
  const noWeight = { timeInMeshWeight: 0, firstMessageDeliveriesWeight: 0 }
  const noMeshWeight = { meshMessageDeliveriesWeight: 0, meshFailurePenaltyWeight: 0 }
  const make = gossipsub({
    ...MESH,
    globalSignaturePolicy: 'StrictSign',
    allowedTopics: [LOAD_TOPIC],
    allowPublishToZeroTopicPeers: true,
    emitSelf: false,
    doPX: false,
    maxInboundDataLength: 16 * LOAD_BYTES_MAX,
    maxInboundStreams: 2,
    maxOutboundStreams: 2,
    maxTopicBytesPerPeer: 16 * 1024,
    // One message after the other: who sends faster than they are checked waits.
    awaitRpcHandler: true,
    awaitRpcMessageHandler: true,
    // A copy of what was checked needs no second check: a signature takes most of the time of a message.
    fastMsgIdFn: ({ signature }) => Buffer.from(signature ?? []).toString('latin1'),
    scoreParams: {
      topics: { [LOAD_TOPIC]: createTopicScoreParams({ ...noWeight, ...noMeshWeight, ...WRONG_GOSSIP }) },
      // Many agents may stand behind one address.
      IPColocationFactorWeight: 0,
      decayInterval: DECAY_MS,
      retainScore: SCORE_KEPT_MS,
    },
  })
  return components => make(components) as Gossip
}

export function cannotListen(listen: readonly string[], cause: unknown): AgentError {
  const text = cause instanceof Error ? cause.message : String(cause)
  return new AgentError('cannot-listen', `cannot listen on ${listen.join(', ')}: ${listenProblem(text)}`, {
    cause,
  })
}

/** libp2p's message holds the stack of each listener's error: what matters is the errno in it. */
function listenProblem(text: string): string {
  if (/EADDRINUSE/.test(text)) return 'the port is in use; choose another, or port 0 for any'
  if (/EADDRNOTAVAIL/.test(text)) return 'this machine has no such address; choose one of its own'
  if (/EACCES/.test(text)) return 'ports below 1024 are for root; choose a higher one'
  return text
}

/** What a failed dial means. */
export function classify(error: unknown): DialOutcome {
  const errors = error instanceof AggregateError ? error.errors : [error]
  const names = errors.map(one => (one instanceof Error ? one.name : ''))
  const text = errors.map(one => (one instanceof Error ? one.message : String(one))).join('; ')
  if (/dial self/i.test(text)) return { kind: 'self' }
  // libp2p wraps UnexpectedPeerError and keeps its text alone.
  if (names.includes('EncryptionFailedError') && /unexpected peer/i.test(text))
    return { kind: 'other-identity' }
  if (names.includes('EncryptionFailedError')) return { kind: 'no-handshake' }
  return { kind: 'failed', reason: text.slice(0, 300) }
}
