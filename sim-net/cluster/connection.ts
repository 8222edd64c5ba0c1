/**
 * The agent's connection to a simulated pager of its host. Nothing here waits for a promise, since none is kept between
 * two steps of the virtual clock.
 */

import type {
  Describe,
  PagerCommand,
  PagerConnection,
  PagerEvent,
  PagerStats,
} from '../../agent/executor/pagers.js'
import { PAGER_ANSWER_MS } from '../../agent/executor/probes.js'
import type { Clock } from '../../agent/ports/clock.js'
import type { SimPager } from './pager.js'

const ANSWER_MS = 0.1

/** Whether the pager of a connection does anything, as the agent's probes ask. */
export function answersOf(clock: Clock) {
  return (pager: PagerConnection, tell: (answers: boolean) => void): void => {
    let told = false
    const once = (answers: boolean) => {
      if (!told) tell(answers)
      told = true
    }
    if (pager instanceof SimConnection) pager.whenItRuns(() => once(true))
    clock.at(clock.now() + PAGER_ANSWER_MS, () => once(false))
  }
}

export class SimConnection implements PagerConnection {
  readonly describe: Describe
  readonly #pager: SimPager
  readonly #listeners = new Set<(event: PagerEvent) => void>()
  #open = true

  constructor(pager: SimPager) {
    this.#pager = pager
    this.describe = pager.describe
  }

  send(command: PagerCommand): void {
    if (this.#open && this.#pager.alive) this.#pager.onCommand(command)
  }

  whenItRuns(act: () => void): void {
    if (this.#open) this.#pager.later(ANSWER_MS, act)
  }

  emit(event: PagerEvent): void {
    if (this.#open) for (const listener of [...this.#listeners]) listener(event)
  }

  on(listener: (event: PagerEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** It ends with its pager only, which says so before. */
  onClose(): void {}

  requestStats(): Promise<PagerStats> {
    return Promise.reject(new Error('a simulated pager is asked directly'))
  }

  close(): void {
    this.#open = false
  }
}
