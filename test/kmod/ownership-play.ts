/**
 * Threads on an ownership world, and what has to hold of it after every step: each page has exactly one owner or is in
 * exactly one frame on its way, versions only grow, and a read sees the last write.
 *
 * A drop ends contents at once at home and elsewhere when it is read there; home waits for that where threads run, which
 * is not played here: what belongs to an older life of a page is not looked at.
 */

import type { OwnedRange } from '../../kmod/ownership/hints.js'
import type { Page, PageFrame, PageMeta, Version } from '../../kmod/ownership/types.js'
import { HOME, type NodeIndex, type PageNumber, pageNumber } from '../../placement/ids.js'
import { micros } from '../../placement/units.js'
import { type Connection, type Wanted, World, type WorldOptions } from './ownership-world.js'

/** What a thread that waits wants to do. */
interface Task {
  readonly page: PageNumber
  readonly access: 'read' | 'write'
  readonly contents: number
}

/** Of everything that lies on lanes, for each task there was: more than any chain of moves and holds takes. */
const DELIVERIES_PER_TASK_MAX = 400
const HOLD_MAX_US = 10_000

export class Play {
  readonly world: World
  readonly #waiting: Task[][]
  /** Last contents, and the version at which the present life began. */
  readonly #contents = new Map<PageNumber, number>()
  readonly #born = new Map<PageNumber, number>()
  readonly #versions = new Map<string, Version>()
  #written = 0
  #tasks = 0

  constructor(options: WorldOptions) {
    this.world = new World(options)
    this.#waiting = this.world.nodes.map(() => [])
  }

  touch(node: NodeIndex, page: PageNumber, access: 'read' | 'write'): void {
    this.#tasks++
    this.#try(node, { page, access, contents: access === 'write' ? ++this.#written : 0 })
    this.check()
  }

  deliver(connection: Connection): void {
    this.#handle(this.world.deliver(connection))
    this.check()
  }

  evict(node: NodeIndex, pages: readonly PageNumber[], to: NodeIndex | 'disk'): void {
    this.#do(node, this.world.node(node).evict(pages, to, this.world.now))
  }

  ship(node: NodeIndex, pages: readonly PageNumber[], to: NodeIndex): void {
    this.#do(node, this.world.node(node).ship(pages, to, this.world.now))
  }

  forget(first: PageNumber, end: PageNumber): void {
    const home = this.world.node(HOME)
    const effects = home.forget(first, end, this.world.now)
    for (let page = first; page < end; page = pageNumber(page + 1)) {
      this.#contents.set(page, 0)
      this.#born.set(page, home.page(page).version)
    }
    this.#do(HOME, effects)
  }

  /** `of` says that it owns these pages; nothing has to be true of that. */
  hint(node: NodeIndex, of: NodeIndex, ranges: readonly OwnedRange[]): void {
    this.world.node(node).onHints(of, ranges)
  }

  pin(page: PageNumber, pinned: boolean): void {
    const home = this.world.node(HOME)
    this.#do(HOME, pinned ? home.pin(page, this.world.now) : home.unpin(page, this.world.now))
  }

  fetch(from: NodeIndex): void {
    this.#do(HOME, this.world.node(HOME).fetchFrom(from, this.world.now))
  }

  pass(us: number): void {
    this.world.now = micros(this.world.now + us)
    for (const node of this.world.nodes) this.#do(node.self, node.onTime(this.world.now))
  }

  /** Connections on which something lies. */
  busy(): Connection[] {
    return this.world.connections.filter(({ frames }) => frames.length > 0)
  }

  /** Everything arrives, in the order that `choose` picks, until nothing waits any more. */
  settle(choose: (from: readonly Connection[]) => Connection | undefined): void {
    for (let left = DELIVERIES_PER_TASK_MAX * (this.#tasks + 10); left > 0; left--) {
      const connection = choose(this.busy())
      if (connection !== undefined) this.deliver(connection)
      else if (this.#someGetWaits()) this.pass(HOLD_MAX_US)
      else break
    }
    const stuck = this.#waiting.flatMap((tasks, node) => tasks.map(({ page }) => `${page} at ${node}`))
    if (stuck.length > 0) throw new Error(`threads wait for ever for pages ${stuck.join(', ')}`)
    for (const { self, counts } of this.world.nodes) {
      const { expectedPages, deferredGets, offeredPages } = counts
      if (expectedPages + deferredGets + offeredPages > 0)
        throw new Error(`node ${self} waits for ever: ${JSON.stringify(counts)}`)
    }
  }

  #someGetWaits(): boolean {
    return this.world.nodes.some(({ counts }) => counts.deferredGets > 0)
  }

  #do(node: NodeIndex, effects: Parameters<World['apply']>[1]): void {
    this.#handle(this.world.apply(node, effects))
    this.check()
  }

  #handle(wanted: readonly Wanted[]): void {
    for (const { node, effect } of wanted) {
      if (effect.kind === 'wake') this.#again(node, node, effect.page)
      if (effect.kind === 'go-home') this.#again(node, HOME, effect.page)
      if (effect.kind === 'lost') throw new Error(`page ${effect.page} is lost`)
    }
  }

  /** Who waits at `from` for the page tries again at `to`. */
  #again(from: NodeIndex, to: NodeIndex, page: PageNumber): void {
    const tasks = this.#waiting[from] ?? []
    const due = tasks.filter(task => task.page === page)
    this.#waiting[from] = tasks.filter(task => task.page !== page)
    for (const task of due) this.#try(to, task)
  }

  #try(node: NodeIndex, task: Task): void {
    const { page, access, contents } = task
    const [done, wanted] = this.world.access(node, page, access, contents)
    if (!done) this.#waiting[node]?.push(task)
    else if (this.#isAlive(page, this.world.node(node).page(page).version)) {
      if (access === 'write') this.#contents.set(page, contents)
      const found = this.world.node(node).read(page)
      const last = this.#contents.get(page) ?? 0
      if (found !== last)
        throw new Error(`page ${page} at ${node} has ${found}, and ${last} was written last`)
    }
    this.#handle(wanted)
  }

  #isAlive(page: PageNumber, version: Version): boolean {
    return version >= (this.#born.get(page) ?? 0)
  }

  check(): void {
    const { first, end } = this.world.region
    for (let page = first; page < end; page = pageNumber(page + 1)) {
      const owners = this.#owners(page)
      if (owners.length !== 1) throw new Error(`page ${page} is owned by: ${owners.join(', ')}`)
      for (const node of this.world.nodes) {
        const key = `${node.self} ${page}`
        const { version } = node.page(page)
        const before = this.#versions.get(key) ?? 0
        if (version < before) throw new Error(`page ${page} at ${node.self} goes back to version ${version}`)
        this.#versions.set(key, version)
      }
    }
  }

  #owners(page: PageNumber): string[] {
    const owners: string[] = []
    for (const node of this.world.nodes) {
      const entry = node.page(page)
      const here = entry.state === 'resident' || entry.state === 'spilled'
      const isNew = entry.state === 'untouched' && node.self === HOME
      if ((here || isNew) && this.#isAlive(page, entry.version) && !this.#isTaken(page, entry))
        owners.push(`${entry.state} at ${node.self}`)
    }
    for (const { from, to, frames } of this.world.connections)
      for (const meta of frames.flatMap(metasOf))
        if (meta.page === page && this.#counts(to, meta)) owners.push(`from ${from} to ${to}`)
    return owners
  }

  /** A page with its contents that will be accepted. */
  #counts(to: NodeIndex, meta: PageMeta): boolean {
    if (meta.kind !== 'data' && meta.kind !== 'zero') return false
    const { version, state } = this.world.node(to).page(meta.page)
    const wanted = to !== HOME || state === 'remote' || state === 'in-flight'
    return wanted && meta.version > version && this.#isAlive(meta.page, meta.version)
  }

  /** On offer, and the answer is on its way: the lender has it again. */
  #isTaken(page: PageNumber, entry: Readonly<Page>): boolean {
    if (!entry.offered) return false
    const answers = this.world.connections.filter(({ from, to }) => from === entry.copyAt && to === HOME)
    return answers.some(({ frames }) =>
      frames
        .flatMap(metasOf)
        .some(meta => meta.page === page && meta.kind === 'moved' && meta.version === entry.version + 1),
    )
  }
}

function metasOf(frame: PageFrame): readonly PageMeta[] {
  return frame.type === 'pages' || frame.type === 'push' ? frame.metas : []
}
