/** What all parts of one simulated network share. */

import type { VirtualClock } from './clock.js'
import type { Topology } from './topology.js'
import type { Trace } from './trace.js'

export interface World {
  readonly clock: VirtualClock
  readonly topology: Topology
  readonly trace: Trace
}
