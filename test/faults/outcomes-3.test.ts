/** What the death of each part of a stretched process means, on three nodes: see outcomes.ts. */

import { testOutcomes } from './outcomes.js'

testOutcomes(3)
