/**
 * The benchmark's report has the shape that test/bench/README.md promises. Nothing is asserted about times: they are the machine's
 * business, and it has neighbours.
 */

import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test from 'ava'
import fc from 'fast-check'

import { type Figure, median, percentile, Rounds } from './bench/figure.js'
import { movedByLru } from './bench/lru.js'
import { ROOT } from './helpers/native.js'
import { check } from './helpers/seed.js'

const execute = promisify(execFile)
const MAIN = join(ROOT, 'dist', 'test', 'bench', 'main.js')

/** The figure is to be 1.1; a count, no time, but how evictions fall into the run is chance. */
const RANDOM_RATIO_MAX = 1.25

interface Report {
  readonly machine: string
  readonly node: string
  readonly commit: string
  readonly figures: readonly Figure[]
}

test('npm run bench -- --json --quick --only pull', async t => {
  t.timeout(400_000) // the native halves are compiled first
  const { stdout, stderr } = await execute(process.execPath, [MAIN, '--json', '--quick', '--only', 'pull'], {
    timeout: 380_000,
  })
  const report: Report = JSON.parse(stdout)
  t.deepEqual(Object.keys(report), ['machine', 'node', 'commit', 'figures'])
  t.true(report.machine !== '' && report.node === process.version)
  const names = ['raw', 'rawTls', 'localFault', 'pull', 'pull/raw', 'pull/p99']
  t.deepEqual(
    report.figures.map(({ name, cpus }) => `${name} ${cpus}`),
    [1, 2].flatMap(cpus => names.map(name => `${name} ${cpus}`)),
  )
  for (const figure of report.figures) {
    t.deepEqual(Object.keys(figure).toSorted(), [
      'cpus',
      'name',
      'note',
      'p50',
      'p99',
      'ratio',
      'reference',
      'unit',
    ])
    t.true(figure.p50 > 0 && figure.p99 >= figure.p50 && figure.unit === 'µs' && figure.note !== '')
    const divided = figure.name.startsWith('pull')
    t.is(figure.reference !== null, divided)
    t.is((figure.ratio ?? 0) > 0, divided)
  }
  t.regex(stderr, /^bench: /m)
})

test('npm run bench -- --json --quick --only random-access', async t => {
  t.timeout(400_000)
  const args = [MAIN, '--json', '--quick', '--only', 'random-access']
  const { stdout } = await execute(process.execPath, args, { timeout: 380_000 })
  const { figures }: Report = JSON.parse(stdout)
  const [lru, ours] = figures
  t.deepEqual(
    figures.map(figure => figure.name),
    ['random-access/lru', 'random-access'],
  )
  t.log(`${ours?.p50} pages, ${ours?.ratio} of what exact LRU moves`)
  t.is(lru?.ratio, null)
  t.true((lru?.p50 ?? 0) > 0 && (ours?.p50 ?? 0) > 0 && ours?.unit === 'pages')
  t.true((ours?.ratio ?? Number.POSITIVE_INFINITY) < RANDOM_RATIO_MAX)
})

test('an unknown figure is an error, not an empty report', async t => {
  const failed = await t.throwsAsync(
    execute(process.execPath, [MAIN, '--only', 'nothing'], { timeout: 380_000 }),
  )
  t.regex(String(failed?.message), /no figure nothing/)
})

test('ratios are taken within a round', t => {
  const rounds = new Rounds(1)
  for (const factor of [1, 10, 3]) {
    rounds.add('slow', { p50: 4 * factor, p99: 5 * factor, unit: 's' })
    rounds.add('fast', { p50: 2 * factor, p99: 2 * factor, unit: 's' })
  }
  const figure = rounds.figure('slow', 'slow', 'fast', '', p50Of => p50Of('fast'))
  t.is(figure.ratio, 2)
  t.is(figure.p50, 12)
  t.is(figure.p99, 15)
})

test('percentiles', t => {
  t.is(median([3, 1, 2]), 2)
  t.is(percentile([1, 2, 3, 4], 0.99), 4)
  t.is(percentile([1], 0.01), 1)
  t.throws(() => percentile([], 0.5), { instanceOf: RangeError })
})

test('exact LRU: by hand', t => {
  t.deepEqual(movedByLru([1, 2, 3, 1, 2, 3], 3), { pulled: 0, pushed: 0 })
  t.deepEqual(movedByLru([1, 2, 3, 1, 2, 3], 2), { pulled: 3, pushed: 4 })
  t.deepEqual(movedByLru([1, 2, 1, 3, 1, 2], 2), { pulled: 1, pushed: 2 })
  t.throws(() => movedByLru([1], 0), { instanceOf: RangeError })
})

test('exact LRU: a page comes back if as many others were used since', async t => {
  const strings = fc.array(fc.nat({ max: 12 }), { maxLength: 200 })
  await check(
    t,
    fc.property(strings, fc.integer({ min: 1, max: 14 }), (references, capacity) => {
      // Its stack distance decides (Mattson et al., IBM Systems Journal 1970).
      const pulled = references.filter((page, i) => {
        const before = references.slice(0, i).lastIndexOf(page)
        return before >= 0 && new Set(references.slice(before + 1, i)).size >= capacity
      }).length
      const pushed = pulled + Math.max(0, new Set(references).size - capacity)
      t.deepEqual(movedByLru(references, capacity), { pulled, pushed })
    }),
  )
})
