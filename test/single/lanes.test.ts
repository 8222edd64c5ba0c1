/**
 * Participants get lanes to each other, through real agents: a thread that is on one of them and needs pages of the
 * other's asks for a lane, and the agents agree on it.
 */

import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import { PagerClient } from '../../kmod/pager-client.js'
import { peerSocketPath } from '../../kmod/pager-host.js'
import { type TestCluster, until } from '../helpers/cluster.js'
import { buildProgram } from '../helpers/programs.js'
import { startCluster } from '../matrix/matrix.js'

const TIMEOUT_MS = 90_000

let cluster: TestCluster

test.before(async t => {
  t.timeout(TIMEOUT_MS)
  cluster = await startCluster(3)
})

test.after.always(async t => {
  t.deepEqual(await cluster?.stop(), [])
})

/** Node indexes to which the peer pager of `name` has a lane. */
async function lanesOf(name: string): Promise<number[]> {
  const pager = cluster.pagers().find(each => each.node === name)
  if (pager === undefined) return []
  const socket = peerSocketPath(join(cluster.agent(name).dataDir, 'run'), pager.id, name)
  const client = await PagerClient.connect(socket, 'observer')
  const nodes: number[] = []
  client.on(event => {
    if (event.kind === 'lane-up') nodes.push(event.node)
  })
  await client.requestStats()
  client.close()
  return nodes.sort()
}

/** Pages that the pager of `name` says it owns. */
async function ownedBy(name: string): Promise<number> {
  const pager = cluster.pagers().find(each => each.node === name)
  if (pager === undefined) return 0
  const socket = peerSocketPath(join(cluster.agent(name).dataDir, 'run'), pager.id, name)
  const client = await PagerClient.connect(socket, 'observer')
  let pages: number | undefined
  client.on(event => {
    if (event.kind === 'owned') pages = event.ranges.reduce((sum, range) => sum + range.pages, 0)
  })
  client.send({ kind: 'owned-request' })
  await until('its answer', async () => pages !== undefined, 20_000)
  client.close()
  return pages ?? 0
}

test.serial('a thread away from home has a direct lane to the other participant', async t => {
  t.timeout(TIMEOUT_MS)
  const program = buildProgram('counter', cluster.directory)
  const flags = ['--memory', '5M', '--jump-every', '7', '--participants-min', '3', '--wait', '15s']
  const running = cluster.run('a', flags, [program, '1000000000', '8000'], { timeoutMs: TIMEOUT_MS })
  let ended = false
  void running.outcome.then(() => {
    ended = true
  })
  const direct = async () => {
    const [b, c] = [await lanesOf('b'), await lanesOf('c')]
    return b.length === 2 && c.length === 2
  }
  try {
    await until('a lane between b and c', async () => ended || (await direct()), 30_000)
    t.false(ended, 'it ran long enough to be looked at')
    const { pulls = 0 } = (await cluster.processes('b'))[0]?.stats ?? {}
    await sleep(1000)
    t.true(await direct(), 'and it stays')
    t.true((await ownedBy('b')) + (await ownedBy('c')) > 0, 'they say what they own')
    t.log(`${Number(pulls)} pulls at b`)
  } finally {
    running.child.kill('SIGTERM')
    await running.outcome
  }
})
