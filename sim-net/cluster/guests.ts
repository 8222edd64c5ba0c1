/** The guest threads on one simulated pager: they run, wait for pages, jump by the rule's twin, and make system calls. */

import { HOME, type NodeIndex, type PageNumber, type ThreadId } from '../../placement/ids.js'
import { PlacementRule } from '../../placement/rule.js'
import { type Micros, micros } from '../../placement/units.js'
import { type Operation, operationOf, type ThreadContext } from './guest.js'
import type { SimPager } from './pager.js'

/** Operations between two looks at anything else. */
const GROUP = 8
const OPERATION_US = 20
/** From the wake-up until it runs: less than a page is held. */
const WAKE_MS = 0.02
/** A try when there was no room. */
const ROOM_MS = 2
/** As the pager: faults of a thread that could not have its page elsewhere. */
const PULLS_AT_HOME = 16
const RECENT = 4
/** A lender of less takes no thread. */
const PAGES_FOR_THREADS_MIN = 64
const THREADS_MAX = 64

export class Guests {
  readonly #pager: SimPager
  readonly #rule: PlacementRule
  readonly #hosted = new Map<ThreadId, ThreadContext>()
  readonly #waiting = new Map<PageNumber, ThreadContext[]>()
  readonly #pins = new Map<PageNumber, number>()

  constructor(pager: SimPager) {
    this.#pager = pager
    const { policy, jumpEvery } = pager.process.plan
    this.#rule = new PlacementRule(policy.create(), jumpEvery)
  }

  get count(): number {
    return this.#hosted.size
  }

  has(thread: ThreadId): boolean {
    return this.#hosted.has(thread)
  }

  /** Whether there is what a thread needs here. */
  get mayHost(): boolean {
    const { room, draining } = this.#pager
    return !draining && this.#hosted.size < THREADS_MAX && room.limit >= PAGES_FOR_THREADS_MIN
  }

  arrive(context: ThreadContext, jumped: boolean): void {
    this.#pager.site.checks.onArrival(this.#pager, context)
    this.#hosted.set(context.thread, context)
    this.#pager.ownership.threadsHere = true
    context.ranUs = 0
    if (jumped)
      this.#rule.observe({ kind: 'arrived', thread: context.thread, mark: context.pc + 1 }, micros(0))
    this.#soon(context)
  }

  /** Threads that wait for the page may try again. */
  wake(page: PageNumber): void {
    const waiting = this.#waiting.get(page)
    if (waiting === undefined) return
    this.#waiting.delete(page)
    for (const context of waiting) this.#pager.later(WAKE_MS, () => this.#step(context))
  }

  goHome(page: PageNumber): void {
    const waiting = this.#waiting.get(page) ?? []
    this.#waiting.delete(page)
    for (const context of waiting) {
      context.pullsFirst = PULLS_AT_HOME
      this.#leave(context, HOME)
    }
  }

  allGoHome(): void {
    this.#waiting.clear()
    for (const context of [...this.#hosted.values()]) this.#leave(context, HOME)
  }

  #soon(context: ThreadContext): void {
    context.left = GROUP
    const ms = this.#pager.site.thinkMs * (0.5 + this.#pager.site.rng.next())
    this.#pager.later(ms, () => this.#step(context))
  }

  #isHere(context: ThreadContext): boolean {
    return this.#hosted.get(context.thread) === context && this.#pager.process.runs
  }

  #step(context: ThreadContext): void {
    const { process } = this.#pager
    while (context.left > 0) {
      if (!this.#isHere(context)) return
      const operation = operationOf(process.plan.program, context.thread, context.pc)
      if (!this.#tryOne(context, operation)) return
      context.pc++
      context.left--
      context.ranUs += OPERATION_US
      if (context.recent.length === RECENT) context.recent.shift()
      context.recent.push(operation.page)
    }
    this.#soon(context)
  }

  /** False: it waits, or has left. */
  #tryOne(context: ThreadContext, operation: Operation): boolean {
    const pager = this.#pager
    const { kind, page } = operation
    if (kind === 'call' || kind === 'forget') {
      if (pager.node !== HOME) {
        this.#leave(context, HOME)
        return false
      }
      return kind === 'call' ? this.#call(context, page) : this.#forget(context, operation)
    }
    const { state, copyAt } = pager.ownership.page(page)
    if (state !== 'resident') {
      this.#fault(context, page, kind)
      return false
    }
    if (kind === 'write' && copyAt !== HOME) {
      this.#wait(context, page)
      pager.run(pager.ownership.onProtectedWrite(page, pager.now))
      return false
    }
    this.#access(context, page, kind)
    return true
  }

  #access(context: ThreadContext, page: PageNumber, kind: 'read' | 'write'): void {
    const { ownership, process, room, site } = this.#pager
    room.touch(page)
    if (kind === 'write') ownership.write(page, ++process.written)
    site.checks.onAccess(this.#pager, context, page, kind)
  }

  #fault(context: ThreadContext, page: PageNumber, access: 'read' | 'write'): void {
    const pager = this.#pager
    const { state, where } = pager.ownership.page(page)
    const isRemote =
      state === 'remote' || state === 'copied' || (state === 'untouched' && pager.node !== HOME)
    if (isRemote && this.#jumps(context, page, where)) return
    const ran = context.ranUs as Micros
    if (!isRemote && state !== 'in-flight') this.#rule.observe({ kind: 'local', thread: context.thread }, ran)
    if (state !== 'in-flight' && !pager.room.make(1)) {
      pager.later(ROOM_MS, () => this.#step(context))
      return
    }
    if (isRemote) pager.process.pulls++
    this.#wait(context, page)
    pager.run(pager.ownership.onFault(page, access, pager.now))
  }

  #jumps(context: ThreadContext, page: PageNumber, owner: NodeIndex): boolean {
    if (context.pullsFirst > 0) {
      context.pullsFirst--
      return false
    }
    const { thread, pc, ranUs } = context
    const decision = this.#rule.decide({ thread, owner, rip: 0x400_000 + (pc % 16) }, ranUs as Micros)
    const pager = this.#pager
    const lane = pager.lanes.get(pager.node === HOME ? owner : HOME)
    if (decision.kind === 'pull' || lane === undefined || !pager.mayUse(lane)) return false
    pager.process.jumps++
    pager.note('jump', owner, `page ${page}`)
    this.#leave(context, owner)
    return true
  }

  #leave(context: ThreadContext, to: NodeIndex): void {
    const pager = this.#pager
    const lane = pager.lanes.get(pager.node === HOME ? to : HOME)
    if (pager.site.planted !== 'runs-jumped-threads' || pager.node !== HOME)
      this.#hosted.delete(context.thread)
    else this.#soon(context)
    pager.ownership.threadsHere = this.#hosted.size > 0
    if (lane === undefined) return // its home is gone, and the run with it
    if (lane.node === to) this.#ship(context, lane.node, lane.mayPush - lane.pushed)
    if (pager.node === HOME) pager.away.set(context.thread, to)
    lane.send(false, { kind: 'thread', context: { ...context, recent: [...context.recent] }, to })
  }

  #ship(context: ThreadContext, to: NodeIndex, room: number): void {
    const pager = this.#pager
    const { ownership } = pager
    const there = [...new Set(context.recent)].filter(page => ownership.page(page).state === 'resident')
    const pages = there.filter(page => !ownership.page(page).offered).slice(0, Math.max(0, room))
    if (pages.length > 0) pager.run(ownership.ship(pages, to, pager.now))
  }

  /** A system call reads or writes a page that stays while it does. */
  #call(context: ThreadContext, page: PageNumber): boolean {
    const pager = this.#pager
    const { ownership } = pager
    const { state, pinned, offered } = ownership.page(page)
    const pins = this.#pins.get(page) ?? 0
    if (state === 'resident' && pinned && !offered && pins > 0) {
      this.#access(context, page, context.pc % 2 === 0 ? 'write' : 'read')
      this.#pins.delete(page)
      pager.run(ownership.unpin(page, pager.now))
      return true
    }
    if (state !== 'resident' && state !== 'in-flight' && !pager.room.make(1)) {
      pager.later(ROOM_MS, () => this.#step(context))
      return false
    }
    this.#pins.set(page, 1)
    this.#wait(context, page)
    pager.run(ownership.pin(page, pager.now))
    return false
  }

  #forget(context: ThreadContext, operation: Operation & { kind: 'forget' }): boolean {
    const pager = this.#pager
    const { page, count } = operation
    const end = (page + count) as PageNumber
    const effects = pager.ownership.forget(page, end, pager.now)
    pager.site.checks.onForget(pager, context, page, end)
    pager.run(effects)
    return true
  }

  #wait(context: ThreadContext, page: PageNumber): void {
    const waiting = this.#waiting.get(page)
    if (waiting === undefined) this.#waiting.set(page, [context])
    else waiting.push(context)
  }
}
