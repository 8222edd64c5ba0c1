/** What an agent has of its machine besides network and pagers. A simulation gives it others. */

import { type Clock, systemClock } from './clock.js'
import { type Rng, type Secrets, systemRng, systemSecrets } from './rng.js'

export interface Surroundings {
  readonly clock: Clock
  readonly rng: Rng
  readonly secrets: Secrets
}

export const SYSTEM: Surroundings = { clock: systemClock, rng: systemRng, secrets: systemSecrets }
