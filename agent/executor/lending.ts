/**
 * Carries out the lender's side of leases: starts and ends peer pagers as the machine says, answers home agents, and
 * finds running pagers again after a restart.
 *
 * Limits: those of the machine; a pager without a record (its agent died between start and grant) counts with all
 * the memory it may use and ends by itself when no lane comes.
 */

import { networkInterfaces } from 'node:os'
import { type HeldLease, LeaseLender, type LenderEffect, type LenderEvent } from '../machines/lease-lender.js'
import { type PeerId, type ProcessId, toProcessId } from '../machines/types.js'
import { laneListenHost } from '../net/address.js'
import type { PeerMessage } from '../net/messages.js'
import { every, sleep, type Timer } from '../ports/clock.js'
import { type Context, EventLoop } from './context.js'
import { type HeldOptions, HeldProcess, type LaneMessage } from './held.js'
import type { StretchedHere } from './ownership-news.js'
import type { PagerConnection, PagerEvent } from './pagers.js'
import { reconnect } from './reconnect.js'
import type { Records } from './records.js'
import { clearDeadSockets, clearPeerPager, clearRecords } from './remains.js'

type OfferMessage = Extract<PeerMessage, { kind: 'offer' }>
export type LendingMessage = OfferMessage | Extract<PeerMessage, { kind: 'release' }> | LaneMessage

const HAND_BACK_LOOK_MS = 20
/** Only while something is held. */
const USAGE_MS = 200

/** What there is to lend, to all processes together. */
export interface Lent {
  readonly capacityPages: number
  /** Processor time, in thousandths of one processor's. */
  readonly processorThousandths: number
}

export class Lending {
  readonly #context: Context
  readonly #records: Records
  readonly #machine: LeaseLender
  readonly #loop: EventLoop<LenderEvent, LenderEffect>
  readonly #held = new Map<ProcessId, HeldProcess>()
  #usage: Timer | undefined
  /** Keys of offers whose pager is being started. */
  readonly #offeredKeys = new Map<ProcessId, Uint8Array>()
  /** Pagers that have not yet answered how much they hold. */
  readonly #asked = new Set<ProcessId>()
  readonly #allow: readonly PeerId[]
  readonly #processorThousandths: number
  #detached = false

  constructor(context: Context, records: Records, lent: Lent, allow: readonly PeerId[]) {
    this.#context = context
    this.#records = records
    this.#allow = allow
    this.#processorThousandths = lent.processorThousandths
    this.#machine = new LeaseLender(context.facts, lent.capacityPages)
    this.#loop = new EventLoop(
      (event, now) => this.#machine.onEvent(event, now),
      effect => this.#carryOut(effect),
      () => context.clock.now(),
    )
  }

  get freePages(): number {
    return this.#machine.freePages
  }

  get promised(): { promisedPages: number; residentPages: number } {
    return this.#machine.promised
  }

  held(): { lease: HeldLease; process: HeldProcess }[] {
    return this.#machine.leases().flatMap(lease => {
      const process = this.#held.get(lease.processId)
      return process === undefined ? [] : [{ lease, process }]
    })
  }

  stretched(): StretchedHere[] {
    return [...this.#held.values()].map(held => held.stretched())
  }

  get(processId: ProcessId): HeldProcess | undefined {
    return this.#held.get(processId)
  }

  /** Finds the peer pagers that an agent before this one has started. */
  async restore(): Promise<void> {
    await clearDeadSockets(this.#context)
    for (const path of await this.#context.pagers.list(this.#context.runtimeDir)) {
      if (!path.includes('.peer.')) continue
      try {
        this.#adopt(path, await this.#context.pagers.connect(path))
      } catch (error) {
        this.#context.log.warn(`the pager at ${path} does not answer: ${String(error)}`)
      }
    }
    clearRecords(this.#context, this.#records, id => this.#held.has(id))
  }

  onMessage(peer: PeerId, message: LendingMessage): void {
    switch (message.kind) {
      case 'offer':
        this.#onOffer(peer, message)
        return
      case 'release':
        this.#loop.feed({ ...message, peer })
        return
      default: {
        const held = this.#held.get(message.processId)
        if (held !== undefined) {
          held.onMessage(peer, message)
          return
        }
        if (message.kind !== 'lane-ask') return
        const { processId, leaseId } = message
        const refusal = { code: 'not-allowed', detail: 'that process is not here' } as const
        this.#context.send(peer, { kind: 'lane-refuse', processId, leaseId, refusal })
      }
    }
  }

  onTick(): void {
    this.#loop.feed({ kind: 'tick' })
    for (const held of this.#held.values()) held.onTick()
    if (this.#held.size > 0) this.#usage ??= every(this.#context.clock, USAGE_MS, () => this.#watchUsage())
    else this.#usage = void this.#usage?.cancel()
  }

  /** Asks the pagers how much they hold: leases grow as they fill. */
  #watchUsage(): void {
    for (const [processId, { client }] of this.#held) {
      if (this.#asked.has(processId)) continue
      this.#asked.add(processId)
      client
        .requestStats()
        .then(({ residentPages }) => {
          if (residentPages !== undefined) this.#loop.feed({ kind: 'usage', processId, residentPages })
        })
        .catch((error: unknown) => this.#context.log.debug(`${processId}: no statistics: ${String(error)}`))
        .finally(() => this.#asked.delete(processId))
    }
  }

  /** A stream to `peer` is open (again): its home agent may have missed what its leases are now. */
  onJoined(peer: PeerId): void {
    for (const lease of this.#machine.leases()) {
      const { processId, leaseId } = lease
      if (lease.peer !== peer || lease.state !== 'active') continue
      const terms = this.#machine.termsNow(lease)
      this.#context.send(peer, { kind: 'lease-update', processId, leaseId, terms, reason: 'joined again' })
    }
  }

  setCapacity(pages: number): void {
    if (pages !== this.#machine.capacityPages) this.#loop.feed({ kind: 'capacity', pages })
  }

  /** Refuses all that is new, asks for what is held to be fetched, and waits until it is or `timeoutMs` are over. */
  async handBack(timeoutMs: number): Promise<void> {
    this.#loop.feed({ kind: 'stopping' })
    const { clock } = this.#context
    const deadline = clock.now() + timeoutMs
    while (this.#machine.leases().length > 0 && clock.now() < deadline) await sleep(clock, HAND_BACK_LOOK_MS)
  }

  /** Lets pagers that are left run on without this agent. */
  detach(): void {
    this.#detached = true
    this.#usage?.cancel()
    for (const held of this.#held.values()) held.client.close()
  }

  #onOffer(peer: PeerId, message: OfferMessage): void {
    const { laneKey, kind: _, ...offer } = message
    const allowed = this.#allow.length === 0 || this.#allow.includes(peer)
    if (this.#machine.lease(offer.processId) === undefined) this.#offeredKeys.set(offer.processId, laneKey)
    this.#loop.feed({ kind: 'offer', peer, offer, allowed })
    if (this.#machine.lease(offer.processId) === undefined) this.#offeredKeys.delete(offer.processId)
  }

  #carryOut(effect: LenderEffect): void {
    switch (effect.kind) {
      case 'start-pager':
        void this.#start(effect)
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
        this.#context.log.info(`${effect.processId}: pager told to end: ${effect.reason}`)
        this.#held.get(effect.processId)?.client.send({ kind: 'terminate', reason: effect.reason })
        return
      case 'kill':
        this.#kill(effect.processId)
        return
      case 'forget':
        this.#forget(effect.processId)
        return
    }
  }

  async #start(effect: LenderEffect & { kind: 'start-pager' }): Promise<void> {
    const { offer, peer, pagesMax } = effect
    const { processId: id, node } = offer
    const { name, runtimeDir, dataDir, spillMaxBytes } = this.#context
    const remote = this.#context.hostOf(peer)
    const listenHost = laneListenHost(this.#context.listenHosts, remote, networkInterfaces())
    try {
      const { client, socketPath } = await this.#context.pagers.spawnPeer({
        id,
        runtimeDir,
        dataDir,
        agentName: name,
        node,
        nodeName: name,
        listenHost,
        memoryPages: pagesMax,
        spillMaxBytes,
      })
      this.#hold(id, socketPath, client, { laneHost: listenHost, members: [], lanes: [] })
      if (client.describe.lanePort === 0) throw new Error('the pager listens for no lanes')
      this.#loop.feed({ kind: 'pager-started', processId: id })
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error)
      this.#context.log.warn(`${id}: no pager for ${offer.homeName}: ${message}`)
      this.#held.get(id)?.client.send({ kind: 'terminate', reason: message })
      this.#loop.feed({ kind: 'pager-failed', processId: id, message: message.replace(/\p{Cc}/gu, ' ') })
    }
  }

  #grant(effect: LenderEffect & { kind: 'grant' }): void {
    const { processId } = effect.lease
    const held = this.#held.get(processId)
    const laneKey = this.#offeredKeys.get(processId)
    this.#offeredKeys.delete(processId)
    if (held === undefined || laneKey === undefined) return
    this.#save(processId)
    held.grant(effect.lease, effect.terms, laneKey)
    const { homeName, program } = effect.lease
    this.#context.log.info(`${processId}: ${effect.terms.pages} pages lent to ${homeName} for ${program}`)
  }

  #update(effect: LenderEffect & { kind: 'update' }): void {
    const { lease, terms, reason } = effect
    const { leaseId, processId } = lease
    const { pages: pagesMax, threads: threadsMax, ttlMs } = terms
    const client = this.#held.get(processId)?.client
    client?.send({ kind: 'lease-update', leaseId, pagesMax, threadsMax, ttlMs, reason })
    this.#context.send(lease.peer, { kind: 'lease-update', processId, leaseId, terms, reason })
    this.#save(processId)
  }

  #kill(processId: ProcessId): void {
    const pid = this.#held.get(processId)?.client.describe.pagerPid
    if (pid === undefined) return
    this.#context.log.warn(`${processId}: pager ${pid} does not end and is killed`)
    this.#context.pagers.kill(pid)
  }

  #forget(processId: ProcessId): void {
    this.#offeredKeys.delete(processId)
    this.#records.remove(processId, 'peer')
    const held = this.#held.get(processId)
    this.#held.delete(processId)
    held?.client.close()
    this.#shareProcessors()
    void clearPeerPager(this.#context, processId)
  }

  /** Each process may use as much as any other; what one leaves unused no other gets. */
  #shareProcessors(): void {
    const thousandths = Math.max(1, Math.floor(this.#processorThousandths / Math.max(1, this.#held.size)))
    for (const { client } of this.#held.values()) client.send({ kind: 'processors', thousandths })
  }

  #hold(
    processId: ProcessId,
    socketPath: string,
    client: PagerConnection,
    known: Pick<HeldOptions, 'laneHost' | 'members' | 'lanes'>,
  ): void {
    const held = new HeldProcess(this.#context, processId, {
      ...known,
      client,
      lease: () => this.#machine.lease(processId),
      onMembers: () => this.#save(processId),
    })
    this.#held.set(processId, held)
    this.#shareProcessors()
    client.on(event => this.#onPagerEvent(processId, held, event))
    client.onClose(() => void this.#onClose(processId, socketPath, held))
  }

  #onPagerEvent(processId: ProcessId, held: HeldProcess, event: PagerEvent): void {
    if (event.kind === 'lane-up' && event.node === 0) this.#loop.feed({ kind: 'lane-up', processId })
    if (event.kind === 'log' && event.level !== 'debug') {
      this.#context.log.info(`${processId}: pager: ${event.text}`)
    }
    if (event.kind === 'exited') this.#context.log.info(`${processId}: pager ended: ${event.message}`)
    held.onPagerEvent(event)
  }

  /** The pager has ended, or only the connection: then it goes on with a new one. */
  async #onClose(processId: ProcessId, socketPath: string, held: HeldProcess): Promise<void> {
    const isOver = () => this.#detached || this.#held.get(processId) !== held
    if (isOver()) return
    const { log, pagers } = this.#context
    const { pagerPid } = held.client.describe
    const client = held.exited ? undefined : await reconnect(this.#context, socketPath, pagerPid)
    if (isOver()) {
      client?.close()
      return
    }
    if (client === undefined) {
      if (!held.exited && !pagers.isAlive(pagerPid)) this.#attest(processId, held)
      this.#loop.feed({ kind: 'pager-gone', processId })
      return
    }
    log.info(`${processId}: connected to its pager again`)
    const { laneHost } = held
    this.#hold(processId, socketPath, client, { laneHost, members: held.members(), lanes: held.lanes() })
    const lease = this.#machine.lease(processId)
    if (lease?.state !== 'active') return
    const { pages: pagesMax, threads: threadsMax, ttlMs } = this.#machine.termsNow(lease)
    const { leaseId } = lease
    const reason = 'connected again'
    client.send({ kind: 'lease-update', leaseId, pagesMax, threadsMax, ttlMs, reason })
  }

  /** It ended without a word: those at the other ends of its lanes hear it from here. */
  #attest(processId: ProcessId, held: HeldProcess): void {
    for (const { peer, leaseId } of held.allLanes()) {
      this.#context.probes.noteEnded(processId, leaseId)
      this.#context.send(peer, { kind: 'pager-ended', processId, leaseId })
    }
  }

  #adopt(socketPath: string, client: PagerConnection): void {
    const { id, memoryPages, node, program, epoch } = client.describe
    const processId = toProcessId(id)
    if (processId === undefined || this.#held.has(processId)) {
      client.close()
      return
    }
    const record = this.#records.peer(processId)
    const unknown = { peer: '' as PeerId, leaseId: 0, homeName: 'unknown', threads: 0 }
    const { peer, leaseId, homeName, threads } = record ?? unknown
    const pages = record?.pages ?? memoryPages
    const pagesMax = record?.pagesMax ?? pages
    const base = { peer, processId, leaseId, program: record?.program ?? program, homeName, node }
    this.#loop.feed({
      kind: 'restored',
      lease: { ...base, pages, pagesMax, residentPages: 0, threads, state: 'active' },
      epoch,
    })
    const { laneHost, members } = record ?? { laneHost: '', members: [] }
    this.#hold(processId, socketPath, client, { laneHost, members, lanes: [] })
    this.#context.log.info(`${processId}: found its pager again (pid ${client.describe.pagerPid})`)
  }

  #save(processId: ProcessId): void {
    const lease = this.#machine.lease(processId)
    const held = this.#held.get(processId)
    if (lease === undefined || held === undefined || lease.peer === '') return
    const { peer, homeName, program, leaseId, node, pages, pagesMax, threads } = lease
    const { laneHost } = held
    const members = [...held.members()]
    const owner = { processId, peer, homeName, program, leaseId, node }
    this.#records.savePeer({ ...owner, pages, pagesMax, threads, laneHost, members })
  }
}
