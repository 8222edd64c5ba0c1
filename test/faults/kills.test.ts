/** Kills of the home pager at random moments: no page of zeros in any file. `npm run torture -- --kills 1000`: more. */

import test from 'ava'
import { TestCluster } from '../helpers/cluster.js'
import { SEED } from '../helpers/seed.js'
import { Dice } from '../torture/dice.js'
import { killOnce } from '../torture/kills.js'

const KILLS = 60
const TIMEOUT_MS = 900_000

test('no page of zeros reaches a file, however often the home pager is killed', async t => {
  t.timeout(TIMEOUT_MS)
  const dice = new Dice(SEED)
  const cluster = await TestCluster.make()
  try {
    await cluster.startAgents(2, { flags: ['--capacity', '64M'] })
    for (let i = 1; i <= KILLS; i++)
      t.deepEqual(await killOnce(cluster, dice), [], `kill ${i}, ELASTICOS_SEED=${SEED}`)
  } finally {
    t.deepEqual(await cluster.stop(), [])
  }
})
