/**
 * The programs of the matrix. To add one: an entry in the list of its kind.
 *
 * A footprint must be several times the least `--memory` of 4M, or a quarter of it could not be asked for.
 */

import { OWN } from './own.js'
import type { MatrixProgram } from './program.js'
import { SERVERS_AND_TREES } from './trees.js'
import { UTILITIES } from './utilities.js'

export const PROGRAMS: readonly MatrixProgram[] = [...UTILITIES, ...SERVERS_AND_TREES, ...OWN]
