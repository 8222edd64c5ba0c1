/** What all pagers of one simulated cluster share. */

import type { Checks } from '../checkers/checks.js'
import type { VirtualClock } from '../clock.js'
import type { SimHost } from '../host.js'
import type { SimNetwork } from '../network.js'
import type { SeededRng } from '../rng.js'
import type { LaneFrame } from './lane.js'
import type { SimPager } from './pager.js'

/** Bugs on purpose, to see whether the checks see them. */
export type Planted =
  | 'keeps-given-pages'
  | 'forgets-a-page'
  | 'runs-jumped-threads'
  | 'pushes-without-room'
  | 'sends-no-drops'
  | 'keeps-a-lease'
  /** Which is no bug: lies may cost time and nothing else. */
  | 'lies-about-pages'
  | 'none'

export interface Site {
  readonly clock: VirtualClock
  readonly network: SimNetwork
  readonly rng: SeededRng
  readonly checks: Checks
  readonly planted: Planted
  /** The pager that listens there. */
  find(address: string, port: number): SimPager | undefined
  onFrame(from: SimHost, to: SimHost, frame: LaneFrame): void
  /** How long a thread works between two groups of operations. */
  readonly thinkMs: number
}
