/**
 * What `elasticos run` and `elasticos agent` say when they are asked for what cannot be: one line, the cause and what to
 * do, and the right exit status.
 */

import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { type SpawnOptions, TestCluster } from '../helpers/cluster.js'
import { leftovers, snapshot } from '../helpers/leftovers.js'
import { runCommand } from '../helpers/native-tests.js'
import { NOBODY } from '../helpers/ordinary-user.js'
import { buildProgram } from '../helpers/programs.js'
import { MACHINE, writeElf } from './elf.js'

const TMPFS = 0x01021994
const RUN_ALONE = ['run', '--participants', '1'] as const

let cluster: TestCluster

test.before(async () => {
  cluster = await TestCluster.make()
})
test.after.always(async t => {
  t.deepEqual(await cluster?.stop(), [])
})

/** Exactly one line, which `pattern` describes after `elasticos: `; and nothing stays behind. */
async function expectLine(
  t: ExecutionContext,
  args: readonly string[],
  status: number,
  pattern: RegExp,
  options: SpawnOptions = {},
): Promise<void> {
  const before = snapshot(cluster)
  const end = await cluster.cli(args, { timeoutMs: 20_000, ...options })
  t.is(end.stdout.toString(), '')
  t.regex(end.stderr, /^elasticos: [^\n]+\n$/)
  t.regex(end.stderr.slice('elasticos: '.length, -1), pattern)
  t.is(end.status, status, end.stderr)
  t.deepEqual(await leftovers(cluster, before, []), [])
}

interface Case {
  readonly title: string
  /** Makes the program and says its name. */
  readonly program: () => string
  readonly status: number
  readonly pattern: RegExp
}

function file(name: string, text: string, mode: number): string {
  const path = cluster.path(name)
  writeFileSync(path, text)
  chmodSync(path, mode)
  return path
}

function elf(name: string, bits: 32 | 64, machine: number): string {
  writeElf(cluster.path(name), bits, machine)
  return cluster.path(name)
}

/** A program of another user's, with that user's rights. */
function setuid(): string {
  if (process.getuid?.() !== 0) return '/bin/su'
  const path = cluster.path('setuid')
  copyFileSync('/bin/true', path)
  chownSync(path, NOBODY, NOBODY)
  chmodSync(path, 0o4755)
  return path
}

/** One that the kernel can execute: exit(0). */
function program32(): string {
  const source = file('old.s', '.globl _start\n_start: movl $1, %eax\nxorl %ebx, %ebx\nint $0x80\n', 0o644)
  const path = cluster.path('old32')
  runCommand('gcc', ['-m32', '-nostdlib', '-static', '-o', path, source])
  return path
}

const IS_SETUID =
  /\/(setuid|su) is setuid: its privileges cannot be kept while traced; run it without elasticos$/

const PROGRAMS: readonly Case[] = [
  {
    title: 'a program that is not in PATH',
    program: () => 'no-such-program',
    status: 127,
    pattern: /^no-such-program: not found in PATH; check the name, or give its path$/,
  },
  {
    title: 'a path where nothing is',
    program: () => './no-such-program',
    status: 127,
    pattern: /^\.\/no-such-program: not found; check the name$/,
  },
  {
    title: 'a script whose interpreter is missing',
    program: () => file('orphan', '#!/no/such/interpreter\n', 0o755),
    status: 127,
    pattern: /orphan: its interpreter \/no\/such\/interpreter is not found; install it$/,
  },
  {
    title: 'a file that is not executable',
    program: () => file('notes', '#!/bin/sh\n', 0o644),
    status: 126,
    pattern: /notes: cannot be executed: Permission denied; run `chmod \+x .*notes`/,
  },
  {
    title: 'a directory',
    program: () => '/tmp',
    status: 126,
    pattern: /^\/tmp: is a directory, not a program; give a program in it$/,
  },
  {
    title: 'a 32-bit program',
    program: () => elf('old', 32, MACHINE.i386),
    status: 125,
    pattern: /old is a 32-bit program: elasticos stretches x86-64 programs only; use its 64-bit build$/,
  },
  {
    title: 'a program of another CPU architecture',
    program: () => elf('phone', 64, MACHINE.aarch64),
    status: 125,
    pattern: /phone is a program for another CPU architecture \(64-bit ARM\): .+; use its x86-64 build$/,
  },
  {
    title: 'a setuid program',
    program: setuid,
    status: 125,
    pattern: IS_SETUID,
  },
]

for (const { title, program, status, pattern } of PROGRAMS) {
  test.serial(title, async t => expectLine(t, [...RUN_ALONE, '--', program()], status, pattern))
}

const LATER = ['exec "$0"', '"$0"; echo after', '(exec "$0"); echo after']

for (const script of LATER) {
  test.serial(`a setuid program that a shell executes later: ${script}`, async t =>
    expectLine(t, [...RUN_ALONE, '--', 'sh', '-c', script, setuid()], 125, IS_SETUID),
  )
  test.serial(`a 32-bit program that a shell executes later: ${script}`, async t => {
    const path = program32()
    const alone = spawnSync(path).status
    if (alone !== 0) return t.log('this machine executes no 32-bit programs')
    await expectLine(t, [...RUN_ALONE, '--', 'sh', '-c', script, path], 125, /\/old32 is a 32-bit program: /)
  })
}

test.serial("a setuid program of one's own gains nothing", async t => {
  const path = cluster.path('own')
  copyFileSync('/bin/true', path)
  chmodSync(path, 0o4755)
  const end = await cluster.cli([...RUN_ALONE, '--', 'sh', '-c', '"$0" && exec "$0"', path])
  t.is(end.stderr, '')
  t.is(end.status, 0)
})

const FLAGS: readonly [readonly string[], RegExp][] = [
  [['--memory', '1M'], /^--memory 1M is below the minimum; give 4M or more$/],
  [['--memory', 'lots'], /^--memory: "lots" is no size: write a whole number with K, M or G, as in 512M$/],
  [['--memory', '-5M'], /-5M/],
  [
    ['--policy', 'magic'],
    /^--policy: unknown policy "magic": there are always-pull, multinode-adaptive-lru$/,
  ],
  [['--policy', 'always-pull:x=1'], /^--policy: .*always-pull.*"?x"?/],
  [['--wait', '5x'], /^--wait: "5x" is no duration: write a whole number with ms, s or m, as in 5s$/],
  [['--jump-every', '0'], /^--jump-every: .* whole number from 1 to \d+, not "0"$/],
  [['--participants-min', '2'], /^--participants-min 2 is more than --participants 1; lower it$/],
  [
    ['--stats', '/no/such/place'],
    /^cannot write statistics to \/no\/such\/place; give another --stats FILE$/,
  ],
  [['--replicas', '2'], /^unknown option '--replicas'; see `elasticos run --help`$/],
]

for (const [flags, pattern] of FLAGS) {
  test.serial(`run ${flags.join(' ')}`, async t =>
    expectLine(t, [...RUN_ALONE, ...flags, '--', 'true'], 125, pattern),
  )
}

test.serial('run where no agent listens', async t =>
  expectLine(
    t,
    ['run', '--control', '/no/such.sock', '--', 'true'],
    125,
    /^no agent listens at \/no\/such\.sock; start one/,
  ),
)

const AGENT: readonly [string, readonly string[], RegExp][] = [
  [
    'a bad multiaddr to listen on',
    ['--listen', 'here'],
    /^bad multiaddr for --listen: here; give one like \/ip4\//,
  ],
  [
    'a bad multiaddr of a peer',
    ['--peer', '/ip4/300.1.1.1/tcp/1'],
    /^bad multiaddr for --peer: .+; give one like/,
  ],
  [
    'an address of another machine',
    ['--listen', '/ip4/192.0.2.1/tcp/0'],
    /^cannot listen on .+; choose one of its own$/,
  ],
  [
    'a bad peer id',
    ['--allow', 'bob'],
    /^bad peer id for --allow: bob; give one as `elasticos nodes` shows them$/,
  ],
]

for (const [title, flags, pattern] of AGENT) {
  test.serial(`agent with ${title}`, async t => {
    const listen = flags.includes('--listen') ? [] : ['--listen', '/ip4/127.0.0.1/tcp/0']
    const own = [
      '--data',
      cluster.path('data'),
      '--control',
      cluster.path('x.sock'),
      '--key',
      cluster.keyFile,
    ]
    await expectLine(t, ['agent', '--no-discovery', ...own, ...listen, ...flags], 1, pattern)
  })
}

test.serial('agent with a size that is none', async t =>
  expectLine(
    t,
    ['agent', '--data', cluster.path('data'), '--capacity', '5Q'],
    2,
    /^--capacity: "5Q" is no size: /,
  ),
)

test.serial('agent with a key that others may read', async t => {
  const key = file('loose.key', 'x', 0o644)
  const own = ['--data', cluster.path('data'), '--control', cluster.path('x.sock'), '--key', key]
  const args = ['agent', '--no-discovery', '--listen', '/ip4/127.0.0.1/tcp/0', ...own]
  await expectLine(
    t,
    args,
    1,
    /loose\.key has mode 0644, so others may have read it: chmod 600 .*loose\.key$/,
  )
})

const onTmpfs = existsSync('/dev/shm') && statfsSync('/dev/shm').type === TMPFS
const withTmpfs = onTmpfs ? test.serial : test.serial.skip
if (!onTmpfs) console.log('skipped, no tmpfs at /dev/shm')

withTmpfs('a spill directory on tmpfs: run and agent refuse it', async t => {
  const directory = mkdtempSync('/dev/shm/elasticos-test-')
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  const options = { env: { XDG_STATE_HOME: directory } }
  const spill = join(directory, 'elasticos', 'spill')
  const refusal = new RegExp(
    `^${spill} is on tmpfs, which is memory: .+; choose a directory on a disk .*XDG_STATE_HOME\\)$`,
  )
  await expectLine(t, [...RUN_ALONE, '--', 'true'], 125, refusal, options)
  const agent = ['agent', '--no-discovery', '--data', directory, '--control', cluster.path('x.sock')]
  await expectLine(t, agent, 1, /is on tmpfs, which is memory: .+; give a --data directory on a disk$/)
  const doctor = await cluster.cli(['doctor'], options)
  t.is(doctor.status, 1)
  t.regex(doctor.stdout.toString(), /FAIL +spill directory: .*tmpfs[^\n]*\n +mend it: [^\n]*--data/)
})

test.serial('a spill directory that is full', async t => {
  const program = buildProgram('copier', cluster.directory)
  const args = [...RUN_ALONE, '--memory', '6M', '--', program, '16', cluster.path('copy'), '1']
  const pattern =
    /^no room for page 0x[0-9a-f]+: memory limit, lenders and spill space are all used up; give more with --memory,/
  await expectLine(t, args, 125, pattern, { env: { ELASTICOS_FAIL_SPILL: 'full:1+' } })
})
