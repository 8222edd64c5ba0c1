/**
 * Memory calls with odd arguments answer as the kernel alone does: some thousand combinations, compared line by line.
 */

import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import test from 'ava'
import type { TestCluster } from '../helpers/cluster.js'
import { buildProgram } from '../helpers/programs.js'
import { startCluster } from '../matrix/matrix.js'

const TIMEOUT_MS = 60_000
const LINES_MIN = 1000
const SHOWN_MAX = 20

let cluster: TestCluster

test.before(async t => {
  t.timeout(TIMEOUT_MS)
  cluster = await startCluster(2)
})

test.after.always(async t => {
  t.deepEqual(await cluster?.stop(), [])
})

test.serial('calls with odd arguments answer as they do alone', async t => {
  t.timeout(TIMEOUT_MS)
  const program = buildProgram('bad_calls', cluster.directory)
  const command = [program, join(cluster.directory, 'mapped')]
  const alone = spawnSync(program, command.slice(1), { encoding: 'utf8', timeout: TIMEOUT_MS })
  t.is(alone.status, 0)
  const flags = ['--memory', '8M', '--participants-min', '2', '--wait', '15s']
  const end = await cluster.run('a', flags, command, { timeoutMs: TIMEOUT_MS }).outcome
  t.is(end.status, 0, end.stderr)
  const expected = alone.stdout.split('\n')
  const got = end.stdout.toString().split('\n')
  t.true(expected.length > LINES_MIN)
  t.is(got.length, expected.length)
  const wrong = expected.flatMap((line, i) =>
    line === got[i] ? [] : [`alone: ${line}   stretched: ${got[i]}`],
  )
  t.deepEqual(wrong.slice(0, SHOWN_MAX), [])
})
