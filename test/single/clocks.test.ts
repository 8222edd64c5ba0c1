/**
 * Machines whose monotonic clocks differ by days: each agent in a time namespace of its own. A program whose threads
 * move between them sees one clock, home's, which never goes back. Needs root.
 */

import { spawnSync } from 'node:child_process'
import test from 'ava'
import { TestCluster } from '../helpers/cluster.js'
import { buildProgram } from '../helpers/programs.js'

const TIMEOUT_MS = 180_000
const OFFSETS_S = { a: [500_000, 900_000], b: [10, 20], c: [9_000_000, 9_000_000] } as const

function inTime([monotonic, boot]: readonly [number, number]): string[] {
  return ['unshare', '--time', '--monotonic', String(monotonic), '--boottime', String(boot), 'env']
}

const probe = spawnSync('unshare', [...inTime(OFFSETS_S.a).slice(1), 'true'], { encoding: 'utf8' })
const missing = probe.status === 0 ? undefined : `${probe.stderr ?? ''}${probe.error?.message ?? ''}`
if (missing !== undefined) console.error(`clocks in time namespaces: skipped: ${missing}`)
const namespaces = missing === undefined ? test.serial : test.serial.skip

namespaces('clocks do not go back on nodes with different clocks', async t => {
  t.timeout(TIMEOUT_MS)
  const cluster = await TestCluster.make()
  t.teardown(() => cluster.stop())
  await cluster.startAgents(3, name => ({ prefix: inTime(OFFSETS_S[name as keyof typeof OFFSETS_S]) }))
  const program = buildProgram('clocks', cluster.directory)
  for (const jumpEvery of ['1', '7']) {
    const flags = ['--memory', '4M', '--participants', '3', '--participants-min', '3', '--wait', '15s']
    const running = cluster.run('a', [...flags, '--jump-every', jumpEvery], [program, '3000', '500'], {
      prefix: inTime(OFFSETS_S.a),
      timeoutMs: TIMEOUT_MS,
    })
    const end = await running.outcome
    t.is(end.status, 0, end.stderr + end.stdout.toString())
    t.is(end.stdout.toString(), 'clocks: all right\n')
    const busy = (end.stats?.participants ?? []).filter(node => node.threadsPeak > 0)
    t.true(busy.length >= 2, `threads ran on ${busy.length} nodes`)
    t.true((end.stats?.jumps ?? 0) > 0 && (end.stats?.pushes ?? 0) > 0)
  }
})
