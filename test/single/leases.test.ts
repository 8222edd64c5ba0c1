/**
 * Leases of real agents: two runs at once each get room of one lender, and a run that needs more than it was first
 * granted gets it while it pushes.
 */

import test from 'ava'
import { TestCluster } from '../helpers/cluster.js'
import { buildProgram } from '../helpers/programs.js'

const TIMEOUT_MS = 90_000
/** What `b` lends; a lease of it begins with a quarter. */
const CAPACITY = '128M'
const FIRST_PAGES = 8192
const FLAGS = ['--participants-min', '2', '--wait', '15s']

let cluster: TestCluster

test.before(async t => {
  t.timeout(TIMEOUT_MS)
  cluster = await TestCluster.make()
  await cluster.startAgents(2, { flags: ['--capacity', CAPACITY] })
})

test.after.always(async t => {
  t.deepEqual(await cluster?.stop(), [])
})

test.serial('two runs at once each get a participant', async t => {
  t.timeout(TIMEOUT_MS)
  const first = cluster.run('a', ['--memory', '4M', ...FLAGS], ['sh', '-c', 'echo up; exec sleep 1000'])
  try {
    while (!first.stdout.includes('up')) await new Promise(resolve => setTimeout(resolve, 20))
    const second = await cluster.run('a', ['--memory', '4M', ...FLAGS], ['echo', 'ok']).outcome
    t.is(second.status, 0, second.stderr)
  } finally {
    first.child.kill('SIGTERM')
    await first.outcome
  }
})

test.serial('a lease grows as it fills', async t => {
  t.timeout(TIMEOUT_MS)
  const program = buildProgram('linear_search', cluster.directory)
  const running = cluster.run('a', ['--memory', '6M', ...FLAGS], [program, '20000', '20'], {
    timeoutMs: TIMEOUT_MS,
  })
  const end = await running.outcome
  t.is(end.status, 0, end.stderr)
  const { participants = [], pagesSpilled } = end.stats ?? {}
  const peak = participants.find(one => one.node === 'b')?.peakPages ?? 0
  t.log(`${peak} pages at b, ${pagesSpilled} spilled`)
  t.true(peak > 1.5 * FIRST_PAGES)
})
