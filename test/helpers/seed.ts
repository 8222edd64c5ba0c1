/**
 * The seed of a property test: printed whenever a test fails, and settable to repeat that failure
 * (`ELASTICOS_SEED=123 npm test`).
 */

import type { ExecutionContext } from 'ava'
import fc from 'fast-check'

/** One seed for this process: from the environment, else from the clock. */
export const SEED = Number(process.env.ELASTICOS_SEED ?? Date.now() % 2 ** 31)

/**
 * Checks a property with the process's seed; fast-check's report (seed, path, shrunken counter-example) becomes the
 * failure. `runs` is the number of cases.
 */
export async function check<T>(
  t: ExecutionContext,
  property: fc.IProperty<T> | fc.IAsyncProperty<T>,
  runs = 200,
): Promise<void> {
  const outcome = await fc.check(property, { seed: SEED, numRuns: runs })
  if (outcome.failed) t.fail(`ELASTICOS_SEED=${SEED} repeats this\n${fc.defaultReportMessage(outcome)}`)
  else t.pass()
}
