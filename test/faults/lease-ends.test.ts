/**
 * Leases that end or shrink in mid-run while their lender holds pages: its agent stops, stands still, or loses the
 * memory it lends; a participant is contracted and joins again. What was lent goes to others or to the disk, the run
 * goes on and its output is right; where there is no room for it, it ends with one line.
 */

import { readFileSync, writeFileSync } from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import { makeCluster, until } from '../helpers/cluster.js'
import { Mounts, mountsMissing } from '../helpers/mounts.js'
import { alive } from '../helpers/processes.js'
import { contract, expectClean, expectProgress, type Scene, startScene } from './scene.js'

const RUN_FAILED = 125
const TERMINATED = 128 + 15
const NODES = 3
const LENDS = ['--capacity', '64M']
/** What does not fit into home's memory fits into this, and not into three quarters of it. */
const HARDLY_ENOUGH = '16M'
/** As the lease machine waits before it asks again who was dropped, many times over. */
const JOIN_AGAIN_MS = 60_000
/** An agent looks at its machine's memory every five seconds. */
const SHRINK_WITHIN_MS = 60_000

function holdsPages({ cluster }: Scene, name: string): boolean {
  return cluster.pagers().some(pager => pager.node === name)
}

async function expectDrained(t: ExecutionContext, scene: Scene, name: string): Promise<void> {
  await until(`${name} to hold nothing`, () => !holdsPages(scene, name), JOIN_AGAIN_MS)
  await expectProgress(t, scene)
}

async function terminate(t: ExecutionContext, scene: Scene): Promise<void> {
  scene.running.child.kill('SIGTERM')
  const end = await scene.running.outcome
  t.is(end.status, TERMINATED, end.stderr)
  t.is(end.stderr, '')
  await expectClean(t, scene)
}

test.serial('participants that are contracted, freeze, stop and come back in one run', async t => {
  const cluster = await makeCluster(t)
  await cluster.startAgents(NODES, { flags: LENDS })
  const scene = await startScene(cluster, NODES)

  const { pid } = cluster.pagerOf('b')
  await contract(cluster, 'b')
  const joinedAgain = () => cluster.pagers().some(pager => pager.node === 'b' && pager.pid !== pid)
  await until('b to be contracted and to join again', joinedAgain, JOIN_AGAIN_MS)
  t.false(alive(pid))
  await expectProgress(t, scene)

  const agent = cluster.agent('c').pid
  process.kill(agent, 'SIGSTOP')
  try {
    await expectProgress(t, scene)
    await contract(cluster, 'c')
    await expectDrained(t, scene, 'c')
  } finally {
    process.kill(agent, 'SIGCONT')
  }
  await until('c to join again', () => holdsPages(scene, 'c'), JOIN_AGAIN_MS)

  await cluster.stopAgent('b')
  await expectDrained(t, scene, 'b')
  await cluster.stopAgent('c')
  await expectDrained(t, scene, 'c')
  const [shown] = await cluster.processes('a')
  t.true(Number(shown?.stats?.pagesSpilled) > 0)

  await cluster.startAgent('b', { flags: LENDS })
  await until('b to take part again', () => holdsPages(scene, 'b'), JOIN_AGAIN_MS)
  await expectProgress(t, scene)
  await terminate(t, scene)
})

const missing = mountsMissing()
const maybe = missing === undefined ? test.serial : test.serial.skip
if (missing !== undefined) console.log(`skipped, no mounts: ${missing}`)

maybe(
  'a lender short of memory takes a part back; when it stops and the disk is full, the run ends',
  async t => {
    const cluster = await makeCluster(t)
    const said = readFileSync('/proc/meminfo', 'utf8')
    const meminfo = cluster.path('meminfo')
    writeFileSync(meminfo, said)
    const mounts = await Mounts.make(`mount --bind ${meminfo} /proc/meminfo`)
    t.teardown(() => mounts.remove())
    await cluster.startAgent('a', { flags: [...LENDS, '--spill-max', '1M'] })
    const prefix = mounts.prefix(cluster.directory)
    await cluster.startAgent('b', { flags: ['--capacity', HARDLY_ENOUGH], prefix })
    const scene = await startScene(cluster, 2)
    const held = async () => (await cluster.processes('b'))[0]?.residentPages ?? 0
    const before = await held()
    writeFileSync(meminfo, said.replace(/^MemAvailable:.*$/m, 'MemAvailable:       1000 kB'))
    await until('less to be held', async () => (await held()) < before * 0.9, SHRINK_WITHIN_MS)
    t.log(`${before} pages were held, then ${await held()}`)
    await expectProgress(t, scene)

    await cluster.stopAgent('b')
    const end = await scene.running.outcome
    t.is(end.status, RUN_FAILED)
    t.regex(end.stderr, /^elasticos: no room for page 0x[0-9a-f]+: .+\n$/)
    await expectClean(t, scene)
  },
)
