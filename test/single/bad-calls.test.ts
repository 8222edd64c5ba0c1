/**
 * Calls with odd arguments answer as the kernel alone does, compared line by line: some thousand combinations of memory
 * calls (programs/bad_calls.c), and calls of all kinds with random arguments (programs/wild_calls.c).
 */

import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import type { TestCluster } from '../helpers/cluster.js'
import { buildProgram } from '../helpers/programs.js'
import { SEED } from '../helpers/seed.js'
import { startCluster } from '../matrix/matrix.js'

const TIMEOUT_MS = 120_000
const LINES_MIN = 1000
const WILD_CALLS = 1200
const TWO = ['--participants-min', '2', '--wait', '15s']
const SHOWN_MAX = 20

let cluster: TestCluster

test.before(async t => {
  t.timeout(TIMEOUT_MS)
  cluster = await startCluster(2)
})

test.after.always(async t => {
  t.deepEqual(await cluster?.stop(), [])
})

/** Runs a program of test/programs alone and stretched. */
async function compare(t: ExecutionContext, name: string, args: readonly string[], flags: readonly string[]) {
  const program = buildProgram(name, cluster.directory)
  const alone = spawnSync(program, args, { encoding: 'utf8', timeout: TIMEOUT_MS })
  t.is(alone.status, 0, alone.stderr)
  const end = await cluster.run('a', flags, [program, ...args], { timeoutMs: TIMEOUT_MS }).outcome
  t.is(end.status, 0, end.stderr)
  const expected = alone.stdout.split('\n')
  const got = end.stdout.toString().split('\n')
  t.true(expected.length > LINES_MIN)
  t.is(got.length, expected.length)
  const wrong = expected.flatMap((line, i) =>
    line === got[i] ? [] : [`line ${i + 1}: alone ${line}   stretched ${got[i]}`],
  )
  t.deepEqual(wrong.slice(0, SHOWN_MAX), [])
}

test.serial('memory calls with odd arguments answer as they do alone', async t => {
  t.timeout(TIMEOUT_MS)
  await compare(t, 'bad_calls', [join(cluster.directory, 'mapped')], ['--memory', '8M', ...TWO])
})

for (const { name, flags } of [
  { name: 'alone, the rest on disk', flags: ['--participants', '1'] },
  { name: 'two agents', flags: TWO },
  { name: 'two agents, jumps', flags: [...TWO, '--jump-every', '3'] },
])
  test.serial(`calls with random arguments answer as they do alone (${name})`, async t => {
    t.timeout(TIMEOUT_MS)
    t.log(`ELASTICOS_SEED=${SEED} repeats this`)
    const args = [join(cluster.directory, 'file'), String(SEED), String(WILD_CALLS)]
    await compare(t, 'wild_calls', args, ['--memory', '4M', ...flags])
  })
