/**
 * How two participants other than home agree on a lane of their own, when a pager first needs one. Pure; one per
 * peer pager of this agent.
 *
 * The side that needs it asks, the other accepts if home has named the asker as a participant, and the asker's pager
 * dials. When both ask at once, the ask of the lower node index counts and the other one is dropped by its own side.
 * Every ask ends: agreed, refused, or timed out; the pager then goes on by way of home.
 *
 * Limits: 63 other nodes; one ask per node at a time; a refused node may be asked for again after `RETRY_MS`.
 */

import { type LeaseTerms, NODES_MAX, type PeerId, type Refusal, refusalText } from './types.js'

export const ASK_TIMEOUT_MS = 5_000
const RETRY_MS = 1_000

/** A node of the process, as home has announced it. */
export interface NamedNode {
  readonly node: number
  readonly name: string
  readonly peer: PeerId
}

export type LaneEvent =
  | { readonly kind: 'members'; readonly members: readonly NamedNode[] }
  /** A pager knows nodes by their index; whose they are is what home has said. */
  | { readonly kind: 'wanted'; readonly node: number; readonly leaseId: number }
  | { readonly kind: 'asked'; readonly peer: PeerId; readonly node: number; readonly leaseId: number }
  | {
      readonly kind: 'agreed'
      readonly peer: PeerId
      readonly leaseId: number
      readonly terms: LeaseTerms
      readonly host: string
      readonly port: number
    }
  | { readonly kind: 'refused'; readonly peer: PeerId; readonly leaseId: number; readonly refusal: Refusal }
  | { readonly kind: 'lane-down'; readonly node: number }
  | { readonly kind: 'tick' }

export type LaneEffect =
  | { readonly kind: 'ask'; readonly to: NamedNode; readonly leaseId: number }
  /** Let the pager accept a lane, and answer the asker. */
  | { readonly kind: 'accept'; readonly from: NamedNode; readonly leaseId: number }
  | { readonly kind: 'refuse'; readonly peer: PeerId; readonly leaseId: number; readonly refusal: Refusal }
  | {
      readonly kind: 'dial'
      readonly to: NamedNode
      readonly leaseId: number
      readonly terms: LeaseTerms
      readonly host: string
      readonly port: number
    }
  /** Tells the pager that this lane will not come. */
  | { readonly kind: 'lane-refused'; readonly node: number; readonly reason: string }

interface Attempt {
  readonly peer: PeerId
  readonly leaseId: number
  state: 'asking' | 'crossed' | 'agreed' | 'refused'
  deadline: number
}

export class LaneAgreement {
  readonly #own: number
  readonly #attempts = new Map<number, Attempt>()
  #members: readonly NamedNode[] = []

  /** @param own this participant's node index */
  constructor(own: number) {
    this.#own = own
  }

  members(): readonly NamedNode[] {
    return this.#members
  }

  onEvent(event: LaneEvent, now: number): LaneEffect[] {
    switch (event.kind) {
      case 'members':
        this.#members = event.members.slice(0, NODES_MAX)
        return []
      case 'wanted':
        return this.#onWanted(event, now)
      case 'asked':
        return this.#onAsked(event, now)
      case 'agreed':
        return this.#onAgreed(event, now)
      case 'refused':
        return this.#onRefused(event, now)
      case 'lane-down':
        if (this.#attempts.get(event.node)?.state === 'agreed') this.#attempts.delete(event.node)
        return []
      case 'tick':
        return this.#onTick(now)
    }
  }

  #onWanted(event: LaneEvent & { kind: 'wanted' }, now: number): LaneEffect[] {
    const { node, leaseId } = event
    const to = this.#members.find(member => member.node === node)
    if (to === undefined || node <= 0 || node === this.#own) {
      return [{ kind: 'lane-refused', node, reason: 'no such participant' }]
    }
    const running = this.#attempts.get(node)
    if (running?.state === 'asking' || running?.state === 'crossed') return []
    if (running?.state === 'refused' && now < running.deadline) {
      return [{ kind: 'lane-refused', node, reason: 'refused a moment ago' }]
    }
    this.#attempts.set(node, { peer: to.peer, leaseId, state: 'asking', deadline: now + ASK_TIMEOUT_MS })
    return [{ kind: 'ask', to, leaseId }]
  }

  #onAsked(event: LaneEvent & { kind: 'asked' }, now: number): LaneEffect[] {
    const { peer, node, leaseId } = event
    const from = this.#members.find(member => member.node === node && member.peer === peer)
    if (from === undefined || node === this.#own) {
      return [refuse(peer, leaseId, { code: 'not-allowed', detail: 'no participant of this process' })]
    }
    if (this.#attempts.get(node)?.state === 'asking' && this.#own < node) {
      return [refuse(peer, leaseId, { code: 'already-participant', detail: 'this side has asked first' })]
    }
    this.#attempts.set(node, { peer, leaseId, state: 'agreed', deadline: now + ASK_TIMEOUT_MS })
    return [{ kind: 'accept', from, leaseId }]
  }

  #onAgreed(event: LaneEvent & { kind: 'agreed' }, now: number): LaneEffect[] {
    const found = this.#find(event.peer, event.leaseId)
    if (found === undefined) return []
    const [node, attempt] = found
    attempt.state = 'agreed'
    attempt.deadline = now
    const to = this.#members.find(member => member.node === node) ?? {
      node,
      name: `node-${node}`,
      peer: event.peer,
    }
    const { leaseId, terms, host, port } = event
    return [{ kind: 'dial', to, leaseId, terms, host, port }]
  }

  #onRefused(event: LaneEvent & { kind: 'refused' }, now: number): LaneEffect[] {
    const found = this.#find(event.peer, event.leaseId)
    if (found === undefined) return []
    const [node, attempt] = found
    if (event.refusal.code === 'already-participant' && node < this.#own) {
      attempt.state = 'crossed'
      return []
    }
    attempt.state = 'refused'
    attempt.deadline = now + RETRY_MS
    return [{ kind: 'lane-refused', node, reason: refusalText(event.refusal) }]
  }

  #onTick(now: number): LaneEffect[] {
    const effects: LaneEffect[] = []
    for (const [node, attempt] of this.#attempts) {
      if (now < attempt.deadline || (attempt.state !== 'asking' && attempt.state !== 'crossed')) continue
      attempt.state = 'refused'
      attempt.deadline = now + RETRY_MS
      effects.push({ kind: 'lane-refused', node, reason: 'timeout' })
    }
    return effects
  }

  /** The running ask that an answer belongs to. */
  #find(peer: PeerId, leaseId: number): [number, Attempt] | undefined {
    for (const [node, attempt] of this.#attempts) {
      if (attempt.peer === peer && attempt.leaseId === leaseId && attempt.state === 'asking')
        return [node, attempt]
    }
    return undefined
  }
}

function refuse(peer: PeerId, leaseId: number, refusal: Refusal): LaneEffect {
  return { kind: 'refuse', peer, leaseId, refusal }
}
