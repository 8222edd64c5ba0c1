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

export class SimProcess {
  readonly pagers = new Set<SimPager>()
  /** The last number written to each page, and the version with which its present life began. */
  readonly contents = new Map<PageNumber, number>()
  readonly born = new Map<PageNumber, Version>()
  readonly holders = new Map<PageNumber, SimPager>()
  /** Operations that each thread has completed. */
  readonly completed: number[]
  written = 0
  /** Undefined while it runs; "" when it ended by itself, else why. */
  ended: string | undefined
  pulls = 0
  jumps = 0
  pushes = 0
  askedByHint = 0

  constructor(readonly plan: ProcessPlan) {
    this.completed = Array.from({ length: plan.threads }, () => 0)
  }

  get runs(): boolean {
    return this.ended === undefined
  }

  get title(): string {
    return `process ${this.plan.number}`
  }

  operations(): number {
    return this.completed.reduce((sum, each) => sum + each, 0)
  }

  isAlive(page: PageNumber, version: Version): boolean {
    return version >= (this.born.get(page) ?? 0)
  }
}
