/**
 * One peer pager this agent runs for another's elastic process: hands the lease's lane to it, and agrees with the
 * agents of other participants when it wants lanes to them.
 */

import type { Watched } from '../machines/failure-detector.js'
import { LaneAgreement, type LaneEffect, type LaneEvent, type NamedNode } from '../machines/lane-agreement.js'
import type { HeldLease } from '../machines/lease-lender.js'
import { LEASE_TTL_MS, type LeaseTerms, type PeerId, type ProcessId } from '../machines/types.js'
import { laneDialHost } from '../net/address.js'
import { LANE_KEY_BYTES, type PeerMessage } from '../net/messages.js'
import { type Context, EventLoop } from './context.js'
import { Detection } from './detection.js'
import type { StretchedHere } from './ownership-news.js'
import type { PagerConnection, PagerEvent } from './pagers.js'

const LEASE_ID_MAX = 2 ** 47
/** Keys of asks that were never answered. */
const LANE_KEYS_MAX = 128

export type LaneMessage = Extract<
  PeerMessage,
  { kind: 'members' | 'lane-ask' | 'lane-agree' | 'lane-refuse' | 'pager-ended' }
>

export interface HeldOptions {
  readonly client: PagerConnection
  /** Where its lanes listen; "" when not known any more. */
  readonly laneHost: string
  readonly lease: () => HeldLease | undefined
  readonly members: readonly NamedNode[]
  /** To participants other than home. */
  readonly lanes: readonly Watched[]
  readonly onMembers: () => void
}

export class HeldProcess {
  readonly client: PagerConnection
  readonly laneHost: string
  /** The pager has said that it ends. */
  exited = false
  readonly #context: Context
  readonly #processId: ProcessId
  readonly #options: HeldOptions
  readonly #agreement: LaneAgreement
  readonly #loop: EventLoop<LaneEvent, LaneEffect>
  readonly #detection: Detection
  readonly #laneKeys = new Map<number, Uint8Array>()
  /** To participants other than home, by node. */
  readonly #lanes: Map<number, Watched>

  constructor(context: Context, processId: ProcessId, options: HeldOptions) {
    this.#context = context
    this.#processId = processId
    this.#options = options
    this.client = options.client
    this.laneHost = options.laneHost
    this.#agreement = new LaneAgreement(options.client.describe.node)
    this.#loop = new EventLoop(
      (event, now) => this.#agreement.onEvent(event, now),
      effect => this.#carryOut(effect),
      () => context.clock.now(),
    )
    this.#lanes = new Map(options.lanes.map(lane => [lane.node, lane]))
    this.#detection = new Detection(context, {
      processId,
      client: () => this.client,
      lanes: () => this.allLanes(),
    })
    if (options.members.length > 0) this.#loop.feed({ kind: 'members', members: options.members })
  }

  members(): readonly NamedNode[] {
    return this.#agreement.members()
  }

  stretched(): StretchedHere {
    const { client } = this
    const { node } = client.describe
    const members = this.members().filter(member => member.node !== node)
    return { processId: this.#processId, node, members, client }
  }

  lanes(): readonly Watched[] {
    return [...this.#lanes.values()]
  }

  /** Home's, too. */
  allLanes(): readonly Watched[] {
    const lease = this.#options.lease()
    if (lease === undefined) return this.lanes()
    return [{ node: 0, leaseId: lease.leaseId, peer: lease.peer }, ...this.lanes()]
  }

  /** Lets home's pager in and tells home's agent where to dial. */
  grant(lease: HeldLease, terms: LeaseTerms, laneKey: Uint8Array): void {
    const home: NamedNode = { node: 0, name: lease.homeName, peer: lease.peer }
    this.#sendLane(home, lease.leaseId, terms, '', 0, laneKey)
    const { processId, leaseId, peer } = lease
    const port = this.client.describe.lanePort
    this.#context.send(peer, { kind: 'grant', processId, leaseId, terms, host: this.laneHost, port })
  }

  onPagerEvent(event: PagerEvent): void {
    if (event.kind === 'lane-wanted') this.#onWanted(event.node)
    else if (event.kind === 'exited') this.exited = true
    else if (event.kind === 'lane-down') this.#onLaneDown(event.node)
    else if (event.kind === 'owned') this.#context.ownership.onOwned(this.#processId, event.ranges)
    this.#detection.onPagerEvent(event)
  }

  onMessage(peer: PeerId, message: LaneMessage): void {
    const lease = this.#options.lease()
    switch (message.kind) {
      case 'members':
        if (lease === undefined || lease.peer !== peer) return
        this.#loop.feed({ kind: 'members', members: message.members })
        this.#options.onMembers()
        return
      case 'lane-ask':
        this.#remember(message.leaseId, message.laneKey)
        this.#loop.feed({ kind: 'asked', peer, node: message.fromNode, leaseId: message.leaseId })
        return
      case 'lane-agree':
        this.#loop.feed({ ...message, kind: 'agreed', peer })
        return
      case 'lane-refuse':
        this.#loop.feed({ ...message, kind: 'refused', peer })
        return
      case 'pager-ended':
        this.#detection.onPagerEnded(peer, message.leaseId)
        return
    }
  }

  onTick(): void {
    this.#loop.feed({ kind: 'tick' })
  }

  #onLaneDown(node: number): void {
    this.#lanes.delete(node)
    this.#loop.feed({ kind: 'lane-down', node })
  }

  #onWanted(node: number): void {
    this.#loop.feed({ kind: 'wanted', node, leaseId: this.#context.rng.below(LEASE_ID_MAX) })
  }

  #carryOut(effect: LaneEffect): void {
    const processId = this.#processId
    switch (effect.kind) {
      case 'ask':
        this.#ask(effect.to, effect.leaseId)
        return
      case 'accept':
        this.#accept(effect.from, effect.leaseId)
        return
      case 'refuse': {
        const { peer, leaseId, refusal } = effect
        this.#laneKeys.delete(leaseId)
        this.#context.send(peer, { kind: 'lane-refuse', processId, leaseId, refusal })
        return
      }
      case 'dial': {
        const { to, leaseId, terms, port } = effect
        const host = laneDialHost(effect.host, this.#context.hostOf(to.peer))
        this.#sendLane(to, leaseId, terms, host, port, this.#take(leaseId))
        return
      }
      case 'lane-refused':
        this.client.send({ kind: 'lane-refused', node: effect.node, reason: effect.reason })
        return
    }
  }

  #ask(to: NamedNode, leaseId: number): void {
    const laneKey = this.#context.secrets(LANE_KEY_BYTES)
    this.#remember(leaseId, laneKey)
    const fromNode = this.client.describe.node
    const processId = this.#processId
    if (this.#context.send(to.peer, { kind: 'lane-ask', processId, leaseId, fromNode, laneKey })) return
    this.#laneKeys.delete(leaseId)
    const refusal = { code: 'timeout', detail: 'no way to its agent' } as const
    this.#loop.feed({ kind: 'refused', peer: to.peer, leaseId, refusal })
  }

  /** What the asker may push here is bounded by what home may: the pager keeps one total. */
  #accept(from: NamedNode, leaseId: number): void {
    const lease = this.#options.lease()
    const terms = { pages: lease?.pages ?? 0, threads: lease?.threads ?? 0, ttlMs: LEASE_TTL_MS }
    this.#sendLane(from, leaseId, terms, '', 0, this.#take(leaseId))
    const port = this.client.describe.lanePort
    const processId = this.#processId
    this.#context.send(from.peer, {
      kind: 'lane-agree',
      processId,
      leaseId,
      terms,
      host: this.laneHost,
      port,
    })
  }

  #sendLane(
    to: NamedNode,
    leaseId: number,
    terms: LeaseTerms,
    host: string,
    port: number,
    laneKey: Uint8Array | undefined,
  ): void {
    if (laneKey === undefined) return
    const { node, name: nodeName, peer: peerId } = to
    if (node !== 0) this.#lanes.set(node, { node, leaseId, peer: peerId })
    const { pages: pagesMax, threads: threadsMax, ttlMs } = terms
    this.client.send({
      kind: 'lane',
      node,
      leaseId,
      pagesMax,
      threadsMax,
      ttlMs,
      port,
      nodeName,
      host,
      laneKey,
      peerId,
    })
  }

  #remember(leaseId: number, laneKey: Uint8Array): void {
    this.#laneKeys.set(leaseId, laneKey)
    if (this.#laneKeys.size <= LANE_KEYS_MAX) return
    const oldest = this.#laneKeys.keys().next()
    if (!oldest.done) this.#laneKeys.delete(oldest.value)
  }

  #take(leaseId: number): Uint8Array | undefined {
    const laneKey = this.#laneKeys.get(leaseId)
    this.#laneKeys.delete(leaseId)
    return laneKey
  }
}
