/**
 * The way between two participants is cut in mid-run while both still reach home. Pages may have been on that way, and
 * home cannot see it: the run goes on if there were none, and else ends with 125. It never hangs.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import { TestCluster, until } from '../helpers/cluster.js'
import { Hosts, namespacesMissing } from '../helpers/namespaces.js'
import { expectClean, expectProgress, startOnHosts, startScene } from './scene.js'

const RUN_FAILED = 125
const NODES = 3
const DECIDED_WITHIN_MS = 10_000

const missing = namespacesMissing()
const maybe = missing === undefined ? test.serial : test.serial.skip
if (missing !== undefined) console.log(`skipped, no network namespaces: ${missing}`)

maybe('the way between two participants is cut', async t => {
  const hosts = Hosts.make(NODES)
  t.teardown(() => hosts.remove())
  const cluster = await TestCluster.make()
  t.teardown(() => cluster.stop())
  await startOnHosts(cluster, hosts, NODES)
  const scene = await startScene(cluster, NODES, { prefix: hosts.prefix(0) })
  hosts.cut(1, 2)
  const end = await Promise.race([scene.running.outcome, sleep(DECIDED_WITHIN_MS)])
  if (end === undefined) {
    await expectProgress(t, scene)
    scene.running.child.kill('SIGTERM')
    await scene.running.outcome
  } else {
    t.is(end.status, RUN_FAILED)
    t.regex(end.stderr, /^elasticos: node [bc] was lost \(left: the lane to node [bc] was lost \(.+\n$/)
  }
  await until('the end of all pagers', () => cluster.pagers().length === 0, DECIDED_WITHIN_MS)
  await expectClean(t, scene)
})
