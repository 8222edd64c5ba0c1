/**
 * A program and its children: those it leaves behind live on after its end, as they do alone, and nothing else does.
 * And its process group, of which `run` and the pager are members: a signal for all of it is the program's affair.
 */

import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import type { TestCluster } from '../helpers/cluster.js'
import { buildProgram } from '../helpers/programs.js'
import { startCluster } from '../matrix/matrix.js'

const TIMEOUT_MS = 60_000
const CHILD_SECONDS = 2

const HERE = ['--memory', '8M', '--participants', '1']

let cluster: TestCluster

test.before(async t => {
  t.timeout(TIMEOUT_MS)
  cluster = await startCluster(2)
})

test.after.always(async t => {
  t.deepEqual(await cluster?.stop(), [])
})

test.serial('a child that is left behind lives on, and its pager only as long', async t => {
  t.timeout(TIMEOUT_MS)
  const late = join(cluster.directory, 'late')
  const child = `sleep ${CHILD_SECONDS}; sh -c "echo late" > ${late}`
  const script = `(${child}) </dev/null >/dev/null 2>&1 & echo early; exit 3`
  const flags = ['--memory', '8M', '--participants-min', '2', '--wait', '15s']
  const end = await cluster.run('a', flags, ['sh', '-c', script], { timeoutMs: TIMEOUT_MS }).outcome
  t.is(end.status, 3, end.stderr)
  t.is(end.stdout.toString(), 'early\n')
  t.false(existsSync(late), 'run waited for the child')
  const deadline = performance.now() + 10_000 + CHILD_SECONDS * 1000
  while (cluster.pagers().length > 0 && performance.now() < deadline) await sleep(100)
  t.deepEqual(cluster.pagers(), [])
  t.is(readFileSync(late, 'utf8'), 'late\n')
})

test.serial('a process that ends in the middle of a fork leaves a child that runs', async t => {
  t.timeout(TIMEOUT_MS)
  const program = buildProgram('orphan', cluster.directory)
  const end = await cluster.run('a', HERE, [program], { timeoutMs: TIMEOUT_MS }).outcome
  t.is(end.stdout.toString(), 'all ran\n', end.stderr)
  t.is(end.status, 0)
})

test.serial('a vfork child does not outlive the memory that it borrows', async t => {
  t.timeout(TIMEOUT_MS)
  const program = buildProgram('outlived', cluster.directory)
  const end = await cluster.run('a', HERE, [program], { timeoutMs: TIMEOUT_MS }).outcome
  t.is(end.stdout.toString(), 'the child: \n', end.stderr)
  t.is(end.status, 0)
})

for (const [way, title] of [
  ['vfork-copy', 'a child that its parent waits for, but with memory of its own'],
  ['untraced', 'a child that nobody is to trace'],
  ['heap', 'a child whose heap grows and shrinks'],
] as const) {
  test.serial(title, async t => {
    t.timeout(TIMEOUT_MS)
    const program = buildProgram('births', cluster.directory)
    const end = await cluster.run('a', HERE, [program, way], { timeoutMs: TIMEOUT_MS }).outcome
    t.is(end.stdout.toString(), 'as alone\n', end.stderr)
    t.is(end.status, 0)
  })
}

test.serial('a core dump that lacks what was away is said to', async t => {
  t.timeout(TIMEOUT_MS)
  const inside = mkdtempSync(join(cluster.directory, 'core-'))
  const body = 'import os; kept = [bytes([i % 251 + 1]) * 4096 for i in range(8192)]; os.abort()'
  const script = `cd ${inside} && ulimit -c unlimited && exec python3 -c '${body}'`
  const alone = spawnSync('sh', ['-c', script], { timeout: TIMEOUT_MS })
  const dumped = readdirSync(inside).length > 0
  t.is(alone.signal, 'SIGABRT')
  const end = await cluster.run('a', HERE, ['sh', '-c', script], { timeoutMs: TIMEOUT_MS }).outcome
  t.is(end.status, 134, end.stderr)
  if (dumped) t.regex(end.stderr, /^elasticos: the core dump is not whole: [1-9]\d+ pages [^\n]+\n$/)
  else t.log('no core dump in the working directory of a program: see /proc/sys/kernel/core_pattern')
})

for (const signal of ['TERM', 'USR1', 'USR2', 'ALRM', 'HUP', 'INT']) {
  test.serial(
    `SIG${signal} to the process group reaches the program once, and ends nothing else`,
    async t => {
      t.timeout(TIMEOUT_MS)
      const script = `trap 'echo caught' ${signal}; kill -${signal} 0; sleep 1; echo end`
      const options = { prefix: ['setsid', '-w'], timeoutMs: TIMEOUT_MS }
      const end = await cluster.run('a', HERE, ['sh', '-c', script], options).outcome
      t.is(end.stdout.toString(), 'caught\nend\n', end.stderr)
      t.is(end.status, 0)
    },
  )
}

test.serial('a time limit for the whole group leaves the program its last words', async t => {
  t.timeout(TIMEOUT_MS)
  const script = 'trap "echo saved; exit 0" TERM; echo up; while :; do sleep 0.1; done'
  const options = { prefix: ['timeout', '4'], timeoutMs: TIMEOUT_MS }
  const end = await cluster.run('a', HERE, ['sh', '-c', script], options).outcome
  t.is(end.stdout.toString(), 'up\nsaved\n', end.stderr)
})

test.serial('a descriptor that an executed program closes is closed: a reader of the pipe ends', async t => {
  t.timeout(TIMEOUT_MS)
  const pipe = join(cluster.directory, 'pipe')
  const ended = join(cluster.directory, 'ended')
  const wait = `n=0; while [ ! -e ${ended} ] && [ $n -lt 100 ]; do sleep 0.1; n=$((n+1)); done`
  const image = `exec 3>&-; ${wait}; [ -e ${ended} ] && echo seen`
  const script = `mkfifo ${pipe}; (cat <${pipe}; : >${ended}) & exec 3>${pipe}; exec sh -c '${image}'`
  const end = await cluster.run('a', HERE, ['sh', '-c', script], { timeoutMs: TIMEOUT_MS }).outcome
  t.is(end.stdout.toString(), 'seen\n', end.stderr)
  t.is(end.status, 0)
})

const asRoot = process.getuid?.() === 0 ? test.serial : test.serial.skip

asRoot('a program that gives up its user, or its root directory, can still execute others', async t => {
  t.timeout(TIMEOUT_MS)
  const root = join(cluster.directory, 'root')
  mkdirSync(root)
  buildProgram('births', root, ['-static'])
  for (const before of [
    ['setpriv', '--reuid=65534', '--clear-groups'],
    ['chroot', root],
  ]) {
    const program = before[0] === 'chroot' ? '/births' : '/bin/echo'
    const command = [...before, program, before[0] === 'chroot' ? 'heap' : 'as alone']
    const end = await cluster.run('a', HERE, command, { timeoutMs: TIMEOUT_MS }).outcome
    t.is(end.stdout.toString(), 'as alone\n', end.stderr)
    t.is(end.status, 0)
  }
})

asRoot(
  'what is executed in another root, or with users of its own, is judged as the kernel does there',
  async t => {
    t.timeout(TIMEOUT_MS)
    const root = join(cluster.directory, 'other-root')
    mkdirSync(root)
    // Its loader is to be found only there.
    buildProgram('births', root, ['-Wl,--dynamic-linker=/loader'])
    const needs = spawnSync('ldd', ['/bin/true'], { encoding: 'utf8' }).stdout
    for (const [, path = ''] of needs.matchAll(/(\/\S+) \(0x/g)) {
      mkdirSync(join(root, dirname(path)), { recursive: true })
      copyFileSync(path, join(root, path))
      if (path.includes('/ld-linux')) copyFileSync(path, join(root, 'loader'))
    }
    const setuid = join(cluster.directory, 'setuid-of-nobody-known')
    copyFileSync('/bin/echo', setuid)
    chownSync(setuid, 12_345, 12_345)
    chmodSync(setuid, 0o6755)
    const inRoot = ['chroot', root, '/births', 'heap']
    const withUsers = ['unshare', '--user', '--map-root-user', setuid, 'as alone']
    const commands = [inRoot, ...(spawnSync('unshare', ['--user', 'true']).status === 0 ? [withUsers] : [])]
    for (const command of commands)
      for (const words of [command, ['sh', '-c', '"$@"; exit $?', 'sh', ...command]]) {
        const end = await cluster.run('a', HERE, words, { timeoutMs: TIMEOUT_MS }).outcome
        t.is(end.stdout.toString(), 'as alone\n', `${words.join(' ')}: ${end.stderr}`)
        t.is(end.status, 0)
      }
    const known = await cluster.run('a', HERE, ['sh', '-c', `${setuid} known; :`]).outcome
    t.is(known.status, 125)
    t.regex(known.stderr, / is setuid: /)
  },
)

for (const sanitizer of ['thread', 'address']) {
  test.serial(
    `a program whose ${sanitizer} sanitizer wants most of the address space for itself`,
    async t => {
      t.timeout(TIMEOUT_MS)
      const directory = join(cluster.directory, sanitizer)
      mkdirSync(directory)
      const program = buildProgram('births', directory, [`-fsanitize=${sanitizer}`])
      const flags = ['--memory', '64M', '--participants', '1']
      const options = { timeoutMs: TIMEOUT_MS, env: { ASAN_OPTIONS: 'detect_leaks=0' } }
      const end = await cluster.run('a', flags, [program, 'vfork-copy'], options).outcome
      t.is(end.stdout.toString(), 'as alone\n', end.stderr)
      t.is(end.status, 0)
      if (sanitizer === 'thread') return
      // It traces the program itself, which only one can: it has to say so.
      const leaks = await cluster.run('a', flags, [program, 'vfork-copy'], { timeoutMs: TIMEOUT_MS }).outcome
      t.regex(leaks.stderr, /does not work under ptrace/)
      t.not(leaks.status, 0)
    },
  )
}
