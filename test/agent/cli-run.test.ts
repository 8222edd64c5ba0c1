/**
 * `elasticos run` around a fake pager: exit statuses, one-line errors, statistics at every end, signals, nothing left.
 */

import { once } from 'node:events'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import { type Outcome, outcome, ownLines, Sandbox } from './cli-harness.js'

const ALONE = ['run', '--participants', '1', '--stats', 'stats.json'] as const

interface Case {
  readonly what: string
  readonly args: readonly string[]
  readonly status: number
  readonly misbehaviour?: string
  /** What the one line on stderr says; none: no line. */
  readonly says?: RegExp
  /** Fields of the statistics; none: no file is written. */
  readonly stats?: Readonly<Record<string, unknown>>
}

const CASES: readonly Case[] = [
  {
    what: 'the program’s own status',
    args: [...ALONE, '--', 'sh', '-c', 'exit 7'],
    status: 7,
    stats: { mode: 'stretched', exitStatus: 7 },
  },
  {
    what: 'a program that a signal ends',
    args: [...ALONE, '--', 'sh', '-c', 'kill -SEGV $$'],
    status: 139,
    stats: { exitStatus: 139 },
  },
  {
    what: 'a program that is not there',
    args: [...ALONE, '--', 'no-such-program'],
    status: 127,
    says: /no-such-program/,
    stats: { exitStatus: 127 },
  },
  {
    what: 'a program that is not executable',
    args: [...ALONE, '--', '/etc/passwd'],
    status: 126,
    says: /passwd/,
    stats: { exitStatus: 126 },
  },
  {
    what: 'too little memory',
    args: [...ALONE, '--memory', '1M', '--', 'true'],
    status: 125,
    says: /1M is below the minimum; give 4M/,
    stats: { exitStatus: 125, mode: 'unstretched' },
  },
  {
    what: 'a bad size',
    args: [...ALONE, '--memory', '64Q', '--', 'true'],
    status: 125,
    says: /--memory: "64Q" is no size/,
    stats: { exitStatus: 125 },
  },
  {
    what: 'a bad duration',
    args: [...ALONE, '--wait', '5', '--', 'true'],
    status: 125,
    says: /--wait: "5" is no duration/,
    stats: { exitStatus: 125 },
  },
  {
    what: 'an unknown policy',
    args: [...ALONE, '--policy', 'guess', '--', 'true'],
    status: 125,
    says: /unknown policy "guess": there are always-pull/,
    stats: { exitStatus: 125 },
  },
  {
    what: 'a bad count',
    args: [...ALONE, '--jump-every', '0', '--', 'true'],
    status: 125,
    says: /--jump-every/,
    stats: { exitStatus: 125 },
  },
  {
    what: 'more participants wanted than allowed',
    args: [...ALONE, '--participants-min', '2', '--', 'true'],
    status: 125,
    says: /--participants-min 2 is more than --participants 1/,
    stats: { exitStatus: 125 },
  },
  {
    what: 'an agent that is not there',
    args: ['run', '--control', 'none.sock', '--', 'true'],
    status: 125,
    says: /no agent listens at none\.sock; start one/,
  },
  {
    what: 'an unknown flag',
    args: ['run', '--memroy', '64M', '--', 'true'],
    status: 125,
    says: /unknown option '--memroy'.*--memory/,
  },
  {
    what: 'flags of features that are not built',
    args: ['run', '--replicas', '2', '--', 'true'],
    status: 125,
    says: /unknown option '--replicas'/,
  },
  { what: 'no program', args: ['run'], status: 125, says: /missing required argument 'program'/ },
  {
    what: 'statistics that cannot be written',
    args: ['run', '--stats', '/nowhere/x', '--', 'true'],
    status: 125,
    says: /cannot write statistics to \/nowhere\/x/,
  },
  {
    what: 'statistics for which there is no room: the program’s own status all the same',
    args: ['run', '--participants', '1', '--stats', '/dev/full', '--', 'sh', '-c', 'exit 7'],
    status: 7,
    says: /cannot write the statistics: ENOSPC/,
  },
  {
    what: 'a wait longer than a timer can be',
    args: ['run', '--wait', '2147483648ms', '--', 'true'],
    status: 125,
    says: /--wait 2147483648ms is too long/,
  },
  {
    what: 'a pager that refuses',
    misbehaviour: 'refuse',
    args: [...ALONE, '--', 'true'],
    status: 125,
    says: /no userfaultfd here; mend it/,
    stats: { mode: 'unstretched', reason: 'no userfaultfd here; mend it', exitStatus: 125 },
  },
  {
    what: 'a pager killed before it speaks',
    misbehaviour: 'silent-death',
    args: [...ALONE, '--', 'true'],
    status: 125,
    says: /before the program started \(killed by SIGKILL\)/,
    stats: { exitStatus: 125 },
  },
  {
    what: 'a pager killed in mid-run',
    misbehaviour: 'death',
    args: [...ALONE, '--', 'sleep', '1'],
    status: 125,
    says: /the pager ended \(killed by SIGKILL\)/,
    stats: { exitStatus: 125 },
  },
  {
    what: 'a pager that talks nonsense',
    misbehaviour: 'garbage',
    args: [...ALONE, '--', 'sleep', '20'],
    status: 125,
    says: /nonsense/,
    stats: { exitStatus: 125 },
  },
  {
    what: 'a pager that does not end',
    misbehaviour: 'linger',
    args: [...ALONE, '--', 'true'],
    status: 0,
    stats: { exitStatus: 0 },
  },
]

function check(t: ExecutionContext, { says, stats, status }: Case, got: Outcome, box: Sandbox): void {
  const lines = ownLines(got.stderr)
  t.is(got.status, status, got.stderr)
  t.is(lines.length, says === undefined ? 0 : 1, got.stderr)
  if (says !== undefined) t.regex(lines[0] ?? '', says)
  t.is(existsSync(box.path('stats.json')), stats !== undefined)
  if (stats !== undefined) {
    const written: unknown = JSON.parse(readFileSync(box.path('stats.json'), 'utf8'))
    t.like(written as Record<string, unknown>, stats)
  }
  t.deepEqual(box.leftovers(), [])
  t.true(got.ms < 8000)
}

for (const one of CASES) {
  test.serial(one.what, async t => {
    const box = new Sandbox()
    t.teardown(() => box.remove())
    check(t, one, await box.elasticos(one.args, one.misbehaviour), box)
  })
}

test('standard input and output are the program’s, and its arguments reach it unchanged', async t => {
  const box = new Sandbox()
  t.teardown(() => box.remove())
  const args = ['run', '--participants', '1', '--', 'sh', '-c', 'cat; echo "$*"', 'x', '--', '--memory', '-h']
  const got = await box.elasticos(args, '', 'from outside\n')
  t.is(got.stdout, 'from outside\n-- --memory -h\n')
})

test('the pager is told the plan', async t => {
  const box = new Sandbox()
  t.teardown(() => box.remove())
  const policy = 'multinode-adaptive-lru:window=20'
  await box.elasticos([...ALONE, '--memory', '8M', '--policy', policy, '--', 'true'])
  const stats: unknown = JSON.parse(readFileSync(box.path('stats.json'), 'utf8'))
  t.like(stats as Record<string, unknown>, { memoryLimitBytes: 8 << 20, backend: 'userfaultfd', pulls: 1 })
  t.regex((stats as { policy: string }).policy, /^multinode-adaptive-lru:window=20,threshold=/)
})

for (const [signal, status] of [
  ['SIGTERM', 143],
  ['SIGINT', 130],
  ['SIGHUP', 129],
  ['SIGUSR1', 138],
  ['SIGUSR2', 140],
] as const) {
  test(`${signal} reaches the program`, async t => {
    const box = new Sandbox()
    t.teardown(() => box.remove())
    const child = box.spawn([...ALONE, '--', 'sh', '-c', 'echo up; exec sleep 20'])
    const ended = outcome(child)
    await once(child.stdout ?? child, 'data')
    child.kill(signal)
    const got = await ended
    t.is(got.status, status, got.stderr)
    t.deepEqual(ownLines(got.stderr), [])
    t.deepEqual(box.leftovers(), [])
  })
}

test('a program that handles a signal goes on', async t => {
  const box = new Sandbox()
  t.teardown(() => box.remove())
  const script = 'trap "echo caught; exit 5" TERM; echo up; while :; do sleep 0.05; done'
  const child = box.spawn([...ALONE, '--', 'sh', '-c', script])
  const ended = outcome(child)
  await once(child.stdout ?? child, 'data')
  child.kill('SIGTERM')
  const got = await ended
  t.is(got.status, 5)
  t.true(got.stdout.includes('caught'))
})

test('when run is killed the program ends too, and clean removes what is left', async t => {
  const box = new Sandbox()
  t.teardown(() => box.remove())
  const child = box.spawn([...ALONE, '--', 'sh', '-c', 'echo $$; exec sleep 20'])
  const ended = outcome(child)
  const [chunk] = await once(child.stdout ?? child, 'data')
  const pid = Number(String(chunk))
  child.kill('SIGKILL')
  await ended
  for (let i = 0; i < 100 && existsSync(`/proc/${pid}`); i++)
    await new Promise(resolve => setTimeout(resolve, 50))
  t.false(existsSync(`/proc/${pid}`))
  const cleaned = await box.elasticos(['clean'])
  t.is(cleaned.status, 0, cleaned.stderr)
  t.regex(cleaned.stdout, /removed directory .*: its run is gone/)
  t.is((await box.elasticos(['clean'])).stdout, 'nothing to clean\n')
})

test('--allow-unstretched runs the program alone, only where stretching fails, and says so', async t => {
  const box = new Sandbox()
  t.teardown(() => box.remove())
  const args = [...ALONE, '--allow-unstretched', '--', 'sh', '-c', 'echo out; exit 3']
  const alone = await box.elasticos(args, 'refuse')
  t.is(alone.status, 3)
  t.is(alone.stdout, 'out\n')
  t.regex(ownLines(alone.stderr)[0] ?? '', /running unstretched.*no userfaultfd here/)
  const stats = JSON.parse(readFileSync(box.path('stats.json'), 'utf8'))
  t.like(stats, { mode: 'unstretched', reason: 'no userfaultfd here; mend it', exitStatus: 3 })
  t.deepEqual(ownLines((await box.elasticos(args)).stderr), [])
})

test('a pager that is not built is one line with the remedy', async t => {
  const box = new Sandbox()
  t.teardown(() => box.remove())
  rmSync(box.path('elasticos-pager'))
  const got = await box.elasticos([...ALONE, '--', 'true'])
  t.is(got.status, 125)
  t.regex(ownLines(got.stderr)[0] ?? '', /no pager at .*: run `npm rebuild`/)
  t.is(JSON.parse(readFileSync(box.path('stats.json'), 'utf8')).exitStatus, 125)
})
