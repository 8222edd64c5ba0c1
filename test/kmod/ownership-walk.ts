/**
 * Random steps of an ownership world, in the line format of kmod/pager/src/engine_lockstep.cpp, with the answers that the
 * TypeScript twin gives. Steps are drawn so that nodes fight over few pages, moves chain up, drops fall between a GET and
 * its answer, and pushes cross GETs; in a forged world anybody may also say anything.
 */

import { uniformInt } from 'pure-rand/distribution/uniformInt'
import { xoroshiro128plus } from 'pure-rand/generator/xoroshiro128plus'

import { FrameType, PageFlag } from '../../kmod/lane-frames.js'
import type { Page, PageFrame, PageMeta, PageState, Version } from '../../kmod/ownership/types.js'
import { HOME, type NodeIndex, nodeIndex, type PageNumber, pageNumber } from '../../placement/ids.js'
import { micros } from '../../placement/units.js'
import { type Connection, FIRST, type Wanted, World, type WorldOptions } from './ownership-world.js'

export interface WalkOptions extends WorldOptions {
  /** Shares of steps. */
  readonly forged: number
  readonly evictions: number
  readonly drops: number
  /** Some pages go to the disk, whose buffers home counts as memory: in worlds of at most 24 pages. */
  readonly disk: boolean
  /** Nodes and lanes are lost. */
  readonly losses: boolean
  readonly hints: number
}

const WORLD_STEPS = 1000
/** The pager forgets the oldest of its notes of copies after these, which no twin needs to follow. */
const COPIES_MAX = 250
const STATES: readonly PageState[] = ['untouched', 'resident', 'spilled', 'remote', 'in-flight', 'copied']
const PAUSES_US = [1, 10, 31, 35, 65, 200, 3000, 25_000]

/** What the other end says a page is, as a frame has it. */
function metaText(meta: PageMeta): string {
  const { page, version, lastWrittenCut, kind, owner } = meta
  const contents = kind === 'data' ? meta.contents : 0
  return [page, version, lastWrittenCut, PageFlag[kind], owner, contents].join(':')
}

/** Type, flags, page, count, version, argument, and pages. */
function frameText(frame: PageFrame): string {
  switch (frame.type) {
    case 'get': {
      const { first, count, version, demand, keep, byHint } = frame
      const flags = Number(keep) + 2 * Number(byHint)
      return [FrameType.get, flags, first, count, version, demand - first].join(':')
    }
    case 'pages':
    case 'push': {
      const { metas } = frame
      const flags = frame.type === 'pages' && frame.kept ? 1 : 0
      const header = [FrameType[frame.type], flags, metas[0]?.page, metas.length, 0, 0]
      return [header.join(':'), ...metas.map(metaText)].join('/')
    }
    case 'owner':
      return [FrameType.owner, 0, frame.first, frame.count, frame.version, frame.owner].join(':')
    case 'drop':
      return [FrameType.drop, 0, frame.first, frame.count, frame.version, 0].join(':')
  }
}

/** What the pager tells of the same event; nothing of what it does to the kernel or its timers. */
function wantedText({ node, effect }: Wanted): string {
  switch (effect.kind) {
    case 'send':
      return ` ${node}>${effect.to}${effect.bulk ? 'b' : 'u'}:${frameText(effect.frame)}`
    case 'go-home':
      return ` ${node}>go-home:${effect.page}`
    case 'want-lane':
      return ` ${node}>want-lane:${effect.node}`
    default:
      return ''
  }
}

function pageText(page: Readonly<Page>): string {
  const { state, version, lastWrittenCut, pinned, deferred, watched, offered } = page
  const inFlight = state === 'in-flight'
  const asked = page.where + (page.known === page.where ? 0 : (page.known + 1) * 64)
  const there = state === 'remote' || state === 'copied' ? page.where : page.copyAt
  const where = inFlight ? asked : there
  const flags = [pinned, deferred, watched, inFlight && page.prefetched, offered]
  const bits = flags.reduce((sum, flag, i) => sum + (flag ? 1 << i : 0), 0)
  const contents = state === 'resident' || state === 'copied' ? page.contents : 0
  return [STATES.indexOf(state), version, where, lastWrittenCut, bits, contents].join(',')
}

export class Walk {
  readonly steps: string[] = []
  readonly answers: string[] = []
  readonly #random: ReturnType<typeof xoroshiro128plus>
  #world: World
  #seen: string[][] = []
  #gone = new Set<NodeIndex>()
  #worldSteps = 0
  #copies = 0
  #contents = 1

  constructor(
    readonly options: WalkOptions,
    seed: number,
    steps: number,
  ) {
    this.#random = xoroshiro128plus(seed)
    this.#world = this.#begin()
    while (this.steps.length < steps) this.#step()
  }

  #draw(max: number): number {
    return uniformInt(this.#random, 0, max)
  }

  #one<T>(from: readonly T[]): T | undefined {
    return from[this.#draw(Math.max(0, from.length - 1))]
  }

  #chance(percent: number): boolean {
    return this.#draw(9999) < percent * 100
  }

  #begin(): World {
    const { nodes, stay, pages } = this.options
    this.#world = new World(this.options)
    this.#gone.clear()
    this.#worldSteps = 0
    this.#copies = 0
    this.#seen = this.#world.nodes.map(() => [])
    for (const { self } of this.#world.nodes) for (let i = 0; i < pages; i++) this.#changes(self)
    this.#note(`n ${nodes} ${Number(stay)} ${FIRST} ${pages}`, [], this.#alive())
    return this.#world
  }

  /** Takes down a step and what came of it, for the nodes it was about. */
  #note(step: string, wanted: readonly Wanted[], about: readonly NodeIndex[]): void {
    this.steps.push(step)
    this.#worldSteps++
    const lost = wanted.findIndex(({ effect }) => effect.kind === 'lost')
    const told = (lost < 0 ? wanted : wanted.slice(0, lost)).map(wantedText).join('')
    if (lost >= 0) {
      this.answers.push(`${told} lost`)
      this.#worldSteps = WORLD_STEPS
      return
    }
    const nodes = [...about].sort((a, b) => a - b)
    this.answers.push(told + nodes.map(node => this.#changes(node) + this.#counts(node)).join(''))
  }

  #changes(index: NodeIndex): string {
    const seen = this.#seen[index] ?? []
    let text = ''
    for (let i = 0; i < this.options.pages; i++) {
      const number = this.#world.page(i)
      const page = this.#world.node(index).page(number)
      const now = pageText(page)
      if (now === seen[i]) continue
      if (page.state === 'copied') this.#copies++
      seen[i] = now
      text += ` ${index}.${number}=${now}`
    }
    return text
  }

  #counts(index: NodeIndex): string {
    const node = this.#world.node(index)
    const { residentPages, expectedPages, copiedPages, deferredGets, offeredPages, copiesPay } = node.counts
    const counts = [residentPages, expectedPages, copiedPages, deferredGets, offeredPages, copiesPay]
    if (index !== HOME) return ` ${index}=${counts.join(',')}`
    const hints = this.#alive().slice(1)
    const there = hints.map(peer => {
      const pages = [...node.pages.values()].filter(
        page => (page.state === 'remote' || page.state === 'in-flight') && page.where === peer,
      )
      return `,${peer}:${pages.length}`
    })
    return ` ${index}=${counts.join(',')}${there.join('')}`
  }

  #alive(): NodeIndex[] {
    return this.#world.nodes.map(({ self }) => self).filter(node => !this.#gone.has(node))
  }

  #step(): void {
    if (this.#worldSteps >= WORLD_STEPS || this.#copies >= COPIES_MAX) this.#begin()
    else if (this.#chance(this.options.forged)) this.#forge()
    else if (this.#chance(this.options.evictions)) this.#evict()
    else if (this.#chance(this.options.drops)) this.#forget()
    else if (this.#chance(2.5)) this.#pause()
    else if (this.#chance(5)) this.#seldom()
    else if (this.#chance(this.options.hints)) this.#hint()
    else if (this.#chance(60)) this.#deliver()
    else this.#access()
  }

  /** Mostly one of few. */
  #page(): PageNumber {
    const { pages } = this.options
    return this.#world.page(this.#draw(this.#chance(60) ? Math.min(3, pages - 1) : pages - 1))
  }

  #aliveNode(): NodeIndex {
    return this.#one(this.#alive()) ?? HOME
  }

  /** Where threads are: mostly at home, if they stay there. */
  #user(): NodeIndex {
    return this.options.stay && this.#chance(90) ? HOME : this.#aliveNode()
  }

  #access(): void {
    const contents = this.#chance(10) ? 0 : this.#contents++
    // Copies are of pages with contents, and are asked for only while they pay: as long as little is written to.
    const { stay, pages } = this.options
    const writes = stay ? 4 : 50
    if (stay && this.#worldSteps <= pages)
      this.access(HOME, this.#world.page(this.#worldSteps - 1), 'write', contents)
    else this.access(this.#user(), this.#page(), this.#chance(writes) ? 'write' : 'read', contents)
  }

  access(node: NodeIndex, page: PageNumber, access: 'read' | 'write', contents: number): void {
    const [, wanted] = this.#world.access(node, page, access, contents)
    this.#note(`a ${node} ${page} ${access[0]} ${contents}`, wanted, [node])
  }

  /** Everything that lies on a lane arrives, and what is said to it. */
  settle(): void {
    while (this.#world.connections.some(({ frames }) => frames.length > 0)) this.#deliver()
  }

  #deliver(): void {
    const connection = this.#one(this.#world.connections.filter(({ frames }) => frames.length > 0))
    if (connection === undefined) {
      this.#access()
      return
    }
    const { from, to, bulk } = connection
    this.#note(`d ${from} ${to} ${bulk ? 'b' : 'u'}`, this.#world.deliver(connection), [to])
  }

  #peerOf(node: NodeIndex): Connection | undefined {
    return this.#one(this.#world.connections.filter(({ from }) => from === node))
  }

  #evict(): void {
    const node = this.#user()
    const ships = !this.options.stay && this.#chance(20)
    const to = this.options.disk && this.#chance(8) && !ships ? 'disk' : this.#peerOf(node)?.to
    if (to === undefined) return
    const pages = new Set(Array.from({ length: 1 + this.#draw(5) }, () => this.#page()))
    const sorted = [...pages].sort((a, b) => a - b)
    const { now } = this.#world
    const state = this.#world.node(node)
    const effects = ships && to !== 'disk' ? state.ship(sorted, to, now) : state.evict(sorted, to, now)
    const target = to === 'disk' ? 'd' : to
    const step = `${ships ? 's' : 'e'} ${node} ${target} ${sorted.join(' ')}`
    this.#note(step, this.#world.apply(node, effects), [node])
  }

  #forget(): void {
    const first = this.#page()
    const end = pageNumber(Math.min(first + 1 + this.#draw(5), this.#world.region.end))
    const effects = this.#world.node(HOME).forget(first, end, this.#world.now)
    this.#note(`f ${first} ${end}`, this.#world.apply(HOME, effects), [HOME])
  }

  #pause(): void {
    const world = this.#world
    world.now = micros(world.now + (this.#one(PAUSES_US) ?? 1))
    const wanted = world.nodes.flatMap(node => world.apply(node.self, node.onTime(world.now)))
    const all = world.nodes.map(({ self }) => self)
    this.#note(`t ${world.now}`, wanted, all)
  }

  #seldom(): void {
    const world = this.#world
    const home = world.node(HOME)
    const node = this.#aliveNode()
    const page = this.#page()
    const kind = this.#draw(9)
    if (kind < 2) {
      this.#note(`p ${page}`, world.apply(HOME, home.pin(page, world.now)), [HOME])
    } else if (kind < 5) {
      this.#note(`q ${page}`, world.apply(HOME, home.unpin(page, world.now)), [HOME])
    } else if (kind === 5) {
      const to = this.#peerOf(HOME)?.to
      if (to !== undefined) this.#note(`g ${to}`, world.apply(HOME, home.fetchFrom(to, world.now)), [HOME])
    } else if (kind === 6) {
      world.node(node).discardCopies()
      this.#note(`c ${node}`, [], [node])
    } else if (kind === 7) {
      const here = this.#chance(70)
      world.node(node).threadsHere = here
      this.#note(`h ${node} ${Number(here)}`, [], [node])
    } else {
      this.#lanes()
    }
  }

  /** A quarter are lies, and the truth is old by the time it is used. */
  #hint(): void {
    const [node, of] = [this.#aliveNode(), this.#aliveNode()]
    const owner = this.#world.node(of)
    const owns = (page: PageNumber) => (owner.page(page).state === 'resident') !== this.#chance(25)
    const pages = Array.from({ length: this.options.pages }, (_, i) => this.#world.page(i)).filter(owns)
    const told = pages.map(page => ({ page, version: this.#version(owner.page(page)) }))
    const ranges = told.map(({ page, version }) => {
      return { first: page, pages: 1, birth: Math.floor(version / 2 ** 32), moves: version % 2 ** 32 }
    })
    this.#world.node(node).onHints(of, ranges)
    const text = told.map(({ page, version }) => ` ${page} 1 ${version}`)
    this.#note(`k ${node} ${of}${text.join('')}`, [], [node])
  }

  #lanes(): void {
    const world = this.#world
    const [a, b] = [this.#aliveNode(), this.#aliveNode()]
    if (a === b || a === HOME || b === HOME) return
    if (!world.isConnected(a, b)) {
      world.connect(a, b)
      this.#note(`u ${a} ${b}`, [], [a, b])
    } else if (this.options.losses && this.#chance(20)) {
      this.#note(`x ${a} ${b}`, world.disconnect(a, b), [a, b])
      if (this.#chance(30) && this.#alive().length > 2) this.#lose(a)
    }
  }

  #lose(node: NodeIndex): void {
    const world = this.#world
    this.#gone.add(node)
    for (const { self } of world.nodes) {
      if (!world.isConnected(node, self)) continue
      this.#note(`x ${node} ${self}`, world.disconnect(node, self), [node, self])
    }
  }

  /** Near what the receiver knows of the page, newer or older, or of another life. */
  #version(page: Readonly<Page>): Version {
    const now = page.version
    const near = [
      now,
      Math.max(0, now - 1),
      now + 1,
      now + 1,
      now + 2,
      (Math.floor(now / 2 ** 32) + 1) * 2 ** 32,
    ]
    return (this.#one(near) ?? now) as Version
  }

  #meta(to: NodeIndex, page: PageNumber, kinds: readonly PageMeta['kind'][]): PageMeta {
    const kind = this.#one(kinds) ?? 'zero'
    const version = this.#version(this.#world.node(to).page(page))
    const contents = kind === 'data' ? this.#contents++ : 0
    const owner = kind === 'moved' ? nodeIndex(this.#draw(this.options.nodes)) : HOME
    return { page, version, lastWrittenCut: this.#draw(3), kind, owner, contents }
  }

  #frame(to: NodeIndex, from: NodeIndex): PageFrame {
    const first = this.#page()
    const most = this.#world.region.end - first
    const count = Math.min(1 + this.#draw(4), most)
    const version = this.#version(this.#world.node(to).page(first))
    const metas = (kinds: readonly PageMeta['kind'][]) =>
      Array.from({ length: count }, (_, i) => this.#meta(to, pageNumber(first + i), kinds))
    switch (this.#draw(to === HOME ? 5 : 6)) {
      case 0:
      case 1: {
        const demand = pageNumber(first + this.#draw(count))
        const wide = this.#chance(10) ? this.#draw(80) : 0
        const [keep, byHint] = [this.#chance(50), this.#chance(30)]
        return { type: 'get', first, count: count + wide, demand, version, keep, byHint }
      }
      case 2:
      case 3:
        return {
          type: 'pages',
          metas: metas(['data', 'data', 'zero', 'moved', 'absent', 'pinned']),
          kept: this.#chance(50),
        }
      case 4:
        return { type: 'push', metas: metas(['data', 'data', 'zero', 'offered']) }
      case 5:
        return { type: 'owner', first, count, version, owner: this.#chance(90) ? from : this.#aliveNode() }
      default:
        return { type: 'drop', first, count, version }
    }
  }

  #forge(): void {
    const to = this.#aliveNode()
    const from = this.#peerOf(to)?.to
    if (from !== undefined) this.forge(from, to, this.#frame(to, from))
  }

  forge(from: NodeIndex, to: NodeIndex, frame: PageFrame): void {
    const text = frameText(frame).replaceAll(/[:/]/g, ' ')
    const effects = this.#world.node(to).onFrame(from, frame, this.#world.now)
    this.#note(`i ${from} ${to} ${text}`, this.#world.apply(to, effects), [to])
  }
}
