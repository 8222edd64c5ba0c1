/**
 * What an agent does about its homes once a second, with a /proc of the test's own and pagers without pages: limits that
 * follow the machine's memory, participants that are let go.
 */

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { machineMemory } from '../../agent/executor/capacity.js'
import { HomeWatch } from '../../agent/executor/home-watch.js'
import { IDLE_MS } from '../../agent/machines/idle.js'
import { CALM_MS } from '../../agent/machines/pressure.js'
import type { PeerId } from '../../agent/machines/types.js'
import { PAGE_BYTES } from '../../placement/units.js'
import { VirtualClock } from '../../sim-net/clock.js'
import { type FakePager, FakeWorld } from './fake-pagers.js'

const TOTAL_KIB = 16_000_000
const LIMIT_PAGES = 1_000_000

const LOG = { error() {}, warn() {}, info() {}, debug() {} }
/** Two machines may have one name. */
const SEATS = [
  { peer: 'peer-b' as PeerId, name: 'b', state: 'up' as const },
  { peer: 'peer-c' as PeerId, name: 'c', state: 'up' as const },
  { peer: 'peer-c2' as PeerId, name: 'c', state: 'up' as const },
  { peer: 'peer-d' as PeerId, name: 'd', state: 'granted' as const },
]

class Proc {
  readonly directory = mkdtempSync(join(tmpdir(), 'elasticos-proc-'))

  constructor(t: ExecutionContext) {
    mkdirSync(join(this.directory, 'pressure'))
    t.teardown(() => rmSync(this.directory, { recursive: true }))
  }

  memory(availableKib: number): void {
    const text = `MemTotal:       ${TOTAL_KIB} kB\nMemFree:  1 kB\nMemAvailable:   ${availableKib} kB\n`
    writeFileSync(join(this.directory, 'meminfo'), text)
  }

  stalls(some: number, full: number): void {
    const line = (kind: string, percent: number) =>
      `${kind} avg10=${percent.toFixed(2)} avg60=0.00 avg300=0.00 total=1\n`
    writeFileSync(join(this.directory, 'pressure', 'memory'), line('some', some) + line('full', full))
  }
}

function holds(pager: FakePager, residentPages: number, limitPages: number): void {
  pager.stats = { residentPages, memoryLimitBytes: limitPages * PAGE_BYTES }
}

function limitsSent(pager: FakePager): number[] {
  return pager.received.flatMap(command => (command.kind === 'limit' ? [command.pages] : []))
}

async function homeOf(world: FakeWorld, id: string, memoryFollows: boolean | undefined) {
  const { path: pagerSocket, pager } = world.home(id)
  const client = await world.pagers().connect(pagerSocket)
  const rest = { program: 'sort', participantsMax: 2, memoryPages: LIMIT_PAGES, uid: 0 }
  const rested: PeerId[] = []
  const home = {
    attachment: { id, pagerSocket, memoryFollows, ...rest },
    client,
    seats: () => SEATS,
    rest: (peer: PeerId) => void rested.push(peer),
  }
  return { pager, home, rested }
}

test('runs without --memory are told to give way and to grow; others are left alone', async t => {
  const proc = new Proc(t)
  const clock = new VirtualClock()
  const world = new FakeWorld()
  const watch = new HomeWatch(clock, LOG, PAGE_BYTES, proc.directory)
  const follows = await homeOf(world, '0000000000000001', true)
  const fixed = await homeOf(world, '0000000000000002', undefined)
  const stalled = await homeOf(world, '0000000000000003', true)
  stalled.pager.stalled = true
  const homes = [stalled.home, fixed.home, follows.home]
  for (const { pager } of [follows, fixed, stalled]) holds(pager, LIMIT_PAGES, LIMIT_PAGES)
  const look = async (passedMs: number) => {
    clock.runFor(passedMs)
    void watch.look(homes)
    await new Promise(resolve => setImmediate(resolve))
    return limitsSent(follows.pager)
  }

  proc.memory(TOTAL_KIB / 8)
  proc.stalls(0, 0)
  t.deepEqual(await look(0), [])
  proc.stalls(60.25, 12)
  t.deepEqual(await look(1000), [875_000])
  proc.memory(TOTAL_KIB / 2)
  proc.stalls(0, 0)
  holds(follows.pager, 875_000, 875_000)
  t.deepEqual(await look(1000), [875_000])
  t.deepEqual(await look(CALM_MS), [875_000, 1_093_750])
  t.deepEqual(limitsSent(fixed.pager), [])
  t.deepEqual(limitsSent(stalled.pager), [])
})

test('participants that hold and run nothing are let go', async t => {
  const clock = new VirtualClock()
  const watch = new HomeWatch(clock, LOG, PAGE_BYTES, new Proc(t).directory)
  const { pager, home, rested } = await homeOf(new FakeWorld(), '0000000000000001', undefined)
  const rest = { peakPages: 9, jumpsTo: 0, threadsPeak: 0 }
  const nothing = { pages: 0, threads: 0, ...rest }
  pager.stats = {
    running: true,
    residentPages: 1,
    memoryLimitBytes: LIMIT_PAGES * PAGE_BYTES,
    participants: [
      { node: 'home', ...nothing },
      { node: 'b', ...nothing },
      { node: 'c', ...nothing },
      { node: 'c', ...nothing, pages: 1 },
      { node: 'd', ...nothing },
    ],
  }
  await watch.look([home])
  clock.runFor(IDLE_MS - 1)
  await watch.look([home])
  t.deepEqual(rested, [])
  clock.runFor(1)
  await watch.look([home])
  t.deepEqual(rested, ['peer-b'])
})

test('what the kernel says of memory, and does not', t => {
  const proc = new Proc(t)
  t.is(machineMemory(PAGE_BYTES, proc.directory), undefined)
  proc.memory(4_000_000)
  const memory = { availablePages: 1_000_000, totalPages: 4_000_000 }
  t.deepEqual(machineMemory(PAGE_BYTES, proc.directory), { ...memory, some: 0, full: 0 })
  proc.stalls(1.5, 0.25)
  t.deepEqual(machineMemory(PAGE_BYTES, proc.directory), { ...memory, some: 1.5, full: 0.25 })
  t.truthy(machineMemory(PAGE_BYTES))
})
