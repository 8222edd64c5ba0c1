/** Canaries: what the fault tests check with does see what it is there to see. */

import { spawn } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import test from 'ava'
import { TestCluster } from '../helpers/cluster.js'
import { leftovers, snapshot } from '../helpers/leftovers.js'
import { runCommand } from '../helpers/native-tests.js'
import { TAG } from '../helpers/processes.js'
import { buildProgram } from '../helpers/programs.js'
import { wrongWord } from './scene.js'

const PAGE_BYTES = 4096

test('a page of zeros in the copy is found', async t => {
  const cluster = await TestCluster.make()
  t.teardown(() => cluster.stop())
  const file = cluster.path('copy')
  t.is(runCommand(buildProgram('copier', cluster.directory), ['1', file, '1']).status, 0)
  t.is(wrongWord(file), undefined)
  const bytes = readFileSync(file)
  bytes.fill(0, 7 * PAGE_BYTES, 8 * PAGE_BYTES)
  writeFileSync(file, bytes)
  t.regex(wrongWord(file) ?? '', /^word 3584 is 0x0, not 0x/)
})

test('a process and a file that stay are found', async t => {
  const cluster = await TestCluster.make()
  t.teardown(() => cluster.stop())
  const before = snapshot(cluster)
  const child = spawn('sleep', ['30'], { env: { PATH: process.env.PATH, [TAG]: cluster.directory } })
  t.teardown(() => child.kill('SIGKILL'))
  mkdirSync(cluster.path('home', 'state'), { recursive: true })
  writeFileSync(cluster.path('home', 'state', 'left'), '')
  const left = await leftovers(cluster, before, [], 300)
  t.deepEqual(left, [`process ${child.pid} (sleep) sleep 30`, 'file home/state/left'])
})
