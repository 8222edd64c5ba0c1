/** Peers that refuse, and peers that are full: the run goes on with others or with the disk, and its output is right. */

import test, { type ExecutionContext } from 'ava'
import { makeCluster, type RunOutcome, type TestCluster } from '../helpers/cluster.js'
import { buildProgram } from '../helpers/programs.js'
import { wrongWord } from './scene.js'

const RUN_FAILED = 125
/** A peer id that nobody here has (it is one of libp2p's documentation). */
const SOMEBODY = '12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA'
const MEGABYTES = '16'
const MEMORY = ['--memory', '6M'] as const

/** Runs the copier from `a` to its end; its output has to be right. */
async function copy(
  t: ExecutionContext,
  cluster: TestCluster,
  flags: readonly string[],
): Promise<RunOutcome> {
  const program = buildProgram('copier', cluster.directory)
  const file = cluster.path('copy')
  const end = await cluster.run('a', [...MEMORY, ...flags], [program, MEGABYTES, file, '2']).outcome
  t.is(end.status, 0, end.stderr)
  t.is(end.stdout.toString(), 'filled\nround 1\nround 2\n')
  t.is(end.stderr, '')
  t.is(wrongWord(file), undefined)
  return end
}

function namesOf(end: RunOutcome): (string | undefined)[] {
  return (end.stats?.participants ?? []).map(each => each.node).sort()
}

test.serial('a peer with too little to lend refuses, the run goes on with the other', async t => {
  const cluster = await makeCluster(t)
  await cluster.startAgents(3, name => ({ flags: name === 'c' ? ['--capacity', '512K'] : [] }))
  const end = await copy(t, cluster, ['--participants-min', '2', '--wait', '10s'])
  t.deepEqual(namesOf(end), ['a', 'b'])
  const failed = await cluster.run('a', [...MEMORY, '--participants-min', '3', '--wait', '1s'], ['true'])
    .outcome
  t.is(failed.status, RUN_FAILED)
  t.regex(
    failed.stderr,
    /^elasticos: --participants-min 3 not reached within 1000 ms: 2 take part \(c: full: .+\)\n$/,
  )
})

test.serial('a peer that is full holds what it granted, the disk takes the rest', async t => {
  const cluster = await makeCluster(t)
  await cluster.startAgents(2, name => ({ flags: name === 'b' ? ['--capacity', '2M'] : [] }))
  const end = await copy(t, cluster, ['--participants-min', '2', '--wait', '10s'])
  t.deepEqual(namesOf(end), ['a', 'b'])
  t.true((end.stats?.pushes ?? 0) > 0)
  t.true((end.stats?.pagesSpilled ?? 0) > 0)
  const lent = end.stats?.participants?.find(each => each.node === 'b')?.peakPages ?? 0
  t.true(lent > 0 && lent <= 512, `b held ${lent} pages`)
})

test.serial('nobody who is not on the allow list takes part, the disk takes all', async t => {
  const cluster = await makeCluster(t)
  await cluster.startAgents(2, name => ({ flags: name === 'b' ? ['--allow', SOMEBODY] : [] }), 1)
  const end = await copy(t, cluster, [])
  t.deepEqual(namesOf(end), ['a'])
  t.true((end.stats?.pagesSpilled ?? 0) > 0)
  t.false((await cluster.nodes('b')).some(node => node.name === 'a' && node.state === 'joined'))
})

test.serial('without peers, and then without room on the disk, the run ends with the cause', async t => {
  const cluster = await makeCluster(t)
  await cluster.startAgent('a', { flags: ['--spill-max', '1M'] })
  const program = buildProgram('copier', cluster.directory)
  const end = await cluster.run('a', [...MEMORY], [program, MEGABYTES, cluster.path('copy'), '1']).outcome
  t.is(end.status, RUN_FAILED)
  t.regex(
    end.stderr,
    /^elasticos: no room for page 0x[0-9a-f]+: .+; give more with --memory, more agents, .+\n$/,
  )
  t.is(end.stats?.exitStatus, RUN_FAILED)
})
