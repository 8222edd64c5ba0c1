/** Something that a simulated pager is to do later: unless it is gone by then, and not while it is stalled. */

import type { Due } from '../clock.js'
import type { SimPager } from './pager.js'

const STALL_LOOK_MS = 5

export class PagerTimer implements Due {
  readonly #pager: SimPager
  readonly #act: () => void

  constructor(pager: SimPager, act: () => void) {
    this.#pager = pager
    this.#act = act
  }

  due(): void {
    const { alive, stalled, site } = this.#pager
    if (!alive) return
    if (stalled) site.clock.soon(site.clock.now() + STALL_LOOK_MS, this)
    else this.#act()
  }
}
