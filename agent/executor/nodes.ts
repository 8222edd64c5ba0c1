/** The list of agents as people see it: this one, those that have joined, and those that cannot. */

import type { Load, Membership } from '../machines/membership.js'
import { type PeerId, toPeerId } from '../machines/types.js'
import type { NodeInfo } from '../service.js'

/** `own`: what this agent, `self`, says about itself. */
export function listNodes(
  own: Load,
  self: string,
  membership: Membership,
  rttMs: (peer: PeerId) => number | undefined,
): NodeInfo[] {
  const members = membership.members().map(({ peer, state, load }) => {
    const rtt = rttMs(peer)
    const info = { ...shown(load), peerId: peer, self: false, state }
    return rtt === undefined ? info : { ...info, rttMs: rtt }
  })
  const strangers = membership.strangers().map(({ id, name, address, remedy }) => ({
    name: name === '' ? address : name,
    peerId: toPeerId(id) ?? '',
    addresses: [address],
    self: false,
    state: 'seen-not-joined' as const,
    freePages: 0,
    capacityPages: 0,
    cpus: 0,
    processes: 0,
    remedy,
  }))
  return [{ ...shown(own), peerId: self, self: true, state: 'joined' }, ...members, ...strangers]
}

function shown({ name, addresses, freePages, capacityPages, cpus, processes }: Load) {
  return { name, addresses: [...addresses], freePages, capacityPages, cpus, processes }
}
