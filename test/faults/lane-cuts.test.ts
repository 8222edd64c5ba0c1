/**
 * Lanes whose connections are cut at random while programs run that jump and pull over them, between home and
 * participants and between two participants: the output is what it is without, and nothing is lost. And wires that
 * stall, or that stay away for too long.
 */

import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import { PagerClient } from '../../kmod/pager-client.js'
import { until } from '../helpers/cluster.js'
import { Pagers, type PagersEnd } from '../helpers/pagers.js'
import { SEED } from '../helpers/seed.js'
import { PROGRAMS } from '../matrix/programs.js'

const TIMEOUT_MS = 170_000
const RUN_FAILED = 125
/** 6 MiB: a fraction of what any of these programs needs. */
const MEMORY_PAGES = 1536
const JUMP_EVERY = 100
const CUT_EVERY_MS = { min: 100, max: 300 }
const STALL_MS = 2000
const CUTS_MIN = 3

let directory: string

test.before(() => {
  directory = mkdtempSync('/var/tmp/el-cuts-')
})

test.after.always(() => rmSync(directory, { recursive: true, force: true }))

/** A seeded generator (Mulberry32): numbers from 0 up to 1. */
function random(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

function commandOf(name: string): readonly string[] {
  const program = PROGRAMS.find(each => each.name === name)
  const [command] = program?.prepare(directory, 'small').commands ?? []
  if (command === undefined) throw new Error(`no program ${name}`)
  return command
}

async function startPagers(
  t: ExecutionContext,
  command: readonly string[],
  participants: number,
): Promise<Pagers> {
  const options = { participants, memoryPages: MEMORY_PAGES, jumpEvery: JUMP_EVERY }
  const pagers = await Pagers.start(command, options)
  t.teardown(() => pagers.stop())
  return pagers
}

async function someJumps({ home }: Pagers): Promise<void> {
  await until('some jumps', async () => Number((await home.requestStats()).jumps) > 10, 60_000)
}

/** Cuts a connection of some wire now and then, until `ended`. */
async function cutNowAndThen(pagers: Pagers, ended: () => boolean): Promise<number> {
  const next = random(SEED)
  let cuts = 0
  while (!ended()) {
    await sleep(CUT_EVERY_MS.min + next() * (CUT_EVERY_MS.max - CUT_EVERY_MS.min))
    const wire = pagers.wires[Math.floor(next() * pagers.wires.length)]
    const how = next() < 0.5 ? 'reset' : 'end'
    if (next() < 0.3 && wire?.cut(1, how) === true) cuts++
    if (wire?.cut(next() < 0.5 ? 0 : 1, how) === true) cuts++
  }
  return cuts
}

function expectRight(t: ExecutionContext, end: PagersEnd, command: readonly string[]): void {
  const [program = '', ...words] = command
  const alone = spawnSync(program, words, { cwd: directory, maxBuffer: 1 << 28, timeout: TIMEOUT_MS })
  t.is(end.status, 0, end.message)
  t.true(end.stdout.equals(alone.stdout), `${end.stdout.length} bytes, alone ${alone.stdout.length}`)
  t.is(end.stats.framesRefused, 0)
}

for (const [name, participants] of [
  ['python-dict', 1],
  ['sort', 2],
  ['threads', 2],
] as const) {
  test.serial(`${name} on ${participants + 1} nodes while connections are cut`, async t => {
    t.timeout(TIMEOUT_MS)
    const command = commandOf(name)
    const pagers = await startPagers(t, command, participants)
    let ended = false
    const running = pagers.run().finally(() => {
      ended = true
    })
    const [cuts, end] = await Promise.all([cutNowAndThen(pagers, () => ended), running])
    t.log(`ELASTICOS_SEED=${SEED}: ${cuts} cuts, ${end.stats.lanesResumed} connections resumed`)
    expectRight(t, end, command)
    t.true(cuts >= CUTS_MIN && Number(end.stats.lanesResumed) >= CUTS_MIN)
    t.true(Number(end.stats.jumps) > 0)
  })
}

test.serial('a wire that holds everything for two seconds is waited for', async t => {
  t.timeout(TIMEOUT_MS)
  const command = commandOf('threads')
  const pagers = await startPagers(t, command, 1)
  const running = pagers.run()
  await someJumps(pagers)
  pagers.wires[0]?.hold()
  await sleep(STALL_MS)
  pagers.wires[0]?.release()
  const end = await running
  expectRight(t, end, command)
  t.is(end.stats.lanesResumed, 0)
})

test.serial(
  'connections that carry nothing any more are made anew once the node is known to run',
  async t => {
    t.timeout(TIMEOUT_MS)
    const command = commandOf('threads')
    const pagers = await startPagers(t, command, 1)
    const running = pagers.run()
    await someJumps(pagers)
    const agent = await PagerClient.connect(join(pagers.directory, 'a.sock'), 'agent')
    agent.on(event => {
      if (event.kind !== 'node-silent' || event.silentMs === 0) return
      const { node, leaseId } = event
      agent.send({ kind: 'node-verdict', node, leaseId, verdict: 'runs', reason: '' })
    })
    pagers.wires[0]?.freeze()
    const end = await running
    expectRight(t, end, command)
    t.is(end.stats.lanesResumed, 2)
    agent.close()
  },
)

test.serial('a wire that does not come back ends the run, by the name of the node', async t => {
  t.timeout(TIMEOUT_MS)
  const pagers = await startPagers(t, commandOf('python-dict'), 1)
  const running = pagers.run()
  await someJumps(pagers)
  pagers.wires[0]?.remove()
  const end = await running
  t.is(end.status, RUN_FAILED)
  t.regex(end.message ?? '', /^node b was lost \(.+; then refused for 3 s\) with \d+ pages and \d+ threads\b/)
})
