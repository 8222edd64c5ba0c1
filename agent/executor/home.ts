/**
 * Carries out the home side of leases for one elastic process: between its home pager, the lease machine and the
 * peers' agents. The lane keys it makes are known to the two pagers and the two agents only, and forgotten here as
 * soon as the pager has them.
 *
 * Limits: of each peer only the last refusal is kept, of 1024 peers.
 */

import type { Choices } from '../machines/choice.js'
import {
  type HomeEffect,
  type HomeEvent,
  LeaseHome,
  type Participant,
  type SeatState,
} from '../machines/lease-home.js'
import type { Member } from '../machines/membership.js'
import { LEASE_TTL_MS, type PeerId, type ProcessId } from '../machines/types.js'
import { laneDialHost } from '../net/address.js'
import { LANE_KEY_BYTES, type PeerMessage } from '../net/messages.js'
import type { HomeAttachment } from '../service.js'
import { type Context, EventLoop } from './context.js'
import { Detection } from './detection.js'
import type { StretchedHere } from './ownership-news.js'
import type { PagerConnection, PagerEvent } from './pagers.js'
import { reconnect } from './reconnect.js'
import type { Records } from './records.js'

/** Each process takes as many consecutive ids as it makes offers. */
const LEASE_ID_BASE_MAX = 2 ** 47
const REFUSALS_MAX = 1024

export type HomeMessage = Extract<PeerMessage, { kind: 'grant' | 'refuse' | 'lease-update' | 'pager-ended' }>

/** What it has to remember over its agent's death, and where. */
export type HomeRecords = Pick<Records, 'saveHome' | 'remove'>

export class HomeProcess {
  readonly attachment: HomeAttachment & { readonly id: ProcessId }
  readonly #context: Context
  readonly #records: HomeRecords
  readonly #members: () => readonly Member[]
  #client: PagerConnection
  #machine: LeaseHome
  readonly #loop: EventLoop<HomeEvent, HomeEffect>
  readonly #detection: Detection
  readonly #laneKeys = new Map<number, Uint8Array>()
  readonly #refusals = new Map<string, string>()
  readonly #listeners = new Set<(count: number) => void>()
  /** Who waits for what becomes of the offer to a peer. */
  readonly #asking = new Map<PeerId, ((refusal: string | undefined) => void)[]>()
  #onEnd: () => void
  /** The connection to the pager has ended, and there is no new one yet. */
  #lost = false
  #ended = false

  constructor(
    context: Context,
    records: HomeRecords,
    attachment: HomeAttachment & { readonly id: ProcessId },
    client: PagerConnection,
    members: () => readonly Member[],
    onEnd: () => void,
    choices?: Choices,
  ) {
    this.attachment = attachment
    this.#context = context
    this.#records = records
    this.#client = client
    this.#members = members
    this.#onEnd = onEnd
    this.#machine = this.#newMachine(attachment.participantsMax, choices)
    this.#loop = new EventLoop(
      (event, now) => this.#machine.onEvent(event, now),
      effect => this.#carryOut(effect),
      () => context.clock.now(),
    )
    this.#detection = new Detection(context, {
      processId: attachment.id,
      client: () => this.#client,
      lanes: () => this.#machine.leases(),
    })
  }

  get client(): PagerConnection {
    return this.#client
  }

  /** Starts asking the members; `restored` are the leases there were before the pager was connected to. */
  start(restored: readonly Participant[]): void {
    for (const participant of restored) this.#feed({ kind: 'restored', participant })
    this.#client.on(event => this.#onPagerEvent(event))
    this.#client.onClose(() => void this.#onClose())
    this.#save()
    this.onAvailable(this.#members())
  }

  /** Peers that have joined, or say anew what they have. */
  onAvailable(members: readonly Member[]): void {
    const lenders = members
      .filter(member => member.state === 'joined')
      .map(({ peer, load: { name, incarnation, freePages } }) => {
        return { peer, name, incarnation, freePages, rttMs: this.#context.rttMs(peer) }
      })
    this.#feed({ kind: 'available', lenders })
  }

  onUnavailable(peer: PeerId, why: 'suspected' | 'leaving' | 'forgotten'): void {
    this.#feed({ kind: 'unavailable', peer, why })
  }

  /** A stream to `peer` is open (again): it may have missed who takes part. */
  onJoined(peer: PeerId): void {
    if (this.#machine.leases().some(participant => participant.peer === peer)) this.#sendMembers([peer])
  }

  onMessage(peer: PeerId, message: HomeMessage): void {
    const { leaseId } = message
    switch (message.kind) {
      case 'grant':
        this.#feed({ ...message, kind: 'granted', peer, leaseId })
        break
      case 'refuse':
        this.#feed({ kind: 'refused', peer, leaseId, refusal: message.refusal })
        break
      case 'lease-update':
        this.#feed({ ...message, kind: 'lease-update', peer })
        break
      case 'pager-ended':
        this.#detection.onPagerEnded(peer, leaseId)
        break
    }
  }

  onTick(): void {
    this.#feed({ kind: 'tick' })
  }

  /** Lanes that are up, and home. */
  participants(): number {
    return 1 + this.#machine.up().length
  }

  stretched(): StretchedHere {
    return { processId: this.attachment.id, node: 0, members: this.#machine.up(), client: this.#client }
  }

  participantNames(): string[] {
    return [this.#context.name, ...this.#machine.up().map(participant => participant.name)]
  }

  seats(): { readonly peer: PeerId; readonly name: string; readonly state: SeatState }[] {
    return this.#machine.seats()
  }

  /** Lets go of `peer`, or of all, once their pages are here; they are asked no more. */
  contract(peer: PeerId | undefined): void {
    this.#feed({ kind: 'contract', peer })
    this.#save()
  }

  /** Asks by itself again, whatever was contracted. */
  automatic(): void {
    this.#feed({ kind: 'automatic' })
    this.#save()
  }

  /** Lets go of `peer`, which is of no use, until room is wanted. */
  rest(peer: PeerId): void {
    this.#feed({ kind: 'rest', peer })
  }

  /** Asks `peer` for a lease now. Resolves within seconds: why it has none, or undefined when its lane is up. */
  stretch(peer: PeerId): Promise<string | undefined> {
    this.#refusals.delete(this.#context.nameOf(peer))
    const told = new Promise<string | undefined>(resolve => {
      this.#asking.set(peer, [...(this.#asking.get(peer) ?? []), resolve])
    })
    this.#feed({ kind: 'stretch', peer })
    this.#save()
    return told
  }

  refusals(): string[] {
    return [...this.#refusals].map(([name, text]) => `${name}: ${text}`)
  }

  onParticipants(listener: (count: number) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Lets the pager run on without this agent; of one that was killed just now it tells the lenders. */
  detach(): void {
    if (this.#lost && !this.#isAlive()) this.#end(true)
    this.#onEnd = () => {}
    this.#ended = true
    this.#client.close()
  }

  #newMachine(participantsMax: number, choices: Choices | undefined): LeaseHome {
    const leaseIdBase = this.#context.rng.below(LEASE_ID_BASE_MAX)
    return new LeaseHome({ participantsMax, leaseIdBase, ...(choices === undefined ? {} : { choices }) })
  }

  #feed(event: HomeEvent): void {
    this.#loop.feed(event)
    this.#tellAsking()
  }

  /** Every offer ends, with a lane or without. */
  #tellAsking(): void {
    for (const [peer, tell] of this.#asking) {
      const seat = this.#machine.seats().find(one => one.peer === peer)
      if (seat?.state === 'offered' || seat?.state === 'granted') continue
      this.#asking.delete(peer)
      const refusal = this.#refusals.get(this.#context.nameOf(peer)) ?? 'it does not answer'
      for (const one of tell) one(seat?.state === 'up' ? undefined : refusal)
    }
  }

  /**
   * The pager may have ended, or only the connection. Then what was said meanwhile is lost on both sides: as after a
   * restart of the agent the pager tells which lanes are up, and the other leases are given up.
   */
  async #onClose(): Promise<void> {
    if (this.#ended) return
    this.#lost = true
    const { pagerSocket } = this.attachment
    const client = await reconnect(this.#context, pagerSocket, this.#client.describe.pagerPid)
    if (this.#ended) client?.close()
    if (this.#ended) return
    if (client === undefined) {
      this.#end(!this.#isAlive())
      return
    }
    this.#context.log.info(`${this.attachment.id}: connected to its home pager again`)
    const leases = this.#machine.leases()
    const { participantsMax, choices } = this.#machine
    this.#client = client
    this.#lost = false
    this.#machine = this.#newMachine(participantsMax, choices)
    this.#laneKeys.clear()
    this.start(leases)
  }

  #onPagerEvent(event: PagerEvent): void {
    const { log } = this.#context
    this.#detection.onPagerEvent(event)
    switch (event.kind) {
      case 'lane-up':
        this.#feed({ kind: 'lane-up', node: event.node })
        break
      case 'lane-down':
        log.info(`${this.attachment.id}: lane to ${event.nodeName} ended: ${event.reason}`)
        this.#feed({ kind: 'lane-down', node: event.node, reason: event.reason })
        break
      case 'lane-wanted':
        this.#client.send({ kind: 'lane-refused', node: event.node, reason: 'home makes its lanes itself' })
        break
      case 'room-wanted':
        log.debug(`${this.attachment.id}: ${event.pages} more pages wanted`)
        this.#feed({ kind: 'rest', peer: undefined })
        break
      case 'owned':
        this.#context.ownership.onOwned(this.attachment.id, event.ranges)
        break
      case 'exited':
        this.#end(false)
        break
      default:
        break
    }
  }

  #carryOut(effect: HomeEffect): void {
    switch (effect.kind) {
      case 'offer':
        this.#offer(effect)
        return
      case 'lane':
        this.#lane(effect)
        return
      case 'update': {
        const { leaseId, reason, terms } = effect
        const { pages: pagesMax, threads: threadsMax, ttlMs } = terms
        this.#client.send({ kind: 'lease-update', leaseId, pagesMax, threadsMax, ttlMs, reason })
        return
      }
      case 'drop':
        this.#client.send({ kind: 'participant-drop', node: effect.node })
        return
      case 'release': {
        this.#forgetLaneKeys()
        const { peer, ...rest } = effect
        this.#context.send(peer, { ...rest, processId: this.attachment.id })
        return
      }
      case 'refusal':
        this.#context.log.info(`${this.attachment.id}: ${effect.name} does not lend: ${effect.text}`)
        this.#noteRefusal(effect.name, effect.text)
        return
      case 'participants':
        this.#onParticipants(effect.up)
        return
    }
  }

  #offer(effect: HomeEffect & { kind: 'offer' }): void {
    const laneKey = this.#context.secrets(LANE_KEY_BYTES)
    const { peer, leaseId, node, pages, threads } = effect
    this.#forgetLaneKeys()
    this.#laneKeys.set(leaseId, laneKey)
    const sent = this.#context.send(peer, {
      kind: 'offer',
      processId: this.attachment.id,
      leaseId,
      program: this.attachment.program.replace(/\p{Cc}/gu, '?').slice(0, 4096),
      homeName: this.#context.name,
      node,
      epoch: this.#client.describe.epoch,
      pages,
      threads,
      facts: this.#context.facts,
      laneKey,
    })
    if (sent) return
    this.#laneKeys.delete(leaseId)
    this.#feed({ kind: 'refused', peer, leaseId, refusal: { code: 'timeout', detail: 'no way to it' } })
  }

  /** Of offers that are over: granted, refused, or without an answer. */
  #forgetLaneKeys(): void {
    for (const leaseId of this.#laneKeys.keys())
      if (!this.#machine.isOffered(leaseId)) this.#laneKeys.delete(leaseId)
  }

  #lane(effect: HomeEffect & { kind: 'lane' }): void {
    const { participant, terms, port } = effect
    const { peer, leaseId, node, name: nodeName } = participant
    const laneKey = this.#laneKeys.get(leaseId)
    this.#laneKeys.delete(leaseId)
    if (laneKey === undefined) return
    const host = laneDialHost(effect.host, this.#context.hostOf(peer))
    const { pages: pagesMax, threads: threadsMax } = terms
    const ttlMs = Math.min(terms.ttlMs, LEASE_TTL_MS)
    const where = { node, nodeName, peerId: peer, host, port }
    this.#client.send({ kind: 'lane', ...where, leaseId, pagesMax, threadsMax, ttlMs, laneKey })
    this.#save()
  }

  #onParticipants(up: readonly Participant[]): void {
    this.#save()
    this.#sendMembers(up.map(participant => participant.peer))
    const count = 1 + up.length
    for (const listener of [...this.#listeners]) listener(count)
  }

  /** Tells participants about each other, so that each knows with whom it may agree on a lane. */
  #sendMembers(to: readonly PeerId[]): void {
    const home = { node: 0, name: this.#context.name, peer: this.#context.self }
    const others = this.#machine.up().map(({ node, name, peer }) => ({ node, name, peer }))
    const message = { kind: 'members', processId: this.attachment.id, members: [home, ...others] } as const
    for (const peer of to) this.#context.send(peer, message)
  }

  #noteRefusal(name: string, text: string): void {
    this.#refusals.delete(name)
    this.#refusals.set(name, text)
    if (this.#refusals.size <= REFUSALS_MAX) return
    const oldest = this.#refusals.keys().next()
    if (!oldest.done) this.#refusals.delete(oldest.value)
  }

  #save(): void {
    if (this.#ended) return
    const { participantsMax, choices } = this.#machine
    const attachment = { ...this.attachment, participantsMax }
    this.#records.saveHome({ attachment, participants: this.#machine.leases(), choices })
  }

  #isAlive(): boolean {
    return this.#context.pagers.isAlive(this.#client.describe.pagerPid)
  }

  /** `seen`: its process is gone, so that its application is, too. A pager that says that it ends tells its lanes. */
  #end(seen: boolean): void {
    if (this.#ended) return
    this.#ended = true
    this.#records.remove(this.attachment.id, 'home')
    const { probes } = this.#context
    for (const { leaseId } of seen ? this.#machine.leases() : [])
      probes.noteEnded(this.attachment.id, leaseId)
    this.#feed({ kind: 'ended', seen })
    this.#client.close()
    this.#onEnd()
  }
}
