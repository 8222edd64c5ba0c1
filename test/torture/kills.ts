/**
 * The home pager is killed under a program that copies its memory to a file, again and again: the program dies with
 * it, and no page of zeros, which is what a page that is away reads as without a pager, may have reached the file.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { startScene, wrongWord } from '../faults/scene.js'
import type { TestCluster } from '../helpers/cluster.js'
import { leftovers } from '../helpers/leftovers.js'
import type { Dice } from './dice.js'

const RUN_FAILED = 125
/** About as long as the program takes to go through its memory once more. */
const DELAY_MS_MAX = 300

/** One kill at a moment that `dice` chooses, on the agents a and b. Resolves to what was wrong: one line each. */
export async function killOnce(cluster: TestCluster, dice: Dice): Promise<string[]> {
  const scene = await startScene(cluster, 2)
  await sleep(dice.number(0, DELAY_MS_MAX))
  process.kill(cluster.pagerOf('a').pid, 'SIGKILL')
  const end = await scene.running.outcome
  const problems = end.status === RUN_FAILED ? [] : [`exit status ${end.status ?? end.signal}: ${end.stderr}`]
  problems.push(...(await leftovers(cluster, scene.before, scene.during)))
  const wrong = wrongWord(scene.copy)
  if (wrong !== undefined) problems.push(`the copy: ${wrong}`)
  return problems
}
