/**
 * A program and its children: those it leaves behind live on after its end, as they do alone, and nothing else does.
 */

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import type { TestCluster } from '../helpers/cluster.js'
import { startCluster } from '../matrix/matrix.js'

const TIMEOUT_MS = 60_000
const CHILD_SECONDS = 2

let cluster: TestCluster

test.before(async t => {
  t.timeout(TIMEOUT_MS)
  cluster = await startCluster(2)
})

test.after.always(async t => {
  t.deepEqual(await cluster?.stop(), [])
})

test.serial('a child that is left behind lives on, and its pager only as long', async t => {
  t.timeout(TIMEOUT_MS)
  const late = join(cluster.directory, 'late')
  const child = `sleep ${CHILD_SECONDS}; sh -c "echo late" > ${late}`
  const script = `(${child}) </dev/null >/dev/null 2>&1 & echo early; exit 3`
  const flags = ['--memory', '8M', '--participants-min', '2', '--wait', '15s']
  const end = await cluster.run('a', flags, ['sh', '-c', script], { timeoutMs: TIMEOUT_MS }).outcome
  t.is(end.status, 3, end.stderr)
  t.is(end.stdout.toString(), 'early\n')
  t.false(existsSync(late), 'run waited for the child')
  const deadline = performance.now() + 10_000 + CHILD_SECONDS * 1000
  while (cluster.pagers().length > 0 && performance.now() < deadline) await sleep(100)
  t.deepEqual(cluster.pagers(), [])
  t.is(readFileSync(late, 'utf8'), 'late\n')
})
