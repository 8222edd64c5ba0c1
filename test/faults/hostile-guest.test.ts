/**
 * Hostile guests (programs/hostile_calls.c, hostile_guest.c) on two agents whose hosts have names, networks and directories of their own:
 * on the participant they try every way to make a system call, and every instruction and state of the processor that is
 * not for programs. What comes of it is what comes of it alone, and the participant's directory stays empty.
 */

import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync } from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import { type RunOutcome, TestCluster } from '../helpers/cluster.js'
import { Hosts, namespacesMissing } from '../helpers/namespaces.js'
import { buildProgram } from '../helpers/programs.js'

const TIMEOUT_MS = 120_000
const PORT = 7431
const ROUNDS = 12
const SHOWN_MAX = 10
const RUN_FAILED = 125
const SEGV = 128 + 11
const FLAGS = ['--memory', '4M', '--participants-min', '2', '--wait', '15s', '--jump-every', '1']
/** The agent's host is called otherwise, and where the program works there is an empty directory. */
const ELSEWHERE = 'hostname elsewhere; mount -t tmpfs witness "$0" && exec "$@"'

/** The cases of hostile_calls.c; the others are in hostile_guest.c. */
const CALLS = new Set([
  'calls',
  'conventions',
  'sysenter',
  'compat',
  'trampoline',
  'trampoline-end',
  'trampoline-data',
])

const missing = namespacesMissing()
const maybe = missing === undefined ? test.serial : test.serial.skip
if (missing !== undefined) console.log(`skipped, no namespaces: ${missing}`)

let hosts: Hosts
let cluster: TestCluster
let programs: Readonly<Record<'hostile_calls' | 'hostile_guest', string>>

test.before(async t => {
  t.timeout(TIMEOUT_MS)
  if (missing !== undefined) return
  hosts = Hosts.make(2)
  cluster = await TestCluster.make()
  const build = (name: string) =>
    buildProgram(name, cluster.directory, ['-mfsgsbase', '-fno-stack-protector'])
  programs = { hostile_calls: build('hostile_calls'), hostile_guest: build('hostile_guest') }
  mkdirSync(cluster.path('made'))
  const address = (index: number) => `/ip4/${hosts.address(index)}/tcp/${PORT}`
  const unshared = ['unshare', '--uts', '--mount', 'sh', '-c', ELSEWHERE, cluster.path('made')]
  await cluster.startAgent('a', { prefix: hosts.prefix(0), flags: ['--listen', address(0)] })
  const flags = ['--listen', address(1), '--capacity', '64M']
  await cluster.startAgent('b', { prefix: [...hosts.prefix(1), ...unshared], peers: [address(0)], flags })
  await cluster.whenJoined(2)
})

test.after.always(async t => {
  t.deepEqual((await cluster?.stop()) ?? [], [])
  hosts?.remove()
})

/** What the program made: alone, at home, and in the same place of the participant. */
interface Seen {
  readonly alone: { readonly stdout: string; readonly status: number; readonly made: readonly string[] }
  readonly end: RunOutcome
  readonly stdout: string
  readonly made: readonly string[]
}

/** Runs a case alone and stretched, and checks what must hold for all: it was away, and did nothing there. */
async function compare(t: ExecutionContext, name: string, rounds = ROUNDS): Promise<Seen> {
  t.timeout(TIMEOUT_MS)
  const directory = cluster.path('made', name)
  const apart = cluster.path(`alone-${name}`)
  const program = programs[CALLS.has(name) ? 'hostile_calls' : 'hostile_guest']
  mkdirSync(directory)
  mkdirSync(apart)
  const done = spawnSync(program, [name, apart, String(rounds)], { encoding: 'utf8', timeout: TIMEOUT_MS })
  const status = done.signal === 'SIGSEGV' ? SEGV : (done.status ?? -1)
  const end = await cluster.run('a', FLAGS, [program, name, directory, String(rounds)], {
    prefix: hosts.prefix(0),
    timeoutMs: TIMEOUT_MS,
  }).outcome
  t.true((end.stats?.jumps ?? 0) > 0, end.stderr)
  t.true((end.stats?.participants ?? []).some(each => each.jumpsTo > 0))
  t.deepEqual(readdirSync(`/proc/${cluster.agent('b').pid}/root${cluster.path('made')}`), [])
  t.log(`${end.stats?.jumps} jumps, ${end.stats?.jumpsHome} ways home`)
  return {
    alone: { stdout: done.stdout, status, made: readdirSync(apart).sort() },
    end,
    stdout: end.stdout.toString(),
    made: readdirSync(directory).sort(),
  }
}

function differences({ alone, stdout }: Seen): string[] {
  const [expected, got] = [alone.stdout.split('\n'), stdout.split('\n')]
  const lines = Array.from({ length: Math.max(expected.length, got.length) }, (_, i) => [expected[i], got[i]])
  return lines.flatMap(([one, other]) => (one === other ? [] : [`alone ${one}   stretched ${other}`]))
}

/** Nothing but its attempts takes these programs home. */
function expectAttemptsAway(t: ExecutionContext, { end }: Seen): void {
  t.true((end.stats?.jumpsHome ?? 0) > 0)
}

for (const { name, title } of [
  { name: 'calls', title: 'calls and forged signal frames' },
  { name: 'sysenter', title: 'sysenter' },
  { name: 'compat', title: '32-bit code, and a segment of its own' },
  { name: 'instructions', title: 'instructions that are not for programs' },
  { name: 'interrupts', title: 'every software interrupt' },
  { name: 'bases', title: 'bases of segments' },
  { name: 'keys', title: 'protection keys' },
  { name: 'tiles', title: 'tiles of AMX in use' },
  { name: 'memory', title: 'endless recursion, and writes to its text' },
  { name: 'threads', title: 'calls of several threads at once' },
  { name: 'children', title: 'fork and vfork' },
  { name: 'rewritten', title: 'code that another thread changes' },
])
  maybe(`as alone, and nothing on the participant: ${title}`, async t => {
    const seen = await compare(t, name)
    t.deepEqual(differences(seen).slice(0, SHOWN_MAX), [])
    t.is(seen.end.status, seen.alone.status)
    t.is(seen.end.stderr, '')
    t.deepEqual(seen.made, seen.alone.made)
    expectAttemptsAway(t, seen)
  })

maybe('calls by another convention are refused, and nothing on the participant', async t => {
  const seen = await compare(t, 'conventions')
  t.regex(seen.alone.stdout, /^int 0x80: result 0, .+\nint 0x80 in 32-bit code: result 0, /)
  t.regex(seen.stdout, /^int 0x80: result -38, .+\nint 0x80 in 32-bit code: result -38, .+\ndone\n$/)
  t.is(seen.end.status, 0, seen.end.stderr)
  t.deepEqual(seen.made, [])
  expectAttemptsAway(t, seen)
})

for (const { name, says } of [
  { name: 'trampoline', says: /^elasticos: the program has jumped into the page through which .+\n$/ },
  { name: 'trampoline-end', says: /^elasticos: the program has jumped into the page through which .+\n$/ },
  { name: 'kernel-base', says: /^elasticos: a thread has set its %fs or %gs base beyond its memory, .+\n$/ },
])
  maybe(`ends the run with one line, and nothing on the participant: ${name}`, async t => {
    const seen = await compare(t, name)
    t.is(seen.end.status, RUN_FAILED)
    t.regex(seen.end.stderr, says)
    t.is(seen.stdout, '')
  })

maybe(
  "behind the trampoline, and writes there: a segmentation fault as alone, but for the signal's code",
  async t => {
    const seen = await compare(t, 'trampoline-data')
    const withoutCode = (text: string) => text.replace(/, code \d+, at -?\d+/g, '')
    t.is(withoutCode(seen.stdout), withoutCode(seen.alone.stdout))
    t.is(seen.end.status, 0, seen.end.stderr)
    expectAttemptsAway(t, seen)
  },
)
