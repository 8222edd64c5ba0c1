/** The agent's connection to a simulated pager of its host. */

import type {
  Describe,
  PagerCommand,
  PagerConnection,
  PagerEvent,
  PagerStats,
} from '../../agent/executor/pagers.js'
import type { SimPager } from './pager.js'

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
