/**
 * Carries out the lender's side of leases in a simulation, at once where agent/executor/lending.ts has to wait for the
 * kernel: the same machine and the same HeldProcess, pagers that start in virtual time, records in memory.
 */

import type { Context } from '../../agent/executor/context.js'
import { EventLoop } from '../../agent/executor/context.js'
import { HeldProcess } from '../../agent/executor/held.js'
import type { LendingMessage } from '../../agent/executor/lending.js'
import type { StretchedHere } from '../../agent/executor/ownership-news.js'
import type { PagerConnection, PagerEvent } from '../../agent/executor/pagers.js'
import type { PeerRecord } from '../../agent/executor/records.js'
import { LeaseLender, type LenderEffect, type LenderEvent } from '../../agent/machines/lease-lender.js'
import type { PeerId, ProcessId } from '../../agent/machines/types.js'
import type { SimPager } from './pager.js'

/** From the decision to a pager that listens. */
const SPAWN_MS_MIN = 20
const SPAWN_MS_MAX = 60

/** What a lender needs of its machine. */
export interface LenderHost {
  /** Pagers for others that run here, whichever agent started them. */
  readonly held: Map<ProcessId, SimPager>
  /** What is remembered over a restart. */
  readonly records: Map<ProcessId, PeerRecord>
  spawn(processId: ProcessId, node: number, memoryPages: number): SimPager | undefined
}

export class SimLending {
  readonly machine: LeaseLender
  readonly #context: Context
  readonly #host: LenderHost
  readonly #loop: EventLoop<LenderEvent, LenderEffect>
  readonly #held = new Map<ProcessId, HeldProcess>()
  readonly #offeredKeys = new Map<ProcessId, Uint8Array>()
  readonly #laneHost: string

  constructor(context: Context, host: LenderHost, capacityPages: number, laneHost: string) {
    this.#context = context
    this.#host = host
    this.#laneHost = laneHost
    this.machine = new LeaseLender(context.facts, capacityPages)
    this.#loop = new EventLoop(
      (event, now) => this.machine.onEvent(event, now),
      effect => this.#carryOut(effect),
      () => context.clock.now(),
    )
  }

  /** Finds the pagers that an agent before this one has started. */
  restore(): void {
    for (const [processId, pager] of this.#host.held) this.#adopt(processId, pager)
  }

  onMessage(peer: PeerId, message: LendingMessage): void {
    if (message.kind === 'offer') {
      const { laneKey, kind: _, ...offer } = message
      if (this.machine.lease(offer.processId) === undefined) this.#offeredKeys.set(offer.processId, laneKey)
      this.#loop.feed({ kind: 'offer', peer, offer, allowed: true })
      if (this.machine.lease(offer.processId) === undefined) this.#offeredKeys.delete(offer.processId)
    } else if (message.kind === 'release') {
      this.#loop.feed({ ...message, peer })
    } else {
      this.#onLaneMessage(peer, message)
    }
  }

  #onLaneMessage(peer: PeerId, message: Exclude<LendingMessage, { kind: 'offer' | 'release' }>): void {
    const { processId } = message
    const held = this.#held.get(processId)
    if (held !== undefined) {
      held.onMessage(peer, message)
    } else if (message.kind === 'lane-ask') {
      const refusal = { code: 'not-allowed', detail: 'that process is not here' } as const
      this.#context.send(peer, { kind: 'lane-refuse', processId, leaseId: message.leaseId, refusal })
    }
  }

  stretched(): StretchedHere[] {
    return [...this.#held.values()].map(held => held.stretched())
  }

  onTick(): void {
    this.#loop.feed({ kind: 'tick' })
    for (const held of this.#held.values()) held.onTick()
  }

  watchUsage(): void {
    for (const [processId, pager] of this.#host.held) {
      if (!this.#held.has(processId)) continue
      this.#loop.feed({ kind: 'usage', processId, residentPages: pager.ownership.counts.residentPages })
    }
  }

  onJoined(peer: PeerId): void {
    for (const lease of this.machine.leases()) {
      const { processId, leaseId } = lease
      if (lease.peer !== peer || lease.state !== 'active') continue
      const terms = this.machine.termsNow(lease)
      this.#context.send(peer, { kind: 'lease-update', processId, leaseId, terms, reason: 'joined again' })
    }
  }

  setCapacity(pages: number): void {
    if (pages !== this.machine.capacityPages) this.#loop.feed({ kind: 'capacity', pages })
  }

  /** Refuses all that is new, and asks for what is held to be fetched. */
  handBack(): void {
    this.#loop.feed({ kind: 'stopping' })
  }

  detach(): void {
    for (const { client } of this.#held.values()) client.close()
  }

  #carryOut(effect: LenderEffect): void {
    switch (effect.kind) {
      case 'start-pager':
        this.#start(effect)
        return
      case 'grant':
        this.#grant(effect)
        return
      case 'refuse': {
        const { peer, processId, leaseId, refusal } = effect
        this.#context.send(peer, { kind: 'refuse', processId, leaseId, refusal })
        return
      }
      case 'update':
        this.#update(effect)
        return
      case 'terminate':
        this.#held.get(effect.processId)?.client.send({ kind: 'terminate', reason: effect.reason })
        return
      case 'kill':
        this.#host.held.get(effect.processId)?.kill()
        this.#loop.feed({ kind: 'pager-gone', processId: effect.processId })
        return
      case 'forget':
        this.#offeredKeys.delete(effect.processId)
        this.#host.records.delete(effect.processId)
        this.#host.held.delete(effect.processId)
        this.#held.get(effect.processId)?.client.close()
        this.#held.delete(effect.processId)
    }
  }

  #start({ offer, pagesMax }: LenderEffect & { kind: 'start-pager' }): void {
    const { clock, rng } = this.#context
    const { processId, node } = offer
    clock.at(clock.now() + rng.between(SPAWN_MS_MIN, SPAWN_MS_MAX), () => {
      const pager = this.#host.spawn(processId, node, pagesMax)
      if (pager === undefined) {
        this.#loop.feed({ kind: 'pager-failed', processId, message: 'it has ended meanwhile' })
        return
      }
      this.#host.held.set(processId, pager)
      this.#hold(processId, pager.connect(), [])
      this.#loop.feed({ kind: 'pager-started', processId })
    })
  }

  #grant({ lease, terms }: LenderEffect & { kind: 'grant' }): void {
    const { processId } = lease
    const laneKey = this.#offeredKeys.get(processId)
    this.#offeredKeys.delete(processId)
    if (laneKey === undefined) return
    this.#save(processId)
    this.#held.get(processId)?.grant(lease, terms, laneKey)
  }

  #update({ lease, terms, reason }: LenderEffect & { kind: 'update' }): void {
    const { leaseId, processId, peer } = lease
    const { pages: pagesMax, threads: threadsMax, ttlMs } = terms
    const client = this.#held.get(processId)?.client
    client?.send({ kind: 'lease-update', leaseId, pagesMax, threadsMax, ttlMs, reason })
    this.#context.send(peer, { kind: 'lease-update', processId, leaseId, terms, reason })
    this.#save(processId)
  }

  #hold(processId: ProcessId, client: PagerConnection, members: PeerRecord['members']): void {
    const held = new HeldProcess(this.#context, processId, {
      client,
      laneHost: this.#laneHost,
      members,
      lanes: [],
      lease: () => this.machine.lease(processId),
      onMembers: () => this.#save(processId),
    })
    this.#held.set(processId, held)
    client.on(event => this.#onPagerEvent(processId, held, event))
  }

  #onPagerEvent(processId: ProcessId, held: HeldProcess, event: PagerEvent): void {
    if (event.kind === 'lane-up' && event.node === 0) this.#loop.feed({ kind: 'lane-up', processId })
    held.onPagerEvent(event)
    if (event.kind === 'exited' && this.#held.get(processId) === held)
      this.#loop.feed({ kind: 'pager-gone', processId })
  }

  #adopt(processId: ProcessId, pager: SimPager): void {
    if (!pager.alive) {
      this.#host.held.delete(processId)
      this.#host.records.delete(processId)
      return
    }
    const record = this.#host.records.get(processId)
    const { memoryPages, node, program, epoch } = pager.describe
    const unknown = { peer: '' as PeerId, leaseId: 0, homeName: 'unknown', threads: 0 }
    const { peer, leaseId, homeName, threads } = record ?? unknown
    const pages = record?.pages ?? memoryPages
    const pagesMax = record?.pagesMax ?? pages
    const lease = { peer, processId, leaseId, program, homeName, node, pages, pagesMax, threads } as const
    this.#loop.feed({ kind: 'restored', lease: { ...lease, residentPages: 0, state: 'active' }, epoch })
    this.#hold(processId, pager.connect(), record?.members ?? [])
  }

  #save(processId: ProcessId): void {
    const lease = this.machine.lease(processId)
    const held = this.#held.get(processId)
    if (lease === undefined || held === undefined || lease.peer === '') return
    const { peer, homeName, program, leaseId, node, pages, pagesMax, threads } = lease
    const owner = { processId, peer, homeName, program, leaseId, node, pages, pagesMax, threads }
    this.#host.records.set(processId, { ...owner, laneHost: held.laneHost, members: [...held.members()] })
  }
}
