/**
 * Direct and asynchronous I/O: the disk writes into pages of the program, which must not leave meanwhile. Run over two
 * agents, with threads that move, and alone with a spill file. Needs a file system that has direct I/O.
 */

import { spawnSync } from 'node:child_process'
import { closeSync, constants, openSync } from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import type { TestCluster } from '../helpers/cluster.js'
import { buildProgram } from '../helpers/programs.js'
import { startCluster } from '../matrix/matrix.js'

const TIMEOUT_MS = 120_000

let cluster: TestCluster
let refusal: string | undefined

test.before(async t => {
  t.timeout(TIMEOUT_MS)
  cluster = await startCluster(2)
  for (const name of ['direct_io', 'aio']) buildProgram(name, cluster.directory)
  try {
    closeSync(openSync(cluster.path('probe'), constants.O_RDWR | constants.O_CREAT | constants.O_DIRECT))
  } catch (error) {
    refusal = `no direct I/O in ${cluster.directory}: ${(error as Error).message}`
  }
})

test.after.always(async t => {
  t.deepEqual(await cluster?.stop(), [])
})

function isPossible(t: ExecutionContext): boolean {
  if (refusal !== undefined) t.log(refusal)
  t.pass()
  return refusal === undefined
}

const CASES: readonly (readonly [program: string, name: string, title: string])[] = [
  ['direct_io', 'threads', 'pages stay while the disk reads into them'],
  ['direct_io', 'calls', 'every call that reads, and every way to a descriptor'],
  ['direct_io', 'buffers', 'buffers of all kinds, right and wrong'],
  ['direct_io', 'large', 'a read larger than the memory is one read'],
  ['direct_io', 'inherited', 'a descriptor that was there before the program'],
  ['aio', 'reads', 'pages stay while requests are under way'],
  ['aio', 'again', 'one iocb for many requests at once'],
  ['aio', 'destroys', 'a context that ends while another takes its place'],
  ['aio', 'calls', 'requests of all kinds, right and wrong'],
  ['aio', 'execs', 'requests end before the next program begins'],
]

/** Those in which there is time to jump. */
const MOVES: ReadonlySet<string> = new Set(['threads', 'reads', 'again'])

const WAYS: readonly (readonly [title: string, flags: readonly string[]])[] = [
  ['two nodes', ['--participants-min', '2', '--wait', '15s']],
  ['two nodes, threads move', ['--participants-min', '2', '--wait', '15s', '--jump-every', '7']],
  ['one node', ['--participants', '1']],
]

for (const [program, name, title] of CASES) {
  test.serial(title, async t => {
    t.timeout(TIMEOUT_MS)
    if (!isPossible(t)) return
    const command = [cluster.path(program), name, cluster.path('file')]
    const alone = spawnSync(command[0] ?? '', command.slice(1), { timeout: TIMEOUT_MS, encoding: 'utf8' })
    t.is(alone.status, 0, alone.stdout)
    for (const [way, flags] of WAYS) {
      const limits = { timeoutMs: TIMEOUT_MS }
      const end = await cluster.run('a', ['--memory', '5M', ...flags], command, limits).outcome
      t.is(end.status, 0, `${way}: ${end.stderr}${end.stdout.toString()}`)
      t.is(end.stdout.toString(), alone.stdout, way)
      if (MOVES.has(name) && flags.includes('--jump-every')) t.true((end.stats?.jumps ?? 0) > 0, way)
    }
  })
}

test.serial('what a program asked to be written is written when it has ended', async t => {
  t.timeout(TIMEOUT_MS)
  if (!isPossible(t)) return
  const command = (name: string) => [cluster.path('aio'), name, cluster.path('file')]
  const end = await cluster.run('a', ['--memory', '5M'], command('exits'), { timeoutMs: TIMEOUT_MS }).outcome
  t.is(end.status, 0, end.stderr)
  const check = spawnSync(cluster.path('aio'), command('check').slice(1), { encoding: 'utf8' })
  t.is(check.stdout, 'done\n')
})

test.serial('a read of more buffers than may stay is refused, and run says so once', async t => {
  t.timeout(TIMEOUT_MS)
  if (!isPossible(t)) return
  const command = [cluster.path('direct_io'), 'too-much', cluster.path('file')]
  const flags = ['--memory', '8M', '--participants', '1']
  const end = await cluster.run('a', flags, command, { timeoutMs: TIMEOUT_MS }).outcome
  t.is(end.stdout.toString(), `${'-1: Cannot allocate memory\n'.repeat(2)}done\n`)
  t.is(
    end.stderr,
    'elasticos: the program asked for a direct read into more than 2 MiB, a quarter of its memory; it was told that there is no memory for it\n',
  )
})
