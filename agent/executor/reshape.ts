/**
 * What a person asks of an elastic process at home here: to let go of a machine, or to take in another one.
 *
 * A machine is named by its name or its peer id. Every refusal is one line that says why.
 */

import type { Member, Stranger } from '../machines/membership.js'
import type { PeerId } from '../machines/types.js'
import { AgentError, type LeaseInfo } from '../service.js'
import type { HomeProcess } from './home.js'
import type { Homes } from './homes.js'

/** What this agent sees of the other machines. */
export interface Seen {
  members(): readonly Member[]
  strangers(): readonly Stranger[]
}

/** The machines that have a lease of the process or are asked for one, and the pages that are there. */
export async function leases(homes: Homes | undefined, id: string): Promise<LeaseInfo[]> {
  const home = needHome(homes, id)
  const { participants = [] } = await home.client.requestStats()
  return home.seats().map(({ peer, name, state }) => {
    const pages = participants.find(participant => participant.node === name)?.pages ?? 0
    return { node: name, peerId: peer, state, pages }
  })
}

/** Starts to let go of `node`, of all machines without one; what those had that have something or may yet. */
export async function contract(
  homes: Homes | undefined,
  id: string,
  node: string | undefined,
): Promise<LeaseInfo[]> {
  const all = await leases(homes, id)
  const home = needHome(homes, id)
  if (node === undefined) {
    home.contract(undefined)
    return all
  }
  const found = pick(
    node,
    home.seats().map(({ peer, name }) => ({ id: peer, name })),
  )
  if (found === undefined) throw refused(`${node} takes no part in ${id}; see \`elasticos ps\``)
  home.contract(found.id)
  return all.filter(lease => lease.peerId === found.id)
}

/** Asks `node` for a lease now; its name once its lane is up. */
export async function stretch(
  homes: Homes | undefined,
  seen: Seen,
  id: string,
  node: string,
): Promise<string> {
  const home = needHome(homes, id)
  const { peer, name } = needMember(seen, node)
  const refusal = await home.stretch(peer)
  if (refusal === undefined) return name
  throw refused(`${name} does not take part in ${id}: ${refusal}`)
}

/** Lets the process find its machines by itself again. */
export async function automatic(homes: Homes | undefined, id: string): Promise<void> {
  needHome(homes, id).automatic()
}

function needHome(homes: Homes | undefined, id: string): HomeProcess {
  const home = homes?.get(id)
  if (home !== undefined) return home
  throw refused(`no elastic process ${id} has its home at this agent; see \`elasticos ps\``)
}

function needMember(seen: Seen, node: string): { peer: PeerId; name: string } {
  const members = seen.members().map(member => ({ ...member, id: member.peer, name: member.load.name }))
  const member = pick(node, members)
  if (member?.state === 'joined') return member
  if (member !== undefined) throw refused(`${node} is suspected: it does not answer; look at its agent`)
  const stranger = pick(node, seen.strangers())
  if (stranger !== undefined) throw refused(`${node} has not joined: ${stranger.remedy}`)
  throw refused(`no machine ${node} is known here; see \`elasticos nodes\``)
}

/** The one of this name or id. Throws where two have the name. */
function pick<T extends { id: string; name: string }>(node: string, among: readonly T[]): T | undefined {
  const found = among.filter(one => one.id === node || one.name === node)
  if (found.length > 1) throw refused(`several machines are called ${node}; give the peer id of one`)
  return found[0]
}

function refused(message: string): AgentError {
  return new AgentError('refused', message)
}
