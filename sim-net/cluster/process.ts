/** One simulated elastic process: its program, its pagers, and what its memory has to hold, as the checks know it. */

import type { ProcessId } from '../../agent/machines/types.js'
import type { Version } from '../../kmod/ownership/types.js'
import type { PageNumber } from '../../placement/ids.js'
import type { PolicySpec } from '../../placement/registry.js'
import type { Program } from './guest.js'
import type { SimPager } from './pager.js'

export interface ProcessPlan {
  readonly id: ProcessId
  readonly number: number
  readonly program: Program
  readonly threads: number
  readonly memoryPages: number
  readonly participantsMax: number
  readonly policy: PolicySpec
  readonly jumpEvery: number
}

/** Something about each elastic page. */
export class PageTable<T> {
  readonly #first: PageNumber
  readonly #entries: T[]
  readonly #initial: T

  constructor({ first, pages }: Program, initial: T) {
    this.#first = first
    this.#initial = initial
    this.#entries = new Array(pages).fill(initial)
  }

  get(page: PageNumber): T {
    return this.#entries[page - this.#first] as T
  }

  set(page: PageNumber, value: T): void {
    this.#entries[page - this.#first] = value
  }

  clear(): void {
    this.#entries.fill(this.#initial)
  }
}

export class SimProcess {
  readonly pagers = new Set<SimPager>()
  /** The last number written to each page, and the version with which its present life began. */
  readonly contents: PageTable<number>
  readonly born: PageTable<Version>
  readonly holders: PageTable<SimPager | undefined>
  /** Operations that each thread has completed. */
  readonly completed: number[]
  written = 0
  #ended: string | undefined
  pulls = 0
  jumps = 0
  pushes = 0
  askedByHint = 0

  constructor(readonly plan: ProcessPlan) {
    const { program } = plan
    this.contents = new PageTable(program, 0)
    this.born = new PageTable(program, 0 as Version)
    this.holders = new PageTable(program, undefined)
    this.completed = Array.from({ length: plan.threads }, () => 0)
  }

  /** Undefined while it runs; "" when it ended by itself, else why. */
  get ended(): string | undefined {
    return this.#ended
  }

  get runs(): boolean {
    return this.#ended === undefined
  }

  end(reason: string): void {
    this.#ended ??= reason
    this.holders.clear()
  }

  get title(): string {
    return `process ${this.plan.number}`
  }

  operations(): number {
    return this.completed.reduce((sum, each) => sum + each, 0)
  }

  isAlive(page: PageNumber, version: Version): boolean {
    return version >= this.born.get(page)
  }
}
