/**
 * A child has the memory of the moment of its fork, lazily: whatever parent, child and grandchildren do with it
 * before the child has looked, no byte is wrong (programs/fork_snapshot.c). And what it does not look at, because it
 * executes another program, is not brought home for it.
 */

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import type { TestCluster } from '../helpers/cluster.js'
import { buildProgram } from '../helpers/programs.js'
import { startCluster } from '../matrix/matrix.js'

const TIMEOUT_MS = 240_000
const PAGES = 4000
/** A quarter of the array. */
const MEMORY = ['--memory', '4M']
const ALONE = [...MEMORY, '--participants', '1']
const TWO = [...MEMORY, '--participants-min', '2', '--wait', '15s']

const WAYS = [
  'overwrite backwards unmap drop move protect map-over',
  'child-drops child-unmaps child-moves child-protects child-threads child-vforks',
  'grandchildren daemonise locks threads many',
].map(ways => ways.split(' '))

const SETTINGS: readonly { name: string; flags: readonly string[] }[] = [
  { name: 'alone, the rest on disk', flags: ALONE },
  { name: 'two agents', flags: TWO },
  { name: 'two agents, a jump at every seventh remote fault', flags: [...TWO, '--jump-every', '7'] },
  { name: 'two agents, a jump at every remote fault', flags: [...TWO, '--jump-every', '1'] },
]

let cluster: TestCluster

test.before(async t => {
  t.timeout(TIMEOUT_MS)
  cluster = await startCluster(2)
})

test.after.always(async t => {
  t.deepEqual(await cluster?.stop(), [])
})

for (const { name, flags } of SETTINGS) {
  for (const ways of WAYS) {
    test.serial(`${name}: ${ways.join(', ')}`, async t => {
      t.timeout(TIMEOUT_MS)
      const program = buildProgram('fork_snapshot', cluster.directory)
      const command = [program, String(PAGES), ...ways]
      const end = await cluster.run('a', flags, command, { timeoutMs: TIMEOUT_MS }).outcome
      t.is(end.stdout.toString(), 'all right\n', end.stderr)
      t.is(end.status, 0)
      if (flags.includes('--jump-every')) t.true((end.stats?.jumps ?? 0) > 0)
    })
  }
}

for (const { name, flags } of SETTINGS.slice(0, 2)) {
  for (const [way, title] of [
    ['leave', 'a program ends'],
    ['replace', 'a program executes another'],
  ] as const) {
    test.serial(`${name}: ${title} while its child has everything still to get`, async t => {
      t.timeout(TIMEOUT_MS)
      const program = buildProgram('fork_snapshot', cluster.directory)
      const found = join(cluster.directory, `${way}-${flags.length}`)
      const command = [program, String(PAGES), way, found]
      const end = await cluster.run('a', flags, command, { timeoutMs: TIMEOUT_MS }).outcome
      t.is(end.status, way === 'leave' ? 3 : 0, end.stderr)
      const deadline = performance.now() + 30_000
      while (!(existsSync(found) && readFileSync(found, 'utf8') !== '') && performance.now() < deadline)
        await sleep(50)
      t.is(readFileSync(found, 'utf8'), 'the child: all right\n')
      while (cluster.pagers().length > 0 && performance.now() < deadline) await sleep(50)
      t.deepEqual(cluster.pagers(), [])
    })
  }
}
