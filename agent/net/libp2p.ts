/**
 * The network port over libp2p: TCP, the network key (pnet) around everything, TLS 1.3 for the peers' identities,
 * yamux, gossipsub for load, one stream per pair of agents for the rest.
 *
 * Of two agents the one with the smaller peer id opens the stream, and opens it again while the connection lasts. If it
 * does not within a second, because it still has a stream to who was there before or to a twin, the other one does.
 * pnet makes a wrong key look like noise: the handshake just fails, which is told as what it nearly always is.
 *
 * Limits: 512 connections; 200 new ones a second from one address (many agents may stand behind one); see the files
 * beside this one for messages, streams and dialling.
 */

import './with-resolvers.js'
import { isIP } from 'node:net'
import type { Connection, Stream } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import type { Load, Stranger } from '../machines/membership.js'
import { type PeerId, toPeerId } from '../machines/types.js'
import { systemClock } from '../ports/clock.js'
import { isLoopback, toEndpoint } from './address.js'
import { Conduct, type Offence } from './conduct.js'
import { Dialer, type DialOutcome, type Source } from './dialer.js'
import { CONNECTIONS_MAX, CONNECTIONS_PER_PEER_MAX } from './limits.js'
import { LoadCheck } from './load-check.js'
import { encodeLoad, type PeerMessage } from './messages.js'
import {
  ADDRESS_TIMEOUT_MS,
  ADDRESSES_MAX,
  cannotListen,
  classify,
  DIAL_TIMEOUT_MS,
  type Gossip,
  type Libp2pOptions,
  LOAD_TOPIC,
  makeNode,
  type Node,
} from './node.js'
import type { NetworkEvent, PeerNetwork } from './port.js'
import { Sessions } from './sessions.js'
import { Twins } from './twins.js'
import { Whereabouts } from './whereabouts.js'

const PROTOCOL = '/elasticos/agreements/1'
const ADDRESSES_MS = 5_000
const REOPEN_MS = 250
const OPEN_INSTEAD_MS = 1_000
/** From there on gossipsub takes nothing more of a peer. */
const SCORE_MIN = -80
/** Who is only busy answers within that. */
const SILENT_MS = 5_000
const CLOSE_TIMEOUT_MS = 1_000

/** Only where the address names one: without it whoever answers is welcome. */
export const REMEDY_IDENTITY =
  'it has the network key and another identity than --peer names: leave /p2p/... out, or take it from `elasticos nodes` there'

/** What a handshake that fails nearly always means; the other way round works as well. */
export const REMEDY_KEY =
  'it answers, but with another network key (or is no elasticos agent): `elasticos key show` there, `elasticos key set` here'

const IT_IS_SELF =
  'has the identity of this agent: it is this agent itself, or that machine has a copy of its data directory (remove identity.key there)'

export class Libp2pNetwork implements PeerNetwork {
  readonly self: PeerId
  readonly #node: Node
  readonly #options: Libp2pOptions
  readonly #dialer: Dialer
  readonly #conduct: Conduct
  readonly #sessions: Sessions
  readonly #whereabouts: Whereabouts
  readonly #opening = new Set<PeerId>()
  readonly #openSoonTimers = new Map<PeerId, NodeJS.Timeout>()
  readonly #connected = new Set<PeerId>()
  readonly #loadCheck: LoadCheck
  readonly #early: NetworkEvent[] = []
  #listener: ((event: NetworkEvent) => void) | undefined
  #load: Load
  /** Working them out is costly and they change rarely. */
  #addresses: { list: string[]; until: number } = { list: [], until: 0 }
  #stopped = false

  /** Listens and starts dialling. Throws `cannot-listen`. */
  static async start(options: Libp2pOptions): Promise<Libp2pNetwork> {
    const hears = { emit: (_: NetworkEvent) => {}, found: (_peer: PeerId, _at: readonly string[]) => {} }
    const twins = new Twins(options.identity, options.load.incarnation, addresses =>
      hears.emit({ kind: 'twin', addresses }),
    )
    const onStranger = (stranger: Stranger) => hears.emit({ kind: 'stranger', stranger })
    const conduct = new Conduct()
    const admits = (host: string) => conduct.admits(host, performance.now())
    const isShutOut = (peer: PeerId) => conduct.isShutOut(peer, performance.now())
    const onFound = (peer: PeerId, addresses: readonly string[]) => hears.found(peer, addresses)
    const node = await makeNode(options, { onStranger, onFound, twins, admits, isShutOut })
    const network = new Libp2pNetwork(node, options, twins, conduct)
    hears.emit = event => network.#emit(event)
    hears.found = (peer, addresses) => network.discovered(peer, addresses, 'lan')
    await network.#start()
    return network
  }

  private constructor(node: Node, options: Libp2pOptions, twins: Twins, conduct: Conduct) {
    this.#node = node
    this.#conduct = conduct
    this.#options = options
    this.#load = options.load
    this.self = node.peerId.toString() as PeerId
    this.#sessions = new Sessions({
      self: this.self,
      twins,
      log: options.log,
      load: () => this.#load,
      emit: event => {
        if (event.kind === 'joined') this.#dialer.joined(event.peer)
        this.#emit(event)
      },
      onKnown: (peer, addresses) => this.#heardOf(peer, addresses, 'another'),
      takes: (what, peer) => conduct.takes(what, peer, performance.now()),
      onOffence: (peer, host, offence) => this.#onOffence(peer, host, offence),
      reset: (peer, reason) => this.#reset(peer, reason),
      onEnded: peer => this.#openSoon(peer),
    })
    this.#dialer = new Dialer({
      self: this.self,
      clock: systemClock,
      isConnected: peer => this.#connected.has(peer),
      dial: (addresses, peer) => this.#dial(addresses, peer),
      onOutcome: (target, outcome) => this.#onOutcome(target, outcome),
      onMoved: peer => this.#whereabouts.doubt(peer),
    })
    this.#loadCheck = new LoadCheck({
      self: this.self,
      conduct,
      isAllowed: peer => this.#allowed(peer),
      saidBy: peer => this.#sessions.loadOf(peer),
      onOffence: (source, offence) => this.#onOffence(source, this.#hostOf(source), offence),
    })
    this.#whereabouts = new Whereabouts({
      clock: systemClock,
      isSilent: peer => this.#isSilent(peer),
      onSilent: peer => this.#reset(peer, 'its address is no more'),
    })
  }

  /** What was refused of others since the start. */
  get refused(): { readonly offences: Conduct['counts']; readonly shutOuts: number } {
    return { offences: this.#conduct.counts, shutOuts: this.#conduct.shutOuts }
  }

  addresses(): string[] {
    const now = performance.now()
    if (this.#addresses.list.length > 0 && now < this.#addresses.until) return this.#addresses.list
    const all = this.#node.getMultiaddrs().map(address => address.decapsulate('/p2p').toString())
    const far = all.filter(address => !isLoopback(toEndpoint(address)?.host ?? ''))
    const list = (far.length > 0 ? far : all).slice(0, ADDRESSES_MAX)
    this.#addresses = { list, until: now + ADDRESSES_MS }
    return list
  }

  send(peer: PeerId, message: PeerMessage): boolean {
    return this.#sessions.send(peer, message)
  }

  publish(load: Load): void {
    this.#load = load
    if (this.#stopped || this.#sessions.size === 0) return
    this.#node.services.pubsub.publish(LOAD_TOPIC, encodeLoad(load)).catch((error: unknown) => {
      this.#options.log.debug(`gossip: ${String(error)}`)
    })
  }

  listen(listener: (event: NetworkEvent) => void): void {
    this.#listener = listener
    for (const event of this.#early.splice(0)) listener(event)
  }

  /** Dials `peer` until it answers or is no longer heard of. */
  discovered(peer: PeerId, addresses: readonly string[], source: Source): void {
    if (this.#allowed(peer) && !this.#conduct.isShutOut(peer, performance.now()))
      this.#dialer.addDiscovered(peer, addresses, source)
  }

  /** A peer from which nothing is heard: its connection is given up unless a ping comes back over it. */
  check(peer: PeerId): void {
    if (!this.#stopped) this.#whereabouts.doubt(peer)
  }

  async stop(): Promise<void> {
    if (this.#stopped) return
    this.#stopped = true
    this.#dialer.stop()
    this.#whereabouts.stop()
    await this.#sessions.close(CLOSE_TIMEOUT_MS)
    await this.#node.stop()
  }

  async #start(): Promise<void> {
    const node = this.#node
    await node.handle(PROTOCOL, (stream, connection) => this.#onInbound(stream, connection), {
      maxInboundStreams: 2,
      maxOutboundStreams: 2,
    })
    node.addEventListener('peer:connect', ({ detail }) => this.#onConnected(detail.toString() as PeerId))
    node.addEventListener('peer:disconnect', ({ detail }) => {
      const peer = detail.toString() as PeerId
      this.#connected.delete(peer)
      this.#sessions.abort(peer, 'the connection ended')
      if (!this.#stopped) this.#dialer.lost(peer)
    })
    node.addEventListener('connection:open', ({ detail }) => this.#onConnection(detail))
    this.#startGossip(node.services.pubsub)
    try {
      await node.start()
    } catch (error) {
      await Promise.resolve(node.stop()).catch(() => {})
      this.#dialer.stop()
      throw cannotListen(this.#options.listen, error)
    }
    node.services.pubsub.subscribe(LOAD_TOPIC)
    for (const address of this.#options.peers) this.#dialer.addStatic(address, toEndpoint(address)?.peer)
  }

  #startGossip(pubsub: Gossip): void {
    pubsub.addEventListener('gossipsub:heartbeat', () => this.#watchScores(pubsub))
    pubsub.topicValidators.set(LOAD_TOPIC, (source, message) =>
      this.#loadCheck.check(source, message, performance.now()),
    )
    pubsub.addEventListener('message', ({ detail }) => {
      const load = this.#loadCheck.loadIn(detail.data)
      if (detail.type !== 'signed' || load === undefined) return
      const peer = detail.from.toString() as PeerId
      if (this.#sessions.has(peer)) this.#sessions.heard(peer, load)
      else this.#heardOf(peer, load.addresses, 'gossip')
      this.#emit({ kind: 'load', peer, load })
    })
  }

  /** Gossip that is not even a message, as with a wrong signature, shows in gossipsub's scores alone. */
  #watchScores(pubsub: Gossip): void {
    for (const peer of this.#connected)
      if (pubsub.getScore(peer) < SCORE_MIN) this.#onOffence(peer, this.#hostOf(peer), 'gossip')
  }

  /** How many there are beside `but`. */
  #peersAt(host: string, but: PeerId): number {
    const there = this.#node.getConnections().filter(one => hostOf(one) === host)
    const peers = new Set(there.map(one => one.remotePeer.toString()))
    peers.delete(but)
    return peers.size
  }

  #hostOf(peer: PeerId): string {
    const [connection] = this.#node.getConnections(peerIdFromString(peer))
    return connection === undefined ? '' : hostOf(connection)
  }

  #onConnection(connection: Connection): void {
    if (this.#node.getConnections(connection.remotePeer).length <= CONNECTIONS_PER_PEER_MAX) return
    connection.abort(new Error('too many connections'))
    const peer = connection.remotePeer.toString() as PeerId
    this.#onOffence(peer, this.#hostOf(peer), 'connections')
  }

  /** Shuts a peer out when it was one offence too many. */
  #onOffence(peer: PeerId, host: string, offence: Offence): void {
    const ms = this.#conduct.note(peer, host, offence, performance.now(), () => this.#peersAt(host, peer))
    if (ms === 0) return
    this.#options.log.warn(
      `${peer} at ${host} is shut out for ${ms / 1000} s for what it sends (${offence}): update or stop the agent there`,
    )
    // Not from within: its stream is just being closed.
    queueMicrotask(() => this.#reset(peer, 'shut out'))
  }

  #reset(peer: PeerId, reason: string): void {
    this.#sessions.abort(peer, reason)
    for (const connection of this.#node.getConnections(peerIdFromString(peer)))
      connection.abort(new Error(reason))
  }

  /**
   * An agent known only by what others pass on. Its loopback addresses mean another machine's loopback unless we are
   * all on one, and an agent that listens on loopback alone keeps to its machine.
   */
  #heardOf(peer: PeerId, addresses: readonly string[], source: Source): void {
    // Who is there says itself where it is.
    if (this.#sessions.has(peer)) return
    const hostIn = (address: string) => toEndpoint(address)?.host ?? ''
    const loopbackOnly = this.addresses().every(own => isLoopback(hostIn(own)))
    // Names are for people: whoever is heard could have them looked up.
    const near = addresses.filter(
      address => isIP(hostIn(address)) !== 0 && isLoopback(hostIn(address)) === loopbackOnly,
    )
    this.discovered(peer, near, source)
  }

  #allowed(peer: PeerId): boolean {
    return this.#options.allow.length === 0 || this.#options.allow.includes(peer)
  }

  async #dial(addresses: readonly string[], peer: PeerId | undefined): Promise<DialOutcome> {
    try {
      const suffix = peer === undefined ? '' : `/p2p/${peer}`
      const targets = addresses.map(address =>
        multiaddr(address.includes('/p2p/') ? address : address + suffix),
      )
      const connection = await this.#node.dial(targets, { signal: AbortSignal.timeout(2 * DIAL_TIMEOUT_MS) })
      const address = connection.remoteAddr.decapsulate('/p2p').toString()
      return { kind: 'connected', peer: connection.remotePeer.toString() as PeerId, address }
    } catch (error) {
      return classify(error)
    }
  }

  #onOutcome(target: string, outcome: DialOutcome): void {
    const isStranger = outcome.kind === 'no-handshake' || outcome.kind === 'other-identity'
    if (isStranger && target.startsWith('/')) {
      const remedy = outcome.kind === 'no-handshake' ? REMEDY_KEY : REMEDY_IDENTITY
      this.#emit({ kind: 'stranger', stranger: { id: target, name: '', address: target, remedy } })
    }
    if (outcome.kind === 'failed') this.#options.log.debug(`cannot reach ${target}: ${outcome.reason}`)
    if (outcome.kind === 'self') this.#options.log.warn(`--peer ${target} ${IT_IS_SELF}`)
  }

  /** Its connection may be to an address that is no more: then nothing comes back, for a quarter of an hour. */
  async #isSilent(peer: PeerId): Promise<boolean> {
    const signal = AbortSignal.timeout(SILENT_MS)
    try {
      if (this.#connected.has(peer)) await this.#node.services.ping.ping(peerIdFromString(peer), { signal })
      return false
    } catch {
      return signal.aborted
    }
  }

  #onConnected(peer: PeerId): void {
    this.#connected.add(peer)
    if (this.self < peer) void this.#open(peer)
    else this.#openSoon(peer)
  }

  async #open(peer: PeerId): Promise<void> {
    if (this.#opening.has(peer) || this.#sessions.has(peer) || this.#stopped) return
    this.#opening.add(peer)
    try {
      const connection = this.#node.getConnections(peerIdFromString(peer)).find(one => one.status === 'open')
      if (connection === undefined) return
      const stream = await connection.newStream(PROTOCOL, { signal: AbortSignal.timeout(ADDRESS_TIMEOUT_MS) })
      this.#sessions.adopt(peer, stream, connection)
    } catch (error) {
      this.#options.log.debug(`no stream to ${peer}: ${String(error)}`)
      this.#openSoon(peer)
    } finally {
      this.#opening.delete(peer)
    }
  }

  #openSoon(peer: PeerId): void {
    if (this.#stopped || this.#openSoonTimers.has(peer)) return
    const open = () => {
      this.#openSoonTimers.delete(peer)
      void this.#open(peer)
    }
    const delayMs = this.self < peer ? REOPEN_MS : OPEN_INSTEAD_MS
    this.#openSoonTimers.set(peer, setTimeout(open, delayMs).unref())
  }

  #onInbound(stream: Stream, connection: Connection): void {
    const peer = toPeerId(connection.remotePeer.toString())
    if (peer === undefined || this.#stopped) {
      stream.abort(new Error('nobody to talk to'))
    } else if (!this.#conduct.takes('streams', peer, performance.now())) {
      stream.abort(new Error('too many streams'))
      this.#onOffence(peer, hostOf(connection), 'flood')
    } else {
      this.#sessions.adopt(peer, stream, connection)
    }
  }

  #emit(event: NetworkEvent): void {
    if (this.#listener === undefined) {
      const isPing =
        event.kind === 'message' && (event.message.kind === 'ping' || event.message.kind === 'pong')
      if (!isPing && this.#early.length < CONNECTIONS_MAX) this.#early.push(event)
    } else {
      this.#listener(event)
    }
  }
}

function hostOf(connection: Connection): string {
  return toEndpoint(connection.remoteAddr)?.host ?? ''
}
