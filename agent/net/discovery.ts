/**
 * LAN discovery as a libp2p PeerDiscovery: every agent says now and then by multicast where it can be dialled.
 *
 * One socket per interface and address, and only for addresses that the agent listens on: an agent on 127.0.0.1
 * announces itself on the loopback interface and nowhere else. The stock mDNS module sends on whatever interface the
 * routing table likes and finds nothing, silently, where there is no multicast route; naming the
 * interface on the socket needs no route. Several agents on one host share the port.
 * At start, and when somebody new is heard, packets follow quickly, so that two agents find each other within
 * half a second even when one packet is lost. For ten seconds one comes each second, and then each two seconds or, where
 * many agents are heard, so that about ten come a second in all: a packet wakes everybody up, and who is new says so.
 *
 * Limits: on the loopback interface IPv4 alone; packets are checked before anything is believed (announcement.ts); 800
 * packets in two seconds and socket, the rest is dropped unread.
 */

import './with-resolvers.js'
import { createSocket, type Socket } from 'node:dgram'
import { isIPv4 } from 'node:net'
import { type NetworkInterfaceInfo, networkInterfaces } from 'node:os'
import {
  type PeerDiscovery,
  type PeerDiscoveryEvents,
  peerDiscoverySymbol,
  serviceCapabilities,
} from '@libp2p/interface'
import { TypedEventEmitter } from 'main-event'
import type { NetworkKey } from '../key.js'
import type { Stranger } from '../machines/membership.js'
import type { PeerId } from '../machines/types.js'
import type { Logger } from '../service.js'
import { inNetwork, toEndpoint } from './address.js'
import { ANNOUNCEMENT_BYTES_MAX, type Announcement, AnnouncementCodec, type Heard } from './announcement.js'
import { REMEDY_OTHER_KEY } from './limits.js'
import type { Twins } from './twins.js'

/** Administratively scoped (RFC 2365, organisation-local), and a port of no registered service. */
export const DISCOVERY_GROUP = '239.255.77.19'
/** Of one link, and assigned by nobody (RFC 4291, 2.7). */
const DISCOVERY_GROUP_6 = 'ff12::454c:4153'
export const DISCOVERY_PORT = 47_719
/** Packets stay on the link. */
const TTL = 1
const BURST_MS = [0, 100, 250, 500]
/** Between two looks at the interfaces, which come and go (cables, VPNs, DHCP): at first, and later. */
const TURN_MS = { fresh: 1_000, later: 2_000 }
/** An agent, or what it says, is new for so long, and is announced each turn. */
const FRESH_MS = 10_000
/** Between two announcements later, for each agent that is heard; a turn at least. */
const INTERVAL_MS_PER_AGENT = 100
const INTERVAL_MS_MAX = 10_000
/** To begin with. */
const FIRST_SCANS_MS = 3_000
/** Until the agent listens for the first time, which it does some ms after it started. */
const FIRST_SCAN_MS = 20
/** At most one extra packet in this time answers newcomers. */
const ANSWER_MS = 150
const PACKETS_PER_TURN_MAX = 800
const KNOWN_MAX = 1024
const SEEN_MAX = 1024
/** Between two claims against others with this agent's identity, and how long one is said. */
const CLAIM_MS = 1_000
const CLAIM_SAID_MS = 10_000
/** How often an unchanged announcement is passed on; strangers and targets are forgotten later than that. */
const TELL_AGAIN_MS = 4_000

export interface DiscoveryOptions {
  readonly key: NetworkKey
  readonly name: string
  readonly log: Logger
  /** For tests. */
  readonly port?: number
}

export interface DiscoverySite {
  readonly self: PeerId
  /** Multiaddrs the agent listens on now. */
  addresses(): readonly string[]
  onStranger(stranger: Stranger): void
  /** Every few seconds for each agent. libp2p's own event comes once for each and then never again. */
  onFound(peer: PeerId, addresses: readonly string[]): void
  readonly twins: Twins
}

/** Makes the discovery of one agent, once its peer id and addresses are known. */
export type DiscoveryFactory = (site: DiscoverySite) => LanDiscovery

export function lanDiscovery(options: DiscoveryOptions): DiscoveryFactory {
  return site => new LanDiscovery(options, site)
}

interface Endpoint {
  readonly address: string
  readonly host: string
}

/** An address of an interface, and how to speak and hear there. */
interface Way {
  readonly info: NetworkInterfaceInfo
  readonly type: 'udp4' | 'udp6'
  readonly group: string
  /** The interface, as the socket wants it named. */
  readonly via: string
}

function wayOf(name: string, info: NetworkInterfaceInfo): Way {
  if (isIPv4(info.address)) return { info, type: 'udp4', group: DISCOVERY_GROUP, via: info.address }
  return { info, type: 'udp6', group: `${DISCOVERY_GROUP_6}%${name}`, via: `::%${name}` }
}

interface Channel extends Way {
  /** What is said here; made anew at each scan. */
  packet: Uint8Array
  readonly socket: Socket
  ready: boolean
  received: number
}

export class LanDiscovery extends TypedEventEmitter<PeerDiscoveryEvents> implements PeerDiscovery {
  readonly [peerDiscoverySymbol] = this
  readonly [Symbol.toStringTag] = 'elasticos-discovery'
  readonly [serviceCapabilities] = ['@libp2p/peer-discovery']
  readonly #options: DiscoveryOptions
  readonly #site: DiscoverySite
  readonly #codec: AnnouncementCodec
  readonly #channels = new Map<string, Channel>()
  readonly #known = new Set<string>()
  readonly #seen = new Map<string, { heard: Exclude<Heard, { kind: 'ignored' }>; toldAt: number }>()
  readonly #failed = new Set<string>()
  readonly #timers = new Set<NodeJS.Timeout>()
  /** Against another agent with this one's identity. */
  #claim: Uint8Array = new Uint8Array()
  #claimedAt = Number.NEGATIVE_INFINITY
  #answering = false
  #started = false
  #freshUntil = 0
  #announceAt = 0

  constructor(options: DiscoveryOptions, site: DiscoverySite) {
    super()
    this.#options = options
    this.#site = site
    this.#codec = new AnnouncementCodec(options.key)
  }

  start(): void {}

  /** libp2p calls this when everything is started; it may still be about to listen. */
  afterStart(): void {
    this.#started = true
    this.#openFirst(performance.now() + FIRST_SCANS_MS)
  }

  /** Begins as soon as there are addresses to announce. */
  #openFirst(deadline: number): void {
    this.#rescan()
    if (this.#channels.size === 0 && performance.now() < deadline) {
      this.#after(FIRST_SCAN_MS, () => this.#openFirst(deadline))
      return
    }
    for (const delayMs of BURST_MS) this.#after(delayMs, () => this.#announce())
    this.#nextTurn()
  }

  stop(): void {
    this.#started = false
    for (const timer of this.#timers) clearTimeout(timer)
    this.#timers.clear()
    for (const name of [...this.#channels.keys()]) this.#close(name)
  }

  /** Names of the interfaces it announces on. */
  interfaces(): string[] {
    return [...this.#channels.values()].map(channel => channel.info.address)
  }

  #after(delayMs: number, act: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer)
      if (this.#started) act()
    }, delayMs)
    this.#timers.add(timer)
  }

  /** One timer for all that is done again and again: each wakes up a processor that may be idle. */
  #nextTurn(): void {
    const turnMs = performance.now() < this.#freshUntil ? TURN_MS.fresh : TURN_MS.later
    this.#after(turnMs * (0.8 + 0.4 * Math.random()), () => {
      this.#rescan()
      for (const channel of this.#channels.values()) channel.received = 0
      if (performance.now() >= this.#announceAt) this.#announce()
      this.#nextTurn()
    })
  }

  /** Opens a socket on each interface with an address of ours, closes those that are no longer right. */
  #rescan(): void {
    if (performance.now() - this.#claimedAt > CLAIM_SAID_MS) this.#claim = new Uint8Array()
    const endpoints = this.#endpoints()
    const hosts = new Set(endpoints.map(({ host }) => host))
    const wanted = new Map<string, Way>()
    for (const [name, infos] of Object.entries(networkInterfaces())) {
      for (const info of infos ?? [])
        if (hosts.has(info.address) && (isIPv4(info.address) || !info.internal))
          wanted.set(info.address, wayOf(name, info))
    }
    // 127.0.0.2 and the like belong to the loopback interface without being listed.
    for (const host of hosts) {
      if (host.startsWith('127.') && !wanted.has(host))
        wanted.set(host, wayOf('', { ...LOOPBACK, address: host }))
    }
    for (const address of [...this.#channels.keys()]) if (!wanted.has(address)) this.#close(address)
    for (const [address, way] of wanted) if (!this.#channels.has(address)) this.#open(way)
    this.#prepare(endpoints)
  }

  #endpoints(): Endpoint[] {
    return this.#site.addresses().map(address => ({ address, host: toEndpoint(address)?.host ?? '' }))
  }

  #prepare(endpoints: readonly Endpoint[]): void {
    for (const channel of this.#channels.values()) {
      const packet = this.#packet(channel.info.address, endpoints)
      if (Buffer.compare(packet, channel.packet) !== 0) this.#freshUntil = performance.now() + FRESH_MS
      channel.packet = packet
    }
  }

  #open(way: Way): void {
    const { info, type, group, via } = way
    const socket = createSocket({ type, reuseAddr: true, ipv6Only: type === 'udp6' })
    const channel: Channel = { ...way, packet: new Uint8Array(), socket, ready: false, received: 0 }
    this.#channels.set(info.address, channel)
    socket.on('error', error => this.#fail(info.address, error))
    socket.on('message', (packet, sender) => {
      // A group of the link hears nobody else.
      if (type === 'udp6' || inNetwork(sender.address, info)) this.#onPacket(channel, packet)
    })
    socket.bind({ port: this.#options.port ?? DISCOVERY_PORT, address: group }, () => {
      try {
        socket.addMembership(group, via)
        socket.setMulticastInterface(via)
        socket.setMulticastTTL(TTL)
        socket.setMulticastLoopback(true)
        channel.ready = true
        this.#failed.delete(info.address)
        this.#announce()
      } catch (error) {
        this.#fail(info.address, error)
      }
    })
  }

  /** Tried again at the next scan; said once. */
  #fail(address: string, error: unknown): void {
    this.#close(address)
    if (this.#failed.has(address)) return
    this.#failed.add(address)
    const why = error instanceof Error ? error.message : String(error)
    this.#options.log.warn(`no discovery on ${address} (${why}); name peers there with --peer`)
  }

  #close(address: string): void {
    const channel = this.#channels.get(address)
    this.#channels.delete(address)
    if (channel === undefined) return
    channel.ready = false
    channel.socket.removeAllListeners('message')
    try {
      channel.socket.close()
    } catch {
      // Closed by its own error already.
    }
  }

  #announce(): void {
    const now = performance.now()
    const intervalMs = Math.min(INTERVAL_MS_MAX, INTERVAL_MS_PER_AGENT * this.#known.size)
    // Half a turn early, so that turns of uneven length do not skip every other one.
    this.#announceAt = now < this.#freshUntil ? now : now + intervalMs - TURN_MS.later / 2
    for (const { info, group, packet, socket, ready } of this.#channels.values()) {
      if (!ready || packet.length === 0) continue
      socket.send(packet, this.#options.port ?? DISCOVERY_PORT, group, error => {
        if (error !== null && this.#channels.get(info.address)?.socket === socket)
          this.#fail(info.address, error)
      })
    }
  }

  /** The announcement for one interface: only the addresses that are on it. */
  #packet(host: string, endpoints: readonly Endpoint[]): Uint8Array {
    const addresses = endpoints.filter(endpoint => endpoint.host === host).map(({ address }) => address)
    if (addresses.length === 0) return new Uint8Array()
    return this.#codec.encode({
      peer: this.#site.self,
      instance: this.#site.twins.instance,
      claim: this.#claim,
      name: this.#options.name,
      addresses: addresses.slice(0, 8),
    })
  }

  #onPacket(channel: Channel, packet: Buffer): void {
    if (++channel.received > PACKETS_PER_TURN_MAX || packet.length > ANNOUNCEMENT_BYTES_MAX) return
    // An agent says the same thing every second: the same bytes need no second look.
    const text = packet.toString('latin1')
    const seen = this.#seen.get(text)
    const heard = seen?.heard ?? this.#codec.decode(packet)
    if (heard.kind === 'ignored') return
    if (heard.announcement.peer === this.#site.self) {
      if (heard.kind === 'ours') void this.#onSelf(heard.announcement)
      return
    }
    const now = performance.now()
    if (seen !== undefined && now - seen.toldAt < TELL_AGAIN_MS) return
    if (seen === undefined && this.#seen.size >= SEEN_MAX) this.#seen.clear()
    this.#seen.set(text, { heard, toldAt: now })
    this.#tell(heard)
  }

  /** Its own packets come back, and those of another agent with its identity. */
  async #onSelf({ instance, claim, addresses }: Announcement): Promise<void> {
    const { twins } = this.#site
    if (instance === twins.instance) return
    if (claim.length > 0) await twins.hear(claim, addresses)
    if (performance.now() - this.#claimedAt < CLAIM_MS) return
    this.#claimedAt = performance.now()
    this.#claim = await twins.claim(instance)
    this.#prepare(this.#endpoints())
    if (this.#started) this.#announce()
  }

  #tell(heard: Exclude<Heard, { kind: 'ignored' }>): void {
    const { peer, name, addresses } = heard.announcement
    this.#greet(peer)
    if (heard.kind === 'other-network') {
      this.#site.onStranger({ id: peer, name, address: addresses[0] ?? '', remedy: REMEDY_OTHER_KEY })
      return
    }
    this.#site.onFound(peer, addresses)
  }

  /** Answers a newcomer soon, so that it need not wait for our next turn. */
  #greet(peer: string): void {
    if (this.#known.has(peer)) return
    if (this.#known.size >= KNOWN_MAX) this.#known.clear()
    this.#known.add(peer)
    if (this.#answering) return
    this.#answering = true
    this.#after(ANSWER_MS * Math.random(), () => {
      this.#answering = false
      this.#announce()
    })
  }
}

const LOOPBACK: NetworkInterfaceInfo = {
  address: '127.0.0.1',
  netmask: '255.0.0.0',
  family: 'IPv4',
  mac: '00:00:00:00:00:00',
  internal: true,
  cidr: '127.0.0.1/8',
}
