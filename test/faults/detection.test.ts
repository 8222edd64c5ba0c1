/**
 * How the failure of a node is found out: a pager that is killed is attested by its own agent, one that stalls is waited
 * for, whether or not its agent stalls, too, and one of which nothing is heard in any way is given up.
 *
 * Times are printed; what is asserted of them leaves a busy machine much room.
 */

import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import { PagerClient } from '../../kmod/pager-client.js'
import { homeSocketPath } from '../../kmod/pager-host.js'
import type { PagerEvent } from '../../kmod/pager-messages.js'
import { TestCluster, until } from '../helpers/cluster.js'
import { commandLine } from '../helpers/processes.js'
import { expectClean, expectProgress, killAll, type Scene, startScene } from './scene.js'

const RUN_FAILED = 125
const SIGTERM_STATUS = 128 + 15
const NODES = 3
const KNOWN_WITHIN_MS = 1_500
const STALL_MS = 2_000
/** Longer than a pager waits that hears of no agent. */
const LONG_STALL_MS = 7_000
const ROUNDS = 5

let cluster: TestCluster

test.before(async () => {
  cluster = await TestCluster.make()
  await cluster.startAgents(NODES, { flags: ['--capacity', '64M'] })
})
test.after.always(async t => {
  t.deepEqual(await cluster?.stop(), [])
})

/** Stops processes for a while. */
async function stall(pids: readonly number[], forMs: number): Promise<void> {
  for (const pid of pids) process.kill(pid, 'SIGSTOP')
  await sleep(forMs)
  for (const pid of pids) process.kill(pid, 'SIGCONT')
}

async function expectRight(t: ExecutionContext, scene: Scene): Promise<void> {
  const end = await scene.running.outcome
  t.is(end.status, 0, end.stderr)
  t.is(end.stderr, '')
  t.is(end.stdout.toString().split('\n').at(-2), `round ${ROUNDS}`)
  await expectClean(t, scene)
}

async function end(t: ExecutionContext, scene: Scene): Promise<void> {
  scene.running.child.kill('SIGTERM')
  t.is((await scene.running.outcome).status, SIGTERM_STATUS)
  await expectClean(t, scene)
}

test.serial('a participant’s pager is killed: its agent says so, and home knows at once', async t => {
  const scene = await startScene(cluster, NODES)
  const { pid } = cluster.pagerOf('b')
  const killedAtMs = performance.now()
  const end = await killAll(t, scene, [pid])
  const tookMs = end.endedAtMs - killedAtMs
  t.log(`run ended ${Math.round(tookMs)} ms after the kill`)
  t.is(end.status, RUN_FAILED)
  t.regex(
    end.stderr,
    /^elasticos: node b was lost \(its agent has seen its pager end\) with \d+ pages and \d+ threads\b.*\n$/,
  )
  t.true(tookMs < KNOWN_WITHIN_MS)
  await expectClean(t, scene)
})

test.serial('the home pager is killed: the participants’ pagers end at once', async t => {
  const scene = await startScene(cluster, NODES)
  const { pid } = cluster.pagerOf('a')
  const killedAtMs = performance.now()
  process.kill(pid, 'SIGKILL')
  await until('the end of all pagers', () => cluster.pagers().length === 0)
  const tookMs = performance.now() - killedAtMs
  t.log(`all pagers had ended ${Math.round(tookMs)} ms after the kill`)
  t.is((await scene.running.outcome).status, RUN_FAILED)
  t.true(tookMs < KNOWN_WITHIN_MS)
  await expectClean(t, scene)
})

test.serial('a participant’s pager and its agent stall for two seconds', async t => {
  const scene = await startScene(cluster, NODES, { rounds: ROUNDS })
  await stall([cluster.pagerOf('b').pid, cluster.agent('b').pid], STALL_MS)
  await expectRight(t, scene)
})

test.serial('a participant’s agent stalls for two seconds', async t => {
  const scene = await startScene(cluster, NODES, { rounds: ROUNDS })
  await stall([cluster.agent('b').pid], STALL_MS)
  await expectRight(t, scene)
})

test.serial('home’s pager and its agent stall for two seconds', async t => {
  const scene = await startScene(cluster, NODES, { rounds: ROUNDS })
  await stall([cluster.pagerOf('a').pid, cluster.agent('a').pid], STALL_MS)
  await expectRight(t, scene)
})

test.serial('home’s pager stalls for longer than it would wait for one that stalls meanwhile', async t => {
  const scene = await startScene(cluster, NODES, { rounds: ROUNDS })
  const participant = cluster.pagerOf('b').pid
  process.kill(participant, 'SIGSTOP')
  await sleep(LONG_STALL_MS)
  await stall([cluster.pagerOf('a').pid], LONG_STALL_MS)
  await sleep(STALL_MS)
  process.kill(participant, 'SIGCONT')
  await expectRight(t, scene)
})

for (const name of ['b', 'a'])
  test.serial(`the pager of ${name} stalls for long while its agent answers for it`, async t => {
    const scene = await startScene(cluster, NODES, { rounds: ROUNDS })
    const { id } = scene.cluster.pagerOf('a')
    await stall([cluster.pagerOf(name).pid], LONG_STALL_MS)
    await expectRight(t, scene)
    const log = cluster.log(name === 'a' ? 'b' : 'a')
    t.regex(log, new RegExp(`${id}: ${name} is suspected: silent for \\d\\.\\d s`))
    t.regex(log, new RegExp(`${id}: ${name} is heard again`))
  })

test.serial(
  'neither a participant’s pager nor its agent comes back: given up after three seconds',
  async t => {
    const scene = await startScene(cluster, NODES)
    const pids = [cluster.pagerOf('b').pid, cluster.agent('b').pid]
    const stoppedAtMs = performance.now()
    for (const pid of pids) process.kill(pid, 'SIGSTOP')
    const end = await scene.running.outcome
    for (const pid of pids) process.kill(pid, 'SIGCONT')
    t.log(`run ended ${Math.round(end.endedAtMs - stoppedAtMs)} ms after they were stopped`)
    t.is(end.status, RUN_FAILED)
    t.regex(
      end.stderr,
      /^elasticos: node b was lost \(silent for \d\.\d s, and nobody reaches its agent\) with /,
    )
    await cluster.whenJoined(NODES)
    await expectClean(t, scene)
  },
)

test.serial('a verdict about another lane of the same node changes nothing', async t => {
  const scene = await startScene(cluster, NODES)
  const line = commandLine(cluster.pagerOf('b').pid)
  const node = Number(line[line.indexOf('--node') + 1])
  const socket = homeSocketPath(join(cluster.agent('a').dataDir, 'run'), cluster.pagerOf('a').id)
  const pager = await PagerClient.connect(socket, 'agent')
  const events: PagerEvent[] = []
  pager.on(event => events.push(event))
  pager.send({ kind: 'node-verdict', node, leaseId: 1, verdict: 'dead', reason: 'late' })
  await pager.requestStats()
  await expectProgress(t, scene)
  t.deepEqual(
    events.filter(event => event.kind === 'lane-down'),
    [],
  )
  pager.close()
  await end(t, scene)
})
