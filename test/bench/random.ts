/**
 * Random access with half of the memory at home: pages moved, against exact LRU over the same references with room for
 * as many pages. The pages of libraries and stack are in no reference string: they are at the expense of the stretched run, and so is the
 * reserve that is kept free.
 */

import { movedByLru } from './lru.js'
import type { Measure } from './measures.js'
import { programPath, runNatively } from './native.js'
import { runPair } from './pair.js'

const NAME = 'random-access'
const SHARE = 0.5

export const RANDOM_ACCESS: Measure = {
  name: NAME,
  reports: [`${NAME}/lru`],
  async round(rounds, quick) {
    const command = [programPath('dict'), ...(quick ? [60_000, 40_000] : [200_000, 100_000]).map(String)]
    const traced = await runNatively([...command, 'trace'])
    const references = traced.stdout.trim().split('\n').map(Number)
    const memoryPages = Math.round(SHARE * new Set(references).size)
    const lru = movedByLru(references, memoryPages)
    const native = await runNatively(command)
    const { stdout, stats } = await runPair({ cpus: rounds.cpus, memoryPages, command })
    if (stdout !== native.stdout) throw new Error(`${NAME}: the output differs`)
    const pages = (count: number) => ({ p50: count, p99: count, unit: 'pages' })
    rounds.add(`${NAME}/lru`, pages(lru.pulled + lru.pushed))
    rounds.add(NAME, pages((stats.pagesPulled ?? 0) + (stats.pagesPushed ?? 0)))
  },
  report(rounds) {
    return [
      rounds.reference(`${NAME}/lru`, 'exact LRU over the references of the same program, the same pages'),
      rounds.figure(
        NAME,
        NAME,
        `${NAME}/lru`,
        'pulled and pushed by a dictionary that is filled and looked up at random, half of it at home',
        p50Of => p50Of(`${NAME}/lru`),
      ),
    ]
  },
}
