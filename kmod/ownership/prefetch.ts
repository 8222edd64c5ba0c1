/**
 * Adaptive prefetch: a few remembered streams of faults, up or down. A fault that continues one doubles its window, any
 * other starts at one page. Twin of kmod/pager/src/prefetch.cpp, and of the bound on first touches in engine_fault.cpp.
 */

import type { PageNumber } from '../../placement/ids.js'
import type { Prefetch } from './types.js'

const STREAMS = 16
const WINDOW_MAX = 64
/** Filling what is never used costs memory. */
const FIRST_TOUCHES_MAX = 16

interface Stream {
  nextUp: number
  nextDown: number
  window: number
  used: number
}

export class StreamPrefetch implements Prefetch {
  readonly #streams: Stream[] = Array.from({ length: STREAMS }, () => ({
    nextUp: 0,
    nextDown: 0,
    window: 0,
    used: 0,
  }))
  #current: Stream | undefined
  #clock = 0

  plan(page: PageNumber, cause: Parameters<Prefetch['plan']>[1]): { count: number; down: boolean } {
    const { count, down } = this.#onFault(page)
    return { count: cause === 'first-touch' ? Math.min(count, FIRST_TOUCHES_MAX) : count, down }
  }

  fetched(first: PageNumber, count: number): void {
    if (this.#current === undefined) return
    this.#current.nextUp = first + count
    this.#current.nextDown = first - 1
  }

  #onFault(page: PageNumber): { count: number; down: boolean } {
    this.#clock++
    let oldest: Stream | undefined
    for (const stream of this.#streams) {
      if (stream.window > 0 && (stream.nextUp === page || stream.nextDown === page)) {
        stream.used = this.#clock
        stream.window = Math.min(stream.window * 2, WINDOW_MAX)
        this.#current = stream
        return { count: stream.window, down: stream.nextUp !== page }
      }
      if (oldest === undefined || stream.used < oldest.used) oldest = stream
    }
    if (oldest !== undefined)
      Object.assign(oldest, { nextUp: page + 1, nextDown: page - 1, window: 1, used: this.#clock })
    this.#current = oldest
    return { count: 1, down: false }
  }
}
