/**
 * The benchmark's report has the shape that test/bench/README.md promises. Nothing is asserted about times: they are the machine's
 * business, and it has neighbours.
 */

import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test from 'ava'

import { type Figure, median, percentile, Rounds } from './bench/figure.js'
import { ROOT } from './helpers/native.js'

const execute = promisify(execFile)
const MAIN = join(ROOT, 'dist', 'test', 'bench', 'main.js')

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
