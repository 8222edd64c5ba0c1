/**
 * Calls that cannot work in a stretched program: it gets the error of a kernel without them, and `run` says it once. A
 * child, which runs natively, gets them; nobody gets a second tracer.
 */

import { spawnSync } from 'node:child_process'
import test from 'ava'
import { TestCluster } from '../helpers/cluster.js'
import { buildProgram } from '../helpers/programs.js'

const TIMEOUT_MS = 30_000

let cluster: TestCluster
let program: string

test.before(async () => {
  cluster = await TestCluster.make()
  program = buildProgram('refused_calls', cluster.directory)
})
test.after.always(async t => {
  t.deepEqual(await cluster?.stop(), [])
})

async function run(args: readonly string[]) {
  return cluster.cli(['run', '--participants', '1', '--memory', '8M', '--', program, ...args], {
    timeoutMs: TIMEOUT_MS,
  })
}

const NO_CALL = 'Function not implemented'
const IS_TRACED = 'Operation not permitted'
const ELSEWHERE = 'which cannot work while its memory may be elsewhere; it was told that this'
const TRACES =
  'elasticos: the program asked to trace a process of its own (ptrace), which elasticos traces already'

const CALLS: readonly { call: string; error: string; line?: string }[] = [
  { call: 'io_uring', error: NO_CALL, line: `asked for io_uring, ${ELSEWHERE} kernel has none` },
  { call: 'userfaultfd', error: NO_CALL, line: `asked for userfaultfd, ${ELSEWHERE} kernel has none` },
  { call: 'vmsplice', error: NO_CALL, line: `asked for vmsplice, ${ELSEWHERE} kernel has none` },
  {
    call: 'process_madvise',
    error: NO_CALL,
    line: `asked for process_madvise, ${ELSEWHERE} kernel has none`,
  },
  {
    call: 'SO_ZEROCOPY',
    error: 'Protocol not available',
    line: `asked for sends without a copy (SO_ZEROCOPY), ${ELSEWHERE} protocol has none`,
  },
  { call: 'pkey_alloc', error: NO_CALL },
  { call: 'map_shadow_stack', error: NO_CALL },
]

for (const { call, error, line } of CALLS) {
  test.serial(`${call} is refused${line === undefined ? '' : ', and run says so once'}`, async t => {
    t.timeout(TIMEOUT_MS)
    const end = await run([call])
    t.is(end.stdout.toString(), `${call}: ${error}\n`.repeat(2))
    t.is(end.stderr, line === undefined ? '' : `elasticos: the program ${line}\n`)
    t.is(end.status, 0)
  })
}

for (const args of [['traceme'], ['attach'], ['traceme', 'child']]) {
  test.serial(`ptrace is refused, and run says so once: ${args.join(' of a ')}`, async t => {
    t.timeout(TIMEOUT_MS)
    const end = await run(args)
    t.is(end.stdout.toString(), `${args[0]}: ${IS_TRACED}\n`.repeat(2))
    t.is(end.stderr, `${TRACES}; it was told that it may not\n`)
    t.is(end.status, 0)
  })
}

test.serial('a child gets what works natively', async t => {
  t.timeout(TIMEOUT_MS)
  for (const call of ['io_uring', 'vmsplice', 'SO_ZEROCOPY']) {
    const alone = spawnSync(program, [call, 'child'], { encoding: 'utf8' })
    const end = await run([call, 'child'])
    t.is(end.stdout.toString(), alone.stdout)
    t.is(end.stderr, '')
  }
})
