/**
 * The lender's side of leases: what this agent has promised to others' elastic processes. Pure; one per agent.
 *
 * Promises are kept in one table, so that the sum of pages (threads, processes) promised never exceeds what the agent
 * lends. A lease counts from the moment its pager is being started until that pager is *gone*: memory is free when
 * nobody has it any more, not when somebody said so.
 *
 * A lease begins with a share of what is free and grows as it fills, always a share of what is then free ahead of what
 * the pager holds: several runs at once each get room, and one big run ends up with nearly everything. A lease that had
 * to shrink because memory was short grows again in the same way. What is promised and not used is thus never much.
 *
 * The pagers renew among themselves over the lane, so nothing here runs out while they do. What this machine ends by
 * itself: a granted lease whose lane never came up, and a released one whose pager does not exit.
 *
 * Limits: one lease per process and agent; 64 processes; capacity is given from outside and may shrink at any time.
 */

import { checkCompatibility } from './compat.js'
import {
  type CompatibilityFacts,
  LEASE_TTL_MS,
  type LeaseTerms,
  NODES_MAX,
  type PeerId,
  type ProcessId,
  type Refusal,
} from './types.js'

/** Less than this is not worth a pager: 1 MiB of 4 KiB pages. */
export const GRANT_PAGES_MIN = 256
export const PROCESSES_MAX = 64
/** What a lease begins with, as a share of what is free. */
const FIRST_SHARE = 1 / 4
/**
 * What a lease is to have ahead of its pages, as a share of what it could have. Home counts as room only what was left
 * at the last status, 100 ms ago, less all it has pushed since: a lease with little ahead drives pages to home's disk
 * (measured: 12 MiB ahead of 70 MiB did, 200 MB/s being pushed and pulled).
 */
const AHEAD_SHARE = 1 / 2
/** Bounds of both, in pages of 4 KiB: 16 MiB, and 1 GiB, which is more than arrives between two looks at the usage. */
export const AHEAD_PAGES_MIN = 4096
const AHEAD_PAGES_MAX = 262_144
/** Of the capacity: growing leases leave it to processes that come later. */
const NEWCOMER_SHARE = 1 / 16
/** Guest threads of all processes together. */
export const THREADS_MAX = 256
/** From the grant to the first lane: dialling plus the pagers' own handshake. */
const LANE_WAIT_MS = 10_000
/** A peer pager exits by itself within 3 s of its lane's end; then it is told. */
const RELEASE_GRACE_MS = 4_000
/** After being told to end, a pager still frees its memory; one that hangs is killed. */
const KILL_GRACE_MS = 3_000
/** Epochs of processes that have ended here, kept against late offers of an older epoch. */
const EPOCHS_MAX = 1024

/** A home agent asks for room. */
export interface Offer {
  readonly processId: ProcessId
  readonly leaseId: number
  readonly program: string
  readonly homeName: string
  readonly node: number
  readonly epoch: number
  readonly pages: number
  readonly threads: number
  readonly facts: CompatibilityFacts
}

export interface HeldLease {
  readonly peer: PeerId
  readonly processId: ProcessId
  readonly leaseId: number
  readonly program: string
  readonly homeName: string
  readonly node: number
  /** Granted now. */
  readonly pages: number
  /** As far as it may grow: what its pager was started for. */
  readonly pagesMax: number
  /** What its pager held when it was last asked. */
  readonly residentPages: number
  readonly threads: number
  readonly state: 'starting' | 'granted' | 'active' | 'releasing'
}

export type LenderEvent =
  | { readonly kind: 'offer'; readonly peer: PeerId; readonly offer: Offer; readonly allowed: boolean }
  | { readonly kind: 'pager-started'; readonly processId: ProcessId }
  | { readonly kind: 'pager-failed'; readonly processId: ProcessId; readonly message: string }
  | { readonly kind: 'pager-gone'; readonly processId: ProcessId }
  | { readonly kind: 'lane-up'; readonly processId: ProcessId }
  | {
      readonly kind: 'release'
      readonly peer: PeerId
      readonly processId: ProcessId
      readonly leaseId: number
      /** Home's agent has seen that the home pager is no more: nobody will fetch what is held. */
      readonly homeEnded: boolean
    }
  | { readonly kind: 'capacity'; readonly pages: number }
  | { readonly kind: 'usage'; readonly processId: ProcessId; readonly residentPages: number }
  | { readonly kind: 'restored'; readonly lease: HeldLease; readonly epoch: number }
  | { readonly kind: 'stopping' }
  | { readonly kind: 'tick' }

export type LenderEffect =
  | { readonly kind: 'start-pager'; readonly peer: PeerId; readonly offer: Offer; readonly pagesMax: number }
  /** Tells the pager to accept home's lane and the home agent that it may dial. */
  | { readonly kind: 'grant'; readonly lease: HeldLease; readonly terms: LeaseTerms }
  | {
      readonly kind: 'refuse'
      readonly peer: PeerId
      readonly processId: ProcessId
      readonly leaseId: number
      readonly refusal: Refusal
    }
  /** New terms for the pager and the home agent; `ttlMs` 0 revokes. */
  | {
      readonly kind: 'update'
      readonly lease: HeldLease
      readonly terms: LeaseTerms
      readonly reason: string
    }
  | { readonly kind: 'terminate'; readonly processId: ProcessId; readonly reason: string }
  /** The pager was told to end and did not. */
  | { readonly kind: 'kill'; readonly processId: ProcessId }
  | { readonly kind: 'forget'; readonly processId: ProcessId }

type Entry = { -readonly [K in keyof HeldLease]: HeldLease[K] } & {
  since: number
  told: 'no' | 'end' | 'kill'
}

export class LeaseLender {
  readonly #facts: CompatibilityFacts
  readonly #leases = new Map<ProcessId, Entry>()
  readonly #epochs = new Map<ProcessId, number>()
  /** What the capacity is while the machine is not short of memory. */
  readonly #allowedPages: number
  #capacityPages: number
  #stopping = false

  constructor(facts: CompatibilityFacts, capacityPages: number) {
    this.#facts = facts
    this.#allowedPages = capacityPages
    this.#capacityPages = capacityPages
  }

  get capacityPages(): number {
    return this.#capacityPages
  }

  /** Pages not promised; never negative, also right after the capacity shrank below what is promised. */
  get freePages(): number {
    return this.#stopping ? 0 : Math.max(0, this.#capacityPages - this.#sum('pages'))
  }

  /** Pages that are promised, and how many of them are in use. */
  get promised(): { promisedPages: number; residentPages: number } {
    return { promisedPages: this.#sum('pages'), residentPages: this.#sum('residentPages') }
  }

  leases(): HeldLease[] {
    return [...this.#leases.values()]
  }

  lease(processId: ProcessId): HeldLease | undefined {
    return this.#leases.get(processId)
  }

  /** What a lease is worth now, for those who may have missed it: nothing more while the agent is shutting down. */
  termsNow(lease: HeldLease): LeaseTerms {
    return this.#stopping ? { ...termsOf(lease), ttlMs: 0 } : termsOf(lease)
  }

  onEvent(event: LenderEvent, now: number): LenderEffect[] {
    switch (event.kind) {
      case 'offer':
        return this.#onOffer(event.peer, event.offer, event.allowed, now)
      case 'pager-started':
        return this.#onStarted(event.processId, now)
      case 'pager-failed':
        return this.#onFailed(event.processId, event.message)
      case 'pager-gone':
        return this.#onGone(event.processId)
      case 'lane-up':
        return this.#onLaneUp(event.processId)
      case 'release':
        return this.#onRelease(event, now)
      case 'capacity':
        return this.#onCapacity(event.pages)
      case 'usage':
        return this.#onUsage(event.processId, event.residentPages)
      case 'restored':
        return this.#onRestored(event.lease, event.epoch, now)
      case 'stopping':
        return this.#onStopping()
      case 'tick':
        return this.#onTick(now)
    }
  }

  #onOffer(peer: PeerId, offer: Offer, allowed: boolean, now: number): LenderEffect[] {
    const refusal = this.#judge(peer, offer, allowed)
    const { processId, leaseId, program, homeName, node } = offer
    if (refusal !== undefined) return [{ kind: 'refuse', peer, processId, leaseId, refusal }]
    const pagesMax = Math.min(offer.pages, this.#allowedPages)
    const pages = Math.min(pagesMax, this.freePages, bounded(this.freePages * FIRST_SHARE))
    const threads = Math.min(offer.threads, THREADS_MAX - this.#sum('threads'))
    const state = 'starting'
    const lease: Entry = {
      peer,
      processId,
      leaseId,
      program,
      homeName,
      node,
      pages,
      pagesMax,
      residentPages: 0,
      threads,
      state,
      since: now,
      told: 'no',
    }
    this.#leases.set(processId, lease)
    this.#rememberEpoch(processId, offer.epoch)
    return [{ kind: 'start-pager', peer, offer, pagesMax }]
  }

  #judge(peer: PeerId, offer: Offer, allowed: boolean): Refusal | undefined {
    if (!allowed) return { code: 'not-allowed', detail: `${peer} is not on the --allow list` }
    if (this.#stopping) return { code: 'shutting-down', detail: '' }
    if (offer.node < 1 || offer.node >= NODES_MAX)
      return { code: 'not-allowed', detail: `node index ${offer.node}` }
    const epoch = this.#epochs.get(offer.processId)
    if (epoch !== undefined && offer.epoch < epoch) {
      return { code: 'stale-epoch', detail: `epoch ${offer.epoch}, ${epoch} was seen` }
    }
    if (this.#leases.has(offer.processId)) return { code: 'already-participant', detail: '' }
    const fit = checkCompatibility(offer.facts, this.#facts)
    if (fit.kind === 'refused') return fit.refusal
    if (this.#leases.size >= PROCESSES_MAX) {
      return { code: 'too-many-processes', detail: `${this.#leases.size} are held here` }
    }
    if (this.freePages < GRANT_PAGES_MIN) return { code: 'full', detail: `${this.freePages} pages free` }
    return undefined
  }

  #onStarted(processId: ProcessId, now: number): LenderEffect[] {
    const lease = this.#leases.get(processId)
    if (lease === undefined) return [{ kind: 'terminate', processId, reason: 'no lease' }]
    if (lease.state === 'releasing') {
      // Released while it was being started: whatever was said to it before, it could not hear.
      Object.assign(lease, { told: 'end', since: now })
      return [{ kind: 'terminate', processId, reason: 'the lease was released' }]
    }
    if (lease.state !== 'starting') return []
    lease.state = 'granted'
    lease.since = now
    return [{ kind: 'grant', lease: { ...lease }, terms: termsOf(lease) }]
  }

  #onFailed(processId: ProcessId, message: string): LenderEffect[] {
    const lease = this.#leases.get(processId)
    if (lease === undefined) return []
    this.#leases.delete(processId)
    const { peer, leaseId } = lease
    const refusal: Refusal = { code: 'pager-failed', detail: message.slice(0, 200) }
    const forget: LenderEffect = { kind: 'forget', processId }
    return lease.state === 'starting'
      ? [{ kind: 'refuse', peer, processId, leaseId, refusal }, forget]
      : [forget]
  }

  #onGone(processId: ProcessId): LenderEffect[] {
    if (this.#leases.get(processId)?.state === 'starting')
      return this.#onFailed(processId, 'the pager ended early')
    return this.#leases.delete(processId) ? [{ kind: 'forget', processId }] : []
  }

  #onLaneUp(processId: ProcessId): LenderEffect[] {
    const lease = this.#leases.get(processId)
    if (lease?.state === 'granted') lease.state = 'active'
    return []
  }

  /** A pager whose home goes on without it, or has only been cut off, ends by itself, as its lane says. */
  #onRelease(event: LenderEvent & { kind: 'release' }, now: number): LenderEffect[] {
    const { peer, processId, leaseId, homeEnded } = event
    const lease = this.#leases.get(processId)
    if (lease === undefined || lease.peer !== peer || lease.leaseId !== leaseId) return []
    if (lease.state !== 'releasing') {
      const early = lease.state === 'starting'
      lease.state = 'releasing'
      lease.since = early ? now - RELEASE_GRACE_MS : now
    }
    if (!homeEnded || lease.told !== 'no') return []
    Object.assign(lease, { told: 'end', since: now })
    return [{ kind: 'terminate', processId, reason: 'its home has ended' }]
  }

  /** Capacity fell below what is promised: every lease gives in proportion, none below nothing. */
  #onCapacity(pages: number): LenderEffect[] {
    this.#capacityPages = pages
    const promised = this.#sum('pages')
    if (promised <= pages) return []
    const effects: LenderEffect[] = []
    for (const lease of this.#leases.values()) {
      const shrunk = Math.floor((lease.pages * pages) / promised)
      if (lease.state === 'releasing' || shrunk === lease.pages) continue
      lease.pages = shrunk
      if (lease.state === 'starting') continue // the grant will say so
      effects.push({
        kind: 'update',
        lease: { ...lease },
        terms: termsOf(lease),
        reason: 'less memory is free here',
      })
    }
    return effects
  }

  /** A quarter of what a lease should have ahead is used up: it gets it back, as far as there is room. */
  #onUsage(processId: ProcessId, residentPages: number): LenderEffect[] {
    const lease = this.#leases.get(processId)
    if (lease === undefined) return []
    lease.residentPages = residentPages
    const unused = lease.pages - residentPages
    const ahead = bounded((this.freePages + Math.max(0, unused)) * AHEAD_SHARE)
    if (this.#stopping || lease.state !== 'active' || unused > (ahead * 3) / 4) return []
    const room = Math.floor(this.freePages - this.#capacityPages * NEWCOMER_SHARE)
    const pages = Math.min(lease.pagesMax, residentPages + ahead, lease.pages + room)
    if (pages < Math.min(lease.pagesMax, lease.pages + GRANT_PAGES_MIN) || pages <= lease.pages) return []
    lease.pages = pages
    return [{ kind: 'update', lease: { ...lease }, terms: termsOf(lease), reason: 'it is nearly used up' }]
  }

  /** A pager that was running before this agent: it counts, and with the next tick all of them fit. */
  #onRestored(lease: HeldLease, epoch: number, now: number): LenderEffect[] {
    if (this.#leases.has(lease.processId)) return []
    this.#leases.set(lease.processId, { ...lease, state: 'active', since: now, told: 'no' })
    this.#rememberEpoch(lease.processId, epoch)
    return []
  }

  #onStopping(): LenderEffect[] {
    this.#stopping = true
    return [...this.#leases.values()]
      .filter(lease => lease.state === 'active' || lease.state === 'granted')
      .map(lease => ({
        kind: 'update',
        lease: { ...lease },
        terms: { ...termsOf(lease), ttlMs: 0 },
        reason: 'the agent is shutting down',
      }))
  }

  #onTick(now: number): LenderEffect[] {
    const effects = this.#onCapacity(this.#capacityPages)
    for (const lease of this.#leases.values()) {
      const waitedMs = now - lease.since
      const { processId } = lease
      if (lease.told === 'end' && waitedMs >= KILL_GRACE_MS) {
        effects.push({ kind: 'kill', processId })
        lease.told = 'kill'
      } else if (lease.told === 'no' && lease.state === 'granted' && waitedMs >= LANE_WAIT_MS) {
        effects.push({ kind: 'terminate', processId, reason: 'no lane came up' })
        Object.assign(lease, { state: 'releasing', told: 'end', since: now })
      } else if (lease.told === 'no' && lease.state === 'releasing' && waitedMs >= RELEASE_GRACE_MS) {
        effects.push({ kind: 'terminate', processId, reason: 'the lease was released' })
        Object.assign(lease, { told: 'end', since: now })
      }
    }
    return effects
  }

  #rememberEpoch(processId: ProcessId, epoch: number): void {
    this.#epochs.delete(processId)
    this.#epochs.set(processId, epoch)
    if (this.#epochs.size > EPOCHS_MAX) {
      const oldest = this.#epochs.keys().next()
      if (!oldest.done) this.#epochs.delete(oldest.value)
    }
  }

  #sum(field: 'pages' | 'threads' | 'residentPages'): number {
    let sum = 0
    for (const lease of this.#leases.values()) sum += lease[field]
    return sum
  }
}

function bounded(pages: number): number {
  return Math.min(AHEAD_PAGES_MAX, Math.max(AHEAD_PAGES_MIN, Math.floor(pages)))
}

function termsOf(lease: { pages: number; threads: number }): LeaseTerms {
  return { pages: lease.pages, threads: lease.threads, ttlMs: LEASE_TTL_MS }
}
