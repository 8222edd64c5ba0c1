/**
 * The table of outcomes in docs/cli.md without checkpoints, row by row, as tests for any number of nodes.
 *
 * One set of agents serves all rows of a file; a row that kills agents starts them again in the same directories, which
 * is a test of its own: whatever the killed one left there must neither stop the new one nor stay.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import { TestCluster, until } from '../helpers/cluster.js'
import { alive, taggedPids } from '../helpers/processes.js'
import { applicationOf, expectClean, expectProgress, killAll, type Scene, startScene } from './scene.js'

const RUN_FAILED = 125
const SIGNAL_STATUS_BASE = 128
const SIGKILL = 9
const SIGTERM = 15
/** The moment between the userfaultfd's release and the application's death differs from kill to kill. */
const HOME_PAGER_KILLS = 4
const STALL_MS = 2000
const PAGERS_GONE_MS = 5000

/** Registers the rows. Call it once in a test file. */
export function testOutcomes(nodes: number): void {
  let cluster: TestCluster
  const scene = (rounds?: number) => startScene(cluster, nodes, rounds === undefined ? {} : { rounds })
  const family = () => startScene(cluster, nodes, { withChild: true })

  test.before(async () => {
    cluster = await TestCluster.make()
    await cluster.startAgents(nodes, { flags: ['--capacity', '64M'] })
  })
  test.after.always(async t => {
    t.deepEqual(await cluster?.stop(), [])
  })

  test.serial(`${nodes} nodes: the application is killed`, async t => applicationKilled(t, await scene()))
  test.serial(`${nodes} nodes: the home pager is killed, again and again`, async t => {
    for (let i = 1; i < HOME_PAGER_KILLS; i++) await homePagerKilled(t, await scene())
    await homePagerKilled(t, await family())
  })
  test.serial(`${nodes} nodes: run itself is killed`, async t => runKilled(t, await family()))
  test.serial(`${nodes} nodes: a participant's pager is killed`, async t =>
    peerPagerKilled(t, await family()),
  )
  test.serial(`${nodes} nodes: a participant's host dies`, async t => participantHostDies(t, await scene()))
  test.serial(`${nodes} nodes: home's host dies`, async t => homeHostDies(t, await scene()))
  test.serial(`${nodes} nodes: home's agent is killed and comes back`, async t =>
    agentComesBack(t, await scene(), 'a', 'home'),
  )
  test.serial(`${nodes} nodes: a participant's agent is killed and comes back`, async t =>
    agentComesBack(t, await scene(), 'b', 'participant'),
  )
  test.serial(`${nodes} nodes: all agents are killed and the program ends without them`, async t =>
    endsWithoutAgents(t, await scene(4)),
  )
  test.serial(`${nodes} nodes: a participant's pager stalls for two seconds`, async t =>
    peerStalls(t, await scene(5)),
  )
}

async function applicationKilled(t: ExecutionContext, scene: Scene): Promise<void> {
  const end = await killAll(t, scene, [await applicationOf(scene)])
  t.is(end.status, SIGNAL_STATUS_BASE + SIGKILL)
  t.is(end.stderr, '')
  t.is(end.stats?.exitStatus, SIGNAL_STATUS_BASE + SIGKILL)
  await expectClean(t, scene)
}

async function homePagerKilled(t: ExecutionContext, scene: Scene): Promise<void> {
  const application = await applicationOf(scene)
  const { pid, id } = scene.cluster.pagerOf('a')
  const end = await killAll(t, scene, [pid])
  t.is(end.status, RUN_FAILED)
  t.is(end.stderr, 'elasticos: the pager ended (killed by SIGKILL), and the program with it; run it again\n')
  t.is(end.stats?.exitStatus, RUN_FAILED)
  await until('the end of the application', () => !alive(application), PAGERS_GONE_MS)
  await expectClean(t, scene)
  t.regex(scene.cluster.log('b'), new RegExp(`${id}: pager told to end: its home has ended`))
}

async function runKilled(t: ExecutionContext, scene: Scene): Promise<void> {
  const application = await applicationOf(scene)
  const end = await killAll(t, scene, [scene.running.pid])
  t.is(end.signal, 'SIGKILL')
  await until('the end of the application', () => !alive(application), PAGERS_GONE_MS)
  await expectClean(t, scene)
}

async function peerPagerKilled(t: ExecutionContext, scene: Scene): Promise<void> {
  const end = await killAll(t, scene, [scene.cluster.pagerOf('b').pid])
  expectLost(t, end)
  await expectClean(t, scene)
}

async function participantHostDies(t: ExecutionContext, scene: Scene): Promise<void> {
  const { cluster } = scene
  const end = await killAll(t, scene, [cluster.agent('b').pid, cluster.pagerOf('b').pid])
  expectLost(t, end)
  await cluster.restartAgent('b')
  await expectClean(t, scene)
}

function expectLost(t: ExecutionContext, end: { status: number | null; stderr: string }): void {
  t.is(end.status, RUN_FAILED)
  t.regex(
    end.stderr,
    /^elasticos: node b was lost \(.+\) with \d+ pages and \d+ threads of this process\b.*\n$/,
  )
}

async function homeHostDies(t: ExecutionContext, scene: Scene): Promise<void> {
  const { cluster } = scene
  const application = await applicationOf(scene)
  await killAll(t, scene, [cluster.agent('a').pid, scene.running.pid, cluster.pagerOf('a').pid])
  const gone = () => cluster.pagers().length === 0 && !alive(application)
  await until('the end of all pagers', gone, PAGERS_GONE_MS)
  await cluster.restartAgent('a')
  await expectClean(t, scene)
}

async function agentComesBack(
  t: ExecutionContext,
  scene: Scene,
  name: string,
  role: 'home' | 'participant',
): Promise<void> {
  const { cluster } = scene
  const { id } = cluster.pagerOf('a')
  process.kill(cluster.agent(name).pid, 'SIGKILL')
  await expectProgress(t, scene)
  await cluster.restartAgent(name)
  const [shown] = await cluster.processes(name)
  t.is(shown?.id, id)
  t.is(shown?.role, role)
  t.is(shown?.home, 'a')
  t.true((shown?.residentPages ?? 0) > 0)
  await cluster.whenJoined(scene.nodes)
  const again = (await cluster.nodes(name)).find(node => node.self)
  if (role === 'participant') t.true((again?.freePages ?? 0) < (again?.capacityPages ?? 0))
  await expectProgress(t, scene)
  scene.running.child.kill('SIGTERM')
  const end = await scene.running.outcome
  t.is(end.status, SIGNAL_STATUS_BASE + SIGTERM)
  t.is(end.stderr, '')
  await expectClean(t, scene)
}

async function endsWithoutAgents(t: ExecutionContext, scene: Scene): Promise<void> {
  const { cluster } = scene
  for (const agent of cluster.agents.values()) process.kill(agent.pid, 'SIGKILL')
  const end = await scene.running.outcome
  t.is(end.status, 0)
  t.is(end.stdout.toString(), 'filled\nround 1\nround 2\nround 3\nround 4\n')
  await until('the end of all pagers', () => taggedPids(cluster.directory).length === 0, PAGERS_GONE_MS)
  await Promise.all([...cluster.agents.keys()].map(name => cluster.restartAgent(name)))
  await cluster.whenJoined(scene.nodes)
  await expectClean(t, scene)
}

/** The program finds its pages there again, and nothing is lost: a stall is not a death. */
async function peerStalls(t: ExecutionContext, scene: Scene): Promise<void> {
  const { pid } = scene.cluster.pagerOf('b')
  process.kill(pid, 'SIGSTOP')
  await sleep(STALL_MS)
  process.kill(pid, 'SIGCONT')
  const end = await scene.running.outcome
  t.is(end.status, 0, end.stderr)
  t.is(end.stdout.toString().split('\n').at(-2), 'round 5')
  t.is(end.stats?.mode, 'stretched')
  await expectClean(t, scene)
}
