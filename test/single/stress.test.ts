/**
 * What is hardest on pages that move, on eight agents in processes of their own: threads on several nodes that want one
 * page, one instruction that needs four, ten thousand mappings, sixty-four threads; all with the least memory there is.
 * The program verifies what it reads back and must end as it does alone.
 */

import test from 'ava'
import { TestCluster, until } from '../helpers/cluster.js'
import { buildProgram } from '../helpers/programs.js'

const TIMEOUT_MS = 240_000
const NODES = [...'abcdefgh']
/** The least `--memory` there is. */
const MEMORY = '4M'

let cluster: TestCluster

test.before(async t => {
  t.timeout(TIMEOUT_MS)
  cluster = await TestCluster.make()
  for (const name of NODES) await cluster.startAgent(name, { flags: ['--capacity', '64M'] })
  const joined = async () => (await cluster.nodes('a')).filter(node => node.state === 'joined').length
  await until('eight agents', async () => (await joined()) === NODES.length, TIMEOUT_MS)
})

test.after.always(async t => {
  t.deepEqual(await cluster?.stop(), [])
})

const CASES: readonly { name: string; title: string; nodes: number; jumpEvery: number }[] = [
  { name: 'one-page', title: 'threads on two nodes count in one page by atomics', nodes: 2, jumpEvery: 1 },
  { name: 'false-sharing', title: 'threads on two nodes have words of one page', nodes: 2, jumpEvery: 1 },
  { name: 'spin', title: 'threads on two nodes spin for one lock', nodes: 2, jumpEvery: 7 },
  { name: 'futex', title: 'threads on four nodes wake one another', nodes: 4, jumpEvery: 7 },
  {
    name: 'four-pages',
    title: 'one instruction needs four pages that four nodes want',
    nodes: 4,
    jumpEvery: 7,
  },
  { name: 'maps', title: 'ten thousand mappings', nodes: 2, jumpEvery: 7 },
  { name: 'threads', title: 'sixty-four threads on eight nodes', nodes: 8, jumpEvery: 7 },
  { name: 'four-pages', title: 'one instruction needs four pages, eight nodes', nodes: 8, jumpEvery: 1 },
]

for (const { name, title, nodes, jumpEvery } of CASES) {
  test.serial(title, async t => {
    t.timeout(TIMEOUT_MS)
    const program = buildProgram('stress', cluster.directory)
    const count = String(nodes)
    const flags = ['--memory', MEMORY, '--participants', count, '--participants-min', count, '--wait', '15s']
    flags.push('--jump-every', String(jumpEvery))
    const end = await cluster.run('a', flags, [program, name], { timeoutMs: TIMEOUT_MS }).outcome
    t.is(end.status, 0, `${end.signal} ${end.stderr}${end.stdout.toString()}`)
    t.is(end.stdout.toString(), 'done\n')
    t.true((end.stats?.pushes ?? 0) > 0 && (end.stats?.jumps ?? 0) > 0)
    const busy = (end.stats?.participants ?? []).filter(node => node.threadsPeak > 0).length
    t.log(
      `${end.stats?.pulls} pulls, ${end.stats?.jumps} jumps, threads on ${busy} nodes, ${end.stats?.wallMs} ms`,
    )
    t.true(name === 'maps' || busy >= Math.min(nodes, 2), `threads ran on ${busy} nodes`)
  })
}
