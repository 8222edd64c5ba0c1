/**
 * Several nodes of one elastic process, each an `Ownership`, and what lies on the lanes between them. Nothing moves but by
 * a call: which frame arrives next, and when, is the test's choice.
 */

import { Ownership } from '../../kmod/ownership/ownership.js'
import { StreamPrefetch } from '../../kmod/ownership/prefetch.js'
import type { Effect, PageFrame, Region } from '../../kmod/ownership/types.js'
import { HOME, type NodeIndex, nodeIndex, type PageNumber, pageNumber } from '../../placement/ids.js'
import { type Micros, micros } from '../../placement/units.js'

/** One direction of one connection of a lane. */
export interface Connection {
  readonly from: NodeIndex
  readonly to: NodeIndex
  readonly bulk: boolean
  readonly frames: PageFrame[]
}

/** What a node wanted done. */
export interface Wanted {
  readonly node: NodeIndex
  readonly effect: Effect
}

export interface WorldOptions {
  readonly nodes: number
  /** No thread ever leaves home. */
  readonly stay: boolean
  readonly pages: number
}

/** A chunk of the pager's table begins here. */
export const FIRST = 1024

export class World {
  readonly nodes: readonly Ownership[]
  readonly region: Region
  readonly connections: Connection[] = []
  now: Micros = micros(1_000_000)

  constructor(readonly options: WorldOptions) {
    this.region = { first: pageNumber(FIRST), end: pageNumber(FIRST + options.pages) }
    const regionOf = (page: PageNumber) =>
      page >= this.region.first && page < this.region.end ? this.region : undefined
    this.nodes = Array.from({ length: options.nodes }, (_, i) => {
      const threadsStay = options.stay && i === HOME
      return new Ownership({ self: nodeIndex(i), regionOf, threadsStay, prefetch: new StreamPrefetch() })
    })
    for (let i = 1; i < options.nodes; i++) this.connect(HOME, nodeIndex(i))
  }

  node(index: number): Ownership {
    const node = this.nodes[index]
    if (node === undefined) throw new Error(`there is no node ${index}`)
    return node
  }

  page(i: number): PageNumber {
    return pageNumber(this.region.first + i)
  }

  isConnected(a: NodeIndex, b: NodeIndex): boolean {
    return this.connections.some(({ from, to }) => from === a && to === b)
  }

  connect(a: NodeIndex, b: NodeIndex): void {
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      for (const bulk of [false, true]) this.connections.push({ from, to, bulk, frames: [] })
      this.node(from).onLaneUp(to)
    }
  }

  /** The lane is lost with all that was on it. */
  disconnect(a: NodeIndex, b: NodeIndex): Wanted[] {
    const rest = this.connections.filter(
      ({ from, to }) => !(from === a && to === b) && !(from === b && to === a),
    )
    this.connections.splice(0, this.connections.length, ...rest)
    return [
      ...this.apply(a, this.node(a).onLaneDown(b, this.now)),
      ...this.apply(b, this.node(b).onLaneDown(a, this.now)),
    ]
  }

  /** The oldest frame of a connection arrives. */
  deliver({ from, to, frames }: Connection): Wanted[] {
    const frame = frames.shift()
    if (frame === undefined) throw new Error('nothing lies there')
    return this.apply(to, this.node(to).onFrame(from, frame, this.now))
  }

  /** As a thread does it: a fault if need be, and a write only if the page is there by then. True: it was made. */
  access(at: NodeIndex, page: PageNumber, access: 'read' | 'write', contents: number): [boolean, Wanted[]] {
    const node = this.node(at)
    const isHere = () => node.page(page).state === 'resident'
    const isProtected = access === 'write' && isHere() && node.page(page).copyAt !== HOME
    let effects: readonly Effect[] = []
    if (isProtected) effects = node.onProtectedWrite(page, this.now)
    else if (!isHere()) effects = node.onFault(page, access, this.now)
    const done = isHere() && (access === 'read' || node.write(page, contents))
    return [done, this.apply(at, effects)]
  }

  /** Puts frames on their lanes. */
  apply(node: NodeIndex, effects: readonly Effect[]): Wanted[] {
    for (const effect of effects) {
      if (effect.kind !== 'send') continue
      const { to, bulk, frame } = effect
      this.connections.find(c => c.from === node && c.to === to && c.bulk === bulk)?.frames.push(frame)
    }
    return effects.map(effect => ({ node, effect }))
  }
}
