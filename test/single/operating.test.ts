/**
 * A pair of agents as a person operates it, by the command line alone: listings, a run that is contracted and finds its
 * machines by itself again, `top` on a terminal when its agent goes, and `stop`.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import test, { type ExecutionContext } from 'ava'
import { expectClean, expectProgress, type Scene, startScene } from '../faults/scene.js'
import { makeCluster, type TestCluster, until } from '../helpers/cluster.js'

const TIMEOUT_MS = 180_000
const STEP_MS = 60_000
/** A machine that may be asked is asked within a second. */
const NOT_ASKED_MS = 2_500

async function start(t: ExecutionContext): Promise<{ scene: Scene; id: string; cluster: TestCluster }> {
  t.timeout(TIMEOUT_MS)
  const cluster = await makeCluster(t)
  await cluster.startAgents(2, { flags: ['--capacity', '64M'] })
  const scene = await startScene(cluster, 2)
  return { scene, id: cluster.pagerOf('a').id, cluster }
}

async function elasticos(cluster: TestCluster, agent: string, ...args: string[]): Promise<string> {
  const end = await cluster.cli([...args, '--control', cluster.agent(agent).control])
  if (end.status !== 0) throw new Error(`${args.join(' ')}: ${end.stderr}`)
  return end.stdout.toString()
}

async function participants(cluster: TestCluster): Promise<string[]> {
  const [shown] = JSON.parse(await elasticos(cluster, 'a', 'ps', '--json'))
  return shown?.participants ?? []
}

test.serial(
  'listings; contract lets go of all, stretch --auto lets it find them by itself again',
  async t => {
    const { scene, id, cluster } = await start(t)
    let nodes: { name: string; rttMs?: number }[] = []
    const isMeasured = async () => {
      nodes = JSON.parse(await elasticos(cluster, 'a', 'nodes', '--json'))
      return nodes.some(node => node.rttMs !== undefined)
    }
    await until('a round trip', isMeasured, STEP_MS)
    t.deepEqual(
      nodes.map(node => [node.name, (node.rttMs ?? 0) > 0]),
      [
        ['a', false],
        ['b', true],
      ],
    )
    t.regex(await elasticos(cluster, 'a', 'nodes'), /RTT.*\n.*a \(this one\).*-.*\n.*b.* \d+\.\d ms /)
    for (const [agent, role] of [
      ['a', 'home'],
      ['b', 'participant'],
    ] as const) {
      const [shown] = JSON.parse(await elasticos(cluster, agent, 'ps', '--json'))
      t.like(shown, { id, role, home: 'a' })
    }

    t.is(await elasticos(cluster, 'a', 'contract', id), `${id} is contracted: b let go\n`)
    await new Promise(resolve => setTimeout(resolve, NOT_ASKED_MS))
    t.deepEqual(await participants(cluster), ['a'])
    const auto = await elasticos(cluster, 'a', 'stretch', id, '--auto')
    t.is(auto, `${id} is stretched by itself over whoever has room\n`)
    await until('b to take part again', async () => (await participants(cluster)).length === 2, STEP_MS)
    await expectProgress(t, scene)
    const refused = await cluster.cli(['stretch', id, '--auto', '--control', cluster.agent('b').control])
    t.is(refused.status, 1)
    t.regex(refused.stderr, /^elasticos: no elastic process [0-9a-f]+ has its home at this agent; .*\n$/)
    scene.running.child.kill('SIGTERM')
    await scene.running.outcome
    await expectClean(t, scene)
  },
)

test.serial('stop waits for the end, and says so when there is none', async t => {
  const { scene, id, cluster } = await start(t)
  const { pid } = cluster.pagerOf('a')
  process.kill(pid, 'SIGSTOP')
  try {
    const late = await cluster.cli(['stop', id, '--control', cluster.agent('a').control])
    t.is(late.status, 1)
    t.is(late.stderr, `elasticos: the pager of ${id} does not end; kill -9 ${pid} ends it\n`)
  } finally {
    process.kill(pid, 'SIGCONT')
  }
  await expectProgress(t, scene)
  t.is(await elasticos(cluster, 'a', 'stop', id), `stopped ${id}\n`)
  const end = await scene.running.outcome
  t.is(end.status, 125)
  t.is(end.stderr, 'elasticos: stopped: stopped by `elasticos stop`\n')
  const again = await cluster.cli(['stop', id, '--control', cluster.agent('a').control])
  t.is(again.status, 1)
  t.regex(again.stderr, /no elastic process .* has its home here/)
  await expectClean(t, scene)
})

test.serial('top ends with one line when its agent goes, and gives the terminal back', async t => {
  t.timeout(TIMEOUT_MS)
  const cluster = await makeCluster(t)
  const agent = await cluster.startAgent('a')
  const command = `${process.execPath} ${cluster.path('elasticos.mjs')} top --control ${agent.control}`
  const terminal = spawn('script', ['-qec', command, '/dev/null'], { env: cluster.environment })
  let shown = ''
  terminal.stdout.on('data', chunk => {
    shown += chunk
  })
  const ended = once(terminal, 'exit')
  await until('the picture', () => shown.includes('a (this one)'), STEP_MS)
  await cluster.stopAgent('a', 'SIGKILL')
  const [status] = await ended
  t.is(status, 1)
  const [, after = ''] = shown.split('\u001b[?1049l')
  t.regex(after, /^elasticos: the agent has ended; start it again with `elasticos agent`\r\n$/)
})
