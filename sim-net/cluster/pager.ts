/**
 * One simulated pager: the twin of the ownership rules, with what the real pager has around it: lanes, leases, room,
 * guest threads, contraction and ends. The agent talks to it as to a real one (agent/executor/pagers.ts).
 *
 * Limits: the application's kernel is not modelled, nor exec, fork, signals and spill I/O: a page on the disk is there.
 */

import type { Describe, PagerCommand, PagerConnection, PagerEvent } from '../../agent/executor/pagers.js'
import { Ownership } from '../../kmod/ownership/ownership.js'
import { StreamPrefetch } from '../../kmod/ownership/prefetch.js'
import type { Effect, PageFrame, PageMeta } from '../../kmod/ownership/types.js'
import { HOME, type NodeIndex, type PageNumber, type ThreadId } from '../../placement/ids.js'
import { type Micros, micros } from '../../placement/units.js'
import type { SimHost } from '../host.js'
import { SimConnection } from './connection.js'
import { Guests } from './guests.js'
import { type LaneEnd, type LaneFrame, SILENT_MS } from './lane.js'
import { type LaneCommand, Lanes } from './lanes.js'
import { obeyOwnership } from './owned.js'
import type { SimProcess } from './process.js'
import { Room } from './room.js'
import type { Site } from './site.js'

const STATUS_MS = 100
/** A tick that is later than this was held up: nobody is taken for silent then. */
const LATE_MS = 300
/** Home asks for so many pages at a time of a participant that leaves. */
const FETCH_ROOM = 256
/** A participant asks its agent for a lane at most so often. */
const WANT_MS = 1_000
const COMMAND_MS = 0.05
/** Longer than its agent waits. */
const LANE_WAIT_MS = 15_000

export class SimPager {
  readonly node: NodeIndex
  readonly ownership: Ownership
  readonly room: Room
  readonly guests: Guests
  readonly lanes = new Map<NodeIndex, LaneEnd>()
  /** Home: where threads are that have left. */
  readonly away = new Map<ThreadId, NodeIndex>()
  alive = true
  /** A participant that gives everything back. */
  draining = false
  /** Home: participants that are to leave. */
  readonly leaving = new Set<NodeIndex>()
  readonly #lanes: Lanes
  readonly #wantedAt = new Map<NodeIndex, number>()
  #connection: SimConnection | undefined
  #tickDue = 0
  /** A participant without any lane then ends. */
  readonly #lanesDueAt: number

  constructor(
    readonly site: Site,
    readonly host: SimHost,
    readonly describe: Describe,
    readonly process: SimProcess,
  ) {
    this.node = describe.node as NodeIndex
    const { first, pages } = process.plan.program
    const region = { first, end: (first + pages) as PageNumber }
    this.room = new Room(this, describe.memoryPages)
    this.ownership = new Ownership({
      self: this.node,
      regionOf: page => (page >= region.first && page < region.end ? region : undefined),
      threadsStay: process.plan.policy.name === 'always-pull' && process.plan.jumpEvery === 0,
      prefetch: this.room.bounded(new StreamPrefetch()),
    })
    this.ownership.threadsHere = false
    this.guests = new Guests(this)
    this.#lanes = new Lanes(this)
    process.pagers.add(this)
    this.#tickDue = site.clock.now()
    this.#lanesDueAt = this.#tickDue + LANE_WAIT_MS
    this.#tick()
  }

  get now(): Micros {
    return micros(Math.floor(this.site.clock.now() * 1000))
  }

  get title(): string {
    return `${this.process.title} at ${this.host.name} (node ${this.node})`
  }

  /** Acts unless the pager is gone by then; while its host is stalled nothing happens. */
  later(ms: number, act: () => void): void {
    const { clock } = this.site
    const due = () => {
      if (!this.alive) return
      if (this.host.stalled) clock.at(clock.now() + 5, due)
      else act()
    }
    clock.at(clock.now() + ms, due)
  }

  /** A new connection of the agent on this host; the one before it has ended. */
  connect(): PagerConnection {
    this.#connection?.close()
    this.#connection = new SimConnection(this)
    // As the real one: who connects is told which lanes are up.
    this.later(COMMAND_MS, () => {
      for (const lane of this.lanes.values()) this.emit(laneUp(lane))
    })
    return this.#connection
  }

  emit(event: PagerEvent): void {
    if (this.host.isUp) this.#connection?.emit(event)
  }

  onCommand(command: PagerCommand): void {
    this.later(COMMAND_MS, () => this.#obey(command))
  }

  /** The lane that the agent has announced with that key. */
  accepts(laneKey: Uint8Array, node: NodeIndex): LaneCommand | undefined {
    return this.#lanes.accept(laneKey, node)
  }

  onFrame(lane: LaneEnd, frame: LaneFrame, bulk: boolean): void {
    switch (frame.kind) {
      case 'page':
        this.#onPage(lane, frame.frame)
        return
      case 'status':
        lane.mayPush = Math.max(lane.mayPush, frame.window)
        lane.lease.expiresAt = this.site.clock.now() + 10_000
        return
      case 'thread':
        this.#onThread(frame.context, frame.to)
        return
      default:
        this.#lanes.onFrame(lane, frame, bulk)
    }
  }

  /** Carries out what the rules of ownership want. */
  run(effects: readonly Effect[]): void {
    for (const effect of effects) if (effect.kind === 'send') this.#send(effect.to, effect.bulk, effect.frame)
    for (const effect of effects) this.#carryOut(effect)
  }

  /** Whether pages and threads may go there. */
  mayUse(lane: LaneEnd): boolean {
    if (this.node !== HOME) return true
    const { revoked, expiresAt } = lane.lease
    return !revoked && this.site.clock.now() < expiresAt && !this.leaving.has(lane.node)
  }

  holds(page: PageNumber): boolean {
    const { state, version } = this.ownership.page(page)
    return (state === 'resident' || state === 'spilled') && this.process.isAlive(page, version)
  }

  note(what: string, to: NodeIndex, detail: string): void {
    const other = this.lanes.get(to)?.other.pager.host.number ?? -1
    this.site.network.trace.note(this.site.clock.now(), what, this.host.number, other, detail)
  }

  onLaneUp(lane: LaneEnd): void {
    this.lanes.set(lane.node, lane)
    this.ownership.onLaneUp(lane.node)
    this.note('lane-up', lane.node, this.node === HOME || lane.node === HOME ? '' : 'between participants')
    this.#status()
    this.emit(laneUp(lane))
  }

  /** The lane is no more: `clean` if the participant was empty. */
  onLaneEnded(lane: LaneEnd, reason: string, clean: boolean): void {
    if (this.lanes.get(lane.node) !== lane) return
    this.lanes.delete(lane.node)
    lane.isOpen = false
    this.note('lane-down', lane.node, reason)
    if (this.node === HOME) this.#onParticipantLost(lane, reason, clean)
    else if (lane.node === HOME) this.exit(reason)
    else this.#onNeighbourLost(lane, reason, clean)
  }

  /** The run ends at home with an error; `reason` "" is its own end. */
  end(reason: string): void {
    if (!this.process.runs) return
    this.process.ended = reason
    this.note(reason === '' ? 'finished' : 'failed', HOME, reason)
    this.exit(reason)
  }

  /** In order: all that is held is given up, and everybody is told. */
  exit(message: string): void {
    if (!this.alive) return
    for (const lane of this.lanes.values()) lane.close()
    this.emit({ kind: 'exited', how: 'exit', code: 0, childrenLeft: 0, message })
    this.#gone()
  }

  /** Without a word. */
  kill(): void {
    if (!this.alive) return
    for (const lane of this.lanes.values()) lane.vanish()
    if (this.node === HOME) this.process.ended ??= 'its host crashed'
    this.#gone()
  }

  #gone(): void {
    this.alive = false
    this.process.pagers.delete(this)
    this.lanes.clear()
  }

  #obey(command: PagerCommand): void {
    switch (command.kind) {
      case 'lane':
        this.#lanes.make(command)
        return
      case 'lease-update':
        this.#lanes.update(command)
        return
      case 'participant-drop':
        if (this.site.planted !== 'keeps-a-lease') this.#lanes.drop(command.node as NodeIndex)
        return
      case 'terminate':
        this.exit(command.reason)
        return
      default:
        obeyOwnership(this, command)
    }
  }

  #send(to: NodeIndex, bulk: boolean, frame: PageFrame): void {
    const lane = this.lanes.get(to)
    if (lane === undefined || (frame.type === 'drop' && this.site.planted === 'sends-no-drops')) return
    if (frame.type === 'push') {
      const pages = frame.metas.filter(carriesPage).length
      lane.pushed += pages
      this.process.pushes += pages
    }
    if (frame.type === 'get' && frame.byHint) this.process.askedByHint++
    lane.send(bulk, { kind: 'page', frame })
    if (this.site.planted === 'keeps-given-pages') this.#plant(frame)
    this.site.checks.onFrame(this, frame)
  }

  /** For the test of the checks: a page that was given away is here again, now and then. */
  #plant(frame: PageFrame): void {
    if (frame.type !== 'pages' || frame.kept || !this.site.rng.chance(0.01)) return
    const meta = frame.metas.find(carriesPage)
    if (meta === undefined) return
    const again = { ...meta, version: (meta.version + 1) as PageMeta['version'] }
    this.later(1, () => this.run(this.ownership.onFrame(HOME, { type: 'push', metas: [again] }, this.now)))
  }

  #carryOut(effect: Effect): void {
    switch (effect.kind) {
      case 'send':
        return
      case 'wake':
        this.#noteResident(effect.page)
        this.guests.wake(effect.page)
        return
      case 'watched':
        this.guests.wake(effect.page)
        return
      case 'go-home':
        this.guests.goHome(effect.page)
        return
      case 'want-lane':
        this.#wantLane(effect.node)
        return
      case 'lost':
        this.end(`page ${effect.page} belongs to a node that is gone`)
        return
      case 'timer':
        this.later(Math.max(0, (effect.at - this.now) / 1000), () =>
          this.run(this.ownership.onTime(this.now)),
        )
    }
  }

  #noteResident(page: PageNumber): void {
    if (this.ownership.page(page).state !== 'resident') return
    this.room.note(page)
    this.site.checks.onPage(this, page)
  }

  #onPage(lane: LaneEnd, frame: PageFrame): void {
    if (frame.type === 'push') {
      lane.received += frame.metas.filter(carriesPage).length
      this.site.checks.onPush(this, lane)
    }
    const metas = frame.type === 'pages' || frame.type === 'push' ? frame.metas : []
    this.ownership.keepsCopies = this.room.free > metas.length
    this.run(this.ownership.onFrame(lane.node, this.#maybeForgetful(frame), this.now))
    for (const { page } of metas) this.#noteResident(page)
    if (this.room.free < 0) this.room.make(0)
    this.site.checks.onMemory(this)
  }

  /** For the test of the checks: a page that is pushed here never arrives, now and then. */
  #maybeForgetful(frame: PageFrame): PageFrame {
    if (this.site.planted !== 'forgets-a-page' || frame.type !== 'push') return frame
    return this.site.rng.chance(0.05) ? { ...frame, metas: frame.metas.slice(1) } : frame
  }

  #onThread(context: ThreadContextFrame, to: NodeIndex): void {
    if (this.node !== HOME) {
      if (this.guests.mayHost) this.guests.arrive({ ...context }, true)
      else this.lanes.get(HOME)?.send(false, { kind: 'thread', context, to: HOME })
      return
    }
    const lane = this.lanes.get(to)
    if (to !== HOME && lane !== undefined && this.mayUse(lane)) {
      this.away.set(context.thread, to)
      lane.send(false, { kind: 'thread', context, to })
      return
    }
    this.away.delete(context.thread)
    this.guests.arrive({ ...context }, true)
  }

  #wantLane(node: NodeIndex): void {
    const now = this.site.clock.now()
    if (node === HOME || now - (this.#wantedAt.get(node) ?? -WANT_MS) < WANT_MS) return
    this.#wantedAt.set(node, now)
    this.emit({ kind: 'lane-wanted', node, nodeName: '', peerId: '' })
  }

  #onParticipantLost(lane: LaneEnd, reason: string, clean: boolean): void {
    const { node } = lane
    this.leaving.delete(node)
    const held = this.#lanes.isOwnerOfSomething(node) || [...this.away.values()].includes(node)
    if (held && !clean) {
      this.end(`lost node ${node}, which held pages or threads: ${reason}`)
      return
    }
    this.run(this.ownership.onLaneDown(node, this.now))
    this.emit({ kind: 'lane-down', node, nodeName: lane.other.pager.host.name, reason })
  }

  #onNeighbourLost(lane: LaneEnd, reason: string, clean: boolean): void {
    const unread = lane.unread.some(isPrecious)
    const asked = [...this.ownership.pages.values()].some(
      page => page.state === 'in-flight' && page.where === lane.node,
    )
    if (!clean && (unread || asked))
      this.lanes.get(HOME)?.send(false, { kind: 'failed', reason: `a lane with pages on it: ${reason}` })
    this.run(this.ownership.onLaneDown(lane.node, this.now))
    this.emit({ kind: 'lane-down', node: lane.node, nodeName: lane.other.pager.host.name, reason })
  }

  #tick(): void {
    const now = this.site.clock.now()
    const late = now - this.#tickDue > LATE_MS
    for (const lane of [...this.lanes.values()]) {
      if (late) lane.heardAt = Math.max(lane.heardAt, now - SILENT_MS / 2)
      else if (now - lane.heardAt > SILENT_MS) {
        lane.close()
        this.onLaneEnded(lane, 'no answer', false)
      }
      if (!this.alive) return
    }
    if (this.node !== HOME && this.lanes.size === 0 && now > this.#lanesDueAt) this.exit('no lane has come')
    for (const node of this.leaving) this.#fetchBack(node)
    if (this.draining) this.#lanes.giveBack()
    this.#status()
    this.site.checks.onMemory(this)
    this.#tickDue = now + STATUS_MS
    this.later(STATUS_MS, () => this.#tick())
  }

  #fetchBack(node: NodeIndex): void {
    this.room.make(FETCH_ROOM)
    if (this.room.free >= FETCH_ROOM) this.run(this.ownership.fetchFrom(node, this.now))
    this.#lanes.endWhenEmpty(node)
  }

  #status(): void {
    if (!this.draining) this.room.giveCredit()
    for (const lane of this.lanes.values()) lane.send(false, { kind: 'status', window: lane.granted })
  }
}

type ThreadContextFrame = Extract<LaneFrame, { kind: 'thread' }>['context']

export function carriesPage({ kind }: PageMeta): boolean {
  return kind === 'data' || kind === 'zero'
}

/** What must not be lost with a lane. */
function isPrecious(frame: LaneFrame): boolean {
  if (frame.kind === 'thread') return true
  if (frame.kind !== 'page') return false
  const { frame: inner } = frame
  return (inner.type === 'pages' || inner.type === 'push') && inner.metas.some(carriesPage)
}

function laneUp({ node, other }: LaneEnd): PagerEvent {
  return { kind: 'lane-up', node, nodeName: other.pager.host.name }
}
