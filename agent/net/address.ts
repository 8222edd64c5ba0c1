/**
 * Addresses: the few forms of multiaddr this project uses (TCP over IPv4 or IPv6, host names for peers), and which of
 * this machine's interfaces they mean. No I/O: interfaces are an argument.
 */

import { isIP, isIPv4 } from 'node:net'
import type { NetworkInterfaceInfo } from 'node:os'
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr'
import { type PeerId, toPeerId } from '../machines/types.js'
import { AgentError } from '../service.js'

export interface Endpoint {
  /** IP address or host name. */
  readonly host: string
  readonly port: number
  readonly peer?: PeerId
}

/** What os.networkInterfaces returns. */
export type Interfaces = NodeJS.Dict<NetworkInterfaceInfo[]>

const HOST_PROTOCOLS = new Set(['ip4', 'ip6', 'dns', 'dns4', 'dns6'])

/** Host, port and peer id of a TCP multiaddr; undefined when it is anything else. */
export function toEndpoint(address: string | Multiaddr): Endpoint | undefined {
  let parts: { name: string; value?: string }[]
  try {
    parts = (typeof address === 'string' ? multiaddr(address) : address).getComponents()
  } catch {
    return undefined
  }
  const [host, tcp, p2p, ...rest] = parts
  if (host === undefined || !HOST_PROTOCOLS.has(host.name) || tcp?.name !== 'tcp' || rest.length > 0)
    return undefined
  if (p2p !== undefined && p2p.name !== 'p2p') return undefined
  const peer = p2p?.value === undefined ? undefined : toPeerId(p2p.value)
  if (p2p !== undefined && peer === undefined) return undefined
  const endpoint = { host: host.value ?? '', port: Number(tcp.value) }
  return peer === undefined ? endpoint : { ...endpoint, peer }
}

/** Checks an address of the command line. Throws `bad-address` with an example. */
export function requireEndpoint(address: string, flag: '--listen' | '--peer'): Endpoint {
  const endpoint = toEndpoint(address)
  if (endpoint !== undefined && (flag === '--peer' || isIP(endpoint.host) !== 0)) return endpoint
  throw new AgentError(
    'bad-address',
    `bad multiaddr for ${flag}: ${address}; give one like /ip4/192.168.1.5/tcp/4001`,
  )
}

/** The multiaddr of an IP address and port. */
export function toMultiaddr(host: string, port: number): string {
  return `/${isIPv4(host) ? 'ip4' : 'ip6'}/${host}/tcp/${port}`
}

export function isWildcard(host: string): boolean {
  return host === '0.0.0.0' || host === '::'
}

export function isLoopback(host: string): boolean {
  return host.startsWith('127.') || host === '::1'
}

/**
 * Where a peer pager has to listen for lanes, so that it is reachable for who reaches its agent and for nobody else:
 * the agent's own listen address. With several the one in the network of `remote`, else the first.
 */
export function laneListenHost(
  listenHosts: readonly string[],
  remote: string,
  interfaces: Interfaces,
): string {
  const wildcard = listenHosts.find(host => isWildcard(host) && isIPv4(host) === isIPv4(remote))
  if (wildcard !== undefined) return wildcard
  const near = listenHosts.find(host => sameNetwork(host, remote, interfaces))
  return near ?? listenHosts.find(host => isIPv4(host) === isIPv4(remote)) ?? listenHosts[0] ?? '127.0.0.1'
}

/** The host a pager has to dial: what the lender named, or where its agent is when it listens everywhere. */
export function laneDialHost(named: string, remote: string): string {
  return named === '' || isWildcard(named) || isIP(named) === 0 ? remote : named
}

function sameNetwork(local: string, remote: string, interfaces: Interfaces): boolean {
  return Object.values(interfaces).some(infos =>
    (infos ?? []).some(info => info.address === local && inNetwork(remote, info)),
  )
}

/** Whether IPv4 address `host` belongs to the network of an interface. */
export function inNetwork(host: string, info: Pick<NetworkInterfaceInfo, 'address' | 'netmask'>): boolean {
  if (host === info.address) return true
  if (!isIPv4(host) || !isIPv4(info.address) || !isIPv4(info.netmask)) return false
  const mask = toNumber(info.netmask)
  return (toNumber(host) & mask) === (toNumber(info.address) & mask)
}

function toNumber(ip: string): number {
  return ip.split('.').reduce((sum, part) => (sum << 8) | Number(part), 0)
}

export function requirePeerId(text: string): PeerId {
  const peer = toPeerId(text)
  if (peer === undefined)
    throw new AgentError(
      'bad-peer-id',
      `bad peer id for --allow: ${text}; give one as \`elasticos nodes\` shows them`,
    )
  return peer
}
