/**
 * Faults at chosen moments: connections that are cut while a participant is drained, while the program executes another
 * one, while children have pages to get; and a participant that stalls for two seconds while a thread waits for a page
 * of it, while a thread runs there, while the program executes another one. All of it is waited for, and the output is
 * right.
 */

import { spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import { until } from '../helpers/cluster.js'
import { Pagers, type PagersEnd } from '../helpers/pagers.js'
import { buildProgram } from '../helpers/programs.js'
import { PROGRAMS } from '../matrix/programs.js'
import { wrongWord } from './scene.js'

const TIMEOUT_MS = 120_000
const MEMORY_PAGES = 1536
const JUMP_EVERY = 100
const STALL_MS = 2000
const LEASE_TTL_MS = 10_000
/** A lease that is not renewed in a stall lapses. */
const SHORT_TTL_MS = 500
/** Longer than a lane takes to be made anew, so that something passes between two cuts. */
const CUT_EVERY_MS = 60
/** Nothing has been pulled for so long: a thread waits. */
const STILL_MS = 300
/** pause(2), in which a thread's task at home waits while it is elsewhere. */
const PAUSE = /^34 /
/** Some MiB of text, then another program when something comes through the pipe. */
const EXECUTES = 'x=$(head -c 10000000 /dev/zero | tr "\\0" x); read -r word < orders; exec "$@"'
/** Each leaves its children with pages to get while their parent does something. */
const FORKS = ['overwrite', 'nested']

let directory: string

test.before(() => {
  directory = mkdtempSync('/var/tmp/el-moments-')
})

test.after.always(() => rmSync(directory, { recursive: true, force: true }))

interface Started {
  readonly pagers: Pagers
  readonly ended: Promise<PagersEnd>
  isOver(): boolean
}

/** The program that `command` runs may read from a pipe called orders. */
async function start(
  t: ExecutionContext,
  command: readonly string[],
  { participants = 1, jumpEvery = 0, leaseTtlMs = LEASE_TTL_MS } = {},
): Promise<Started> {
  t.timeout(TIMEOUT_MS)
  const options = { participants, memoryPages: MEMORY_PAGES, jumpEvery, leaseTtlMs }
  const pagers = await Pagers.start(command, options)
  t.teardown(() => pagers.stop())
  t.is(spawnSync('mkfifo', [join(pagers.directory, 'orders')]).status, 0)
  let over = false
  const ended = pagers.run().finally(() => {
    over = true
  })
  return { pagers, ended, isOver: () => over }
}

async function statistic({ pagers }: Started, name: string): Promise<number> {
  return Number((await pagers.home.requestStats())[name])
}

/** Cuts all that there is, now and then, until `done` or the end. The number of connections that were cut. */
async function cutUntil({ pagers, isOver }: Started, done: () => boolean): Promise<number> {
  let cuts = 0
  while (!done() && !isOver()) {
    for (const wire of pagers.wires)
      for (const which of [1, 0]) if (wire.cut(which, cuts % 2 === 0 ? 'reset' : 'end')) cuts++
    await sleep(CUT_EVERY_MS)
  }
  return cuts
}

/** Lets `pagers` participant stand still for two seconds from when `isThere` holds on; tries again until it does. */
async function stall({ pagers, isOver }: Started, isThere: () => boolean | Promise<boolean>): Promise<void> {
  const pid = pagers.pid(1)
  for (;;) {
    if (isOver()) throw new Error('it ended before that moment')
    process.kill(pid, 'SIGSTOP')
    try {
      if (await isThere()) return await sleep(STALL_MS)
    } finally {
      process.kill(pid, 'SIGCONT')
    }
    await sleep(20)
  }
}

function expectCopied(t: ExecutionContext, end: PagersEnd, file: string, rounds: number): void {
  t.is(end.status, 0, end.message)
  t.is(end.stdout.toString().split('\n').at(-2), `round ${rounds}`)
  t.is(wrongWord(file), undefined)
}

function copier(file: string, rounds: number): string[] {
  return [buildProgram('copier', directory), '20', file, String(rounds)]
}

/** Starts what executes the copier on `order`, when it waits for that. Its words and its code are partly elsewhere. */
async function startExecuting(t: ExecutionContext, file: string): Promise<Started & { order(): void }> {
  const started = await start(t, ['bash', '-c', EXECUTES, 'bash', ...copier(file, 3)])
  const orders = openSync(join(started.pagers.directory, 'orders'), 'r+')
  t.teardown(() => closeSync(orders))
  const pushed = () => statistic(started, 'pagesPushed')
  await until('the text to be partly elsewhere', async () => (await pushed()) > 500, 30_000)
  await untilStill(pushed)
  return { ...started, order: () => writeSync(orders, 'go\n') }
}

async function untilStill(count: () => Promise<number>): Promise<void> {
  const isStill = async () => {
    const before = await count()
    await sleep(STILL_MS)
    return before === (await count())
  }
  await until('it to wait', isStill, 30_000)
}

test.serial('connections are cut while a participant is drained', async t => {
  const file = join(directory, 'drained')
  const started = await start(t, copier(file, 12), { participants: 2 })
  await until('some pulls', async () => (await statistic(started, 'pulls')) > 100, 30_000)
  const { pagers } = started
  pagers.home.send({ kind: 'participant-drop', node: 1 })
  const isGone = () => pagers.events(0).some(event => event.kind === 'lane-down' && event.node === 1)
  const cuts = await cutUntil(started, isGone)
  const end = await started.ended
  t.true(isGone(), 'it was drained before the end')
  t.log(`${cuts} cuts`)
  t.true(cuts > 0)
  expectCopied(t, end, file, 12)
})

test.serial('connections are cut while the program executes another one', async t => {
  const file = join(directory, 'executed')
  const started = await startExecuting(t, file)
  started.order()
  const cuts = await cutUntil(started, () => false)
  const end = await started.ended
  expectCopied(t, end, file, 3)
  t.log(`${cuts} cuts, ${end.stats.lanesResumed} connections resumed`)
  t.true(Number(end.stats.lanesResumed) > 0)
})

test.serial('connections are cut while children have pages to get', async t => {
  const command = [buildProgram('fork_snapshot', directory), '1500', ...FORKS]
  const started = await start(t, command, { participants: 2 })
  const cuts = await cutUntil(started, () => false)
  const end = await started.ended
  t.is(end.status, 0, `${end.message} ${end.stdout}`)
  t.is(end.stdout.toString(), 'all right\n')
  t.log(`${cuts} cuts, ${end.stats.lanesResumed} connections resumed`)
  t.true(cuts > 0)
})

test.serial('a participant stalls while a thread waits for a page of it, and its lease lapses', async t => {
  const file = join(directory, 'pulled')
  const started = await start(t, copier(file, 10), { leaseTtlMs: SHORT_TTL_MS })
  await until('some pulls', async () => (await statistic(started, 'pulls')) > 100, 30_000)
  await stall(started, async () => {
    const before = await statistic(started, 'pulls')
    await sleep(STILL_MS)
    return before === (await statistic(started, 'pulls'))
  })
  const pushed = await statistic(started, 'pagesPushed')
  const end = await started.ended
  expectCopied(t, end, file, 10)
  t.true(Number(end.stats.pagesPushed) > pushed, 'it was renewed')
})

test.serial('a participant stalls while a thread runs there', async t => {
  const [command = []] =
    PROGRAMS.find(each => each.name === 'threads')?.prepare(directory, 'small').commands ?? []
  const started = await start(t, command, { jumpEvery: JUMP_EVERY })
  await until('some jumps', async () => (await statistic(started, 'jumps')) > 3, 30_000)
  const application = started.pagers.events(0).find(event => event.kind === 'started')?.appPid
  const tasks = `/proc/${application}/task`
  await stall(started, () =>
    readdirSync(tasks).some(task => PAUSE.test(readFileSync(join(tasks, task, 'syscall'), 'utf8'))),
  )
  const end = await started.ended
  t.is(end.status, 0, end.message)
  const [program = '', ...words] = command
  t.deepEqual(end.stdout, spawnSync(program, words, { cwd: directory }).stdout)
})

test.serial('a participant stalls while the program executes another one', async t => {
  const file = join(directory, 'replaced')
  const started = await startExecuting(t, file)
  await stall(started, () => {
    started.order()
    return true
  })
  expectCopied(t, await started.ended, file, 3)
})
