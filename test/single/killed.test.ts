/**
 * Tasks that are killed, or end, at any moment, also while the pager has a call made in one of them: the end is that of
 * a run alone, and nobody waits for it in vain.
 */

import test from 'ava'
import { type TestCluster, until } from '../helpers/cluster.js'
import { buildProgram } from '../helpers/programs.js'
import { startCluster } from '../matrix/matrix.js'

const TIMEOUT_MS = 120_000
const ONE_TIMEOUT_MS = 30_000
/** A kill meets a call of the pager about once in four times. */
const KILLS = 16
const ENDS = 5
const HERE = ['--memory', '4M', '--participants', '1']

let cluster: TestCluster
let program: string

test.before(async t => {
  t.timeout(TIMEOUT_MS)
  cluster = await startCluster(1)
  program = buildProgram('killed', cluster.directory)
})

test.after.always(async t => {
  t.deepEqual(await cluster?.stop(), [])
})

const run = (...words: string[]) => cluster.run('a', HERE, [program, ...words], { timeoutMs: ONE_TIMEOUT_MS })

test.serial('a program that is killed while a call is made in its main thread', async t => {
  t.timeout(TIMEOUT_MS)
  for (let i = 0; i < KILLS; i++) {
    const running = run('outside')
    await until('its number', () => running.stdout.endsWith('\n'), ONE_TIMEOUT_MS)
    process.kill(Number(running.stdout), 'SIGKILL')
    const end = await running.outcome
    t.is(end.status, 128 + 9, end.stderr)
    t.is(end.stderr, '')
  }
})

test.serial('a program that ends by a thread while calls are made in the others', async t => {
  t.timeout(TIMEOUT_MS)
  for (let i = 0; i < ENDS; i++) {
    const end = await run('exits', String(i * 1000)).outcome
    t.is(end.status, 7, end.stderr)
    t.is(end.stderr, '')
  }
})

test.serial('children that are killed before they have their memory', async t => {
  t.timeout(TIMEOUT_MS)
  const end = await run('children').outcome
  t.is(end.stdout.toString(), 'done\n', end.stderr)
  t.is(end.status, 0)
  t.is(end.stderr, '')
})
