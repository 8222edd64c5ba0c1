/**
 * A host that falls silent, in network namespaces on a bridge: its cable is pulled, so that no connection is reset
 * and only the missing heartbeats tell, and that nobody reaches its agent. Both sides have to come to the same end by
 * themselves.
 */

import test from 'ava'
import { TestCluster, until } from '../helpers/cluster.js'
import { Hosts, namespacesMissing } from '../helpers/namespaces.js'
import { END_WITHIN_MS, expectClean, startOnHosts, startScene } from './scene.js'

const RUN_FAILED = 125
/** A stall of so long is none of a host. */
const STALL_MS = 2000

const missing = namespacesMissing()
const maybe = missing === undefined ? test.serial : test.serial.skip
if (missing !== undefined) console.log(`skipped, no network namespaces: ${missing}`)

for (const nodes of [2, 3]) {
  maybe(`${nodes} nodes: the cable of a participant is pulled`, async t => {
    const hosts = Hosts.make(nodes)
    t.teardown(() => hosts.remove())
    const cluster = await TestCluster.make()
    t.teardown(() => cluster.stop())
    await startOnHosts(cluster, hosts, nodes)
    const scene = await startScene(cluster, nodes, { prefix: hosts.prefix(0) })
    const pulledAtMs = performance.now()
    hosts.setLink(1, 'down')
    const end = await scene.running.outcome
    t.is(end.status, RUN_FAILED)
    t.regex(
      end.stderr,
      /^elasticos: node b was lost \(silent for \d\.\d s, and nobody reaches its agent\) with \d+ pages and \d+ threads\b.*\n$/,
    )
    const tookMs = end.endedAtMs - pulledAtMs
    t.log(`run ended ${Math.round(tookMs)} ms after the cable was pulled`)
    t.true(tookMs > STALL_MS && tookMs < END_WITHIN_MS, `${tookMs} ms`)
    await until('the end of all pagers', () => cluster.pagers().length === 0, END_WITHIN_MS)
    hosts.setLink(1, 'up')
    await expectClean(t, scene)
  })
}
