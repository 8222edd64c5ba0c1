/**
 * Agents that must not work together: another network key, machines that do not fit. What is said on each side, and
 * that the run goes on without them.
 */

import { once } from 'node:events'
import { copyFileSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import test from 'ava'
import { generateKey } from '../../agent/key.js'
import { makeCluster, type TestCluster, until } from '../helpers/cluster.js'
import { PAGER } from '../helpers/native.js'
import { runCommand } from '../helpers/native-tests.js'

const RUN_FAILED = 125

test.serial('an agent with another network key does not join; nodes and the log say what to do', async t => {
  const cluster = await makeCluster(t)
  const otherKey = cluster.path('other.key')
  await generateKey(otherKey)
  const a = await cluster.startAgent('a')
  await cluster.startAgent('b', { key: otherKey })
  const strangers = async () => (await cluster.nodes('b')).filter(node => node.state === 'seen-not-joined')
  await until('b sees a stranger', async () => (await strangers()).length > 0, 20_000)
  const remedy = /elasticos key show.*elasticos key set|elasticos key set.*elasticos key show/
  const listed = await cluster.cli(['nodes', '--control', cluster.agent('b').control])
  t.is(listed.status, 0)
  t.regex(listed.stdout.toString(), /seen-not-joined/)
  t.regex(listed.stderr, remedy)
  t.true(listed.stderr.includes(a.address), listed.stderr)
  t.regex(cluster.log('b'), remedy)
  t.false((await cluster.nodes('a')).some(node => !node.self && node.state === 'joined'))
  const run = await cluster.run('b', ['--participants-min', '2', '--wait', '500ms'], ['true']).outcome
  t.is(run.status, RUN_FAILED)
  t.regex(
    run.stderr,
    /^elasticos: --participants-min 2 not reached within 500 ms: 1 take part \(.+elasticos nodes.+\)\n$/,
  )
})

test.serial('of two agents with one identity the second says where the first is, and ends', async t => {
  const cluster = await makeCluster(t)
  const a = await cluster.startAgent('a')
  const b = await cluster.startAgent('b')
  await cluster.whenJoined(2)
  mkdirSync(cluster.path('copy'), { mode: 0o700 })
  copyFileSync(cluster.path('b', 'identity.key'), cluster.path('copy', 'identity.key'))
  const copy = await cluster.startAgent('copy', { peers: [a.address] })
  t.is(copy.peerId, b.peerId)
  const [status] = await once(copy.child, 'exit')
  t.is(status, 1)
  const told = cluster
    .log('copy')
    .split('\n')
    .filter(line => line.startsWith('elasticos: '))
  const address = b.address.replace(/\/p2p\/.*/, '')
  const path = cluster.path('copy', 'identity.key')
  t.deepEqual(told, [
    `elasticos: another agent has this one's identity and was there first, at ${address}: remove ${path}, a copy of its, and start again`,
  ])
  t.regex(cluster.log('a'), /^((?!is lost|is leaving).)*$/s)
  t.deepEqual(
    (await cluster.nodes('a')).map(node => `${node.name} ${node.state}`),
    ['a joined', 'b joined'],
  )
  rmSync(path)
  await cluster.startAgent('copy', { peers: [a.address] })
  await cluster.whenJoined(3)
})

test.serial('an agent that dies while a run waits for participants ends the wait', async t => {
  const cluster = await makeCluster(t)
  const { pid } = await cluster.startAgent('a')
  const run = cluster.run('a', ['--participants-min', '2', '--wait', '30s'], ['true'])
  await until('the run to be attached', async () => (await cluster.processes('a')).length > 0)
  const killedAtMs = performance.now()
  process.kill(pid, 'SIGKILL')
  const end = await run.outcome
  t.is(end.status, RUN_FAILED)
  t.is(end.stderr, 'elasticos: the agent has ended; start it again with `elasticos agent`\n')
  t.true(end.endedAtMs - killedAtMs < 5000)
})

interface Facts {
  protocolVersion: number
  cpuFeatures: string[]
  kernel: string
}

/** A pager that says other things about its machine than are true. */
function forgedPager(cluster: TestCluster, change: (facts: Facts) => void): Record<string, string> {
  const facts = JSON.parse(runCommand(PAGER, ['facts']).text) as Facts
  change(facts)
  const path = cluster.path('forged-pager')
  const script = `#!/bin/sh\n[ "$1" = facts ] && { cat <<'END'\n${JSON.stringify(facts)}\nEND\nexit; }\nexec '${PAGER}' "$@"\n`
  writeFileSync(path, script, { mode: 0o755 })
  return { ELASTICOS_PAGER: path }
}

const MISFITS: readonly [string, (facts: Facts) => void, RegExp][] = [
  [
    'another protocol version',
    facts => {
      facts.protocolVersion = 99
    },
    /incompatible: protocol version 99 here, \d+ at home/,
  ],
  [
    'a CPU without SSSE3',
    facts => {
      facts.cpuFeatures = facts.cpuFeatures.filter(name => name !== 'ssse3')
    },
    /incompatible: CPU features missing here: ssse3/,
  ],
]

for (const [title, change, pattern] of MISFITS) {
  test.serial(`a peer with ${title} refuses by name, and the run goes on without it`, async t => {
    const cluster = await makeCluster(t)
    const env = forgedPager(cluster, change)
    await cluster.startAgents(2, name => (name === 'b' ? { env } : {}))
    const run = await cluster.run('a', ['--participants-min', '2', '--wait', '1s'], ['true']).outcome
    t.is(run.status, RUN_FAILED)
    t.regex(
      run.stderr,
      /^elasticos: --participants-min 2 not reached within 1000 ms: 1 take part \(b: .+\)\n$/,
    )
    t.regex(run.stderr, pattern)
    t.regex(cluster.log('a'), pattern)
    const alone = await cluster.run('a', [], ['echo', 'right']).outcome
    t.is(alone.status, 0)
    t.is(alone.stdout.toString(), 'right\n')
  })
}
