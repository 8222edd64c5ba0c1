/** Something that a simulated pager is to do later: unless it is gone by then, and not while its host is stalled. */

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
    const { alive, host, site } = this.#pager
    if (!alive) return
    if (host.stalled) site.clock.soon(site.clock.now() + STALL_LOOK_MS, this)
    else this.#act()
  }
}
