/**
 * What an agent does about its homes once a second, with a /proc of the test's own and pagers without pages: limits that
 * follow the machine's memory, participants that are let go.
 */

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { defaultMemoryPages } from '../../agent/cli/values.js'
import { memoryFor } from '../../agent/executor/capacity.js'
import { HomeWatch, WATCH_MS } from '../../agent/executor/home-watch.js'
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

  write(path: string, text: string): void {
    mkdirSync(dirname(join(this.directory, path)), { recursive: true })
    writeFileSync(join(this.directory, path), text)
  }

  mount(line: string): void {
    this.write('77/mountinfo', `${line.replace('ROOT', this.directory)}\n`)
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

test('a change is not lost to a pager that answers late', async t => {
  const proc = new Proc(t)
  const clock = new VirtualClock()
  const watch = new HomeWatch(clock, LOG, PAGE_BYTES, proc.directory)
  const { pager, home } = await homeOf(new FakeWorld(), '0000000000000001', true)
  proc.memory(TOTAL_KIB / 8)
  proc.stalls(60, 12)
  holds(pager, LIMIT_PAGES, LIMIT_PAGES)
  const late = watch.look([home])
  clock.runFor(300)
  await late
  t.deepEqual(limitsSent(pager), [875_000])
  holds(pager, 875_000, 875_000)
  clock.runFor(WATCH_MS - 300)
  await watch.look([home])
  t.deepEqual(limitsSent(pager), [875_000, 765_625])
})

test('what is available is divided among the runs that follow it', async t => {
  const proc = new Proc(t)
  const clock = new VirtualClock()
  const world = new FakeWorld()
  const watch = new HomeWatch(clock, LOG, PAGE_BYTES, proc.directory)
  const ids = ['1', '2', '3', '4'].map(digit => digit.repeat(16))
  const follows = await Promise.all(ids.map(id => homeOf(world, id, id !== ids[3])))
  for (const { pager } of follows) holds(pager, LIMIT_PAGES / 4, LIMIT_PAGES / 4)
  // Beyond the eighth there is as much as ten percent of their limits, for each of three half a third of that.
  proc.memory(TOTAL_KIB / 8 + (3 * LIMIT_PAGES * 4) / 40)
  await watch.look(follows.map(({ home }) => home))
  const grown = LIMIT_PAGES / 4 + LIMIT_PAGES / 80
  t.deepEqual(
    follows.map(({ pager }) => limitsSent(pager)),
    [[grown], [grown], [grown], []],
  )
})

test('what the kernel says of memory, and does not', t => {
  const proc = new Proc(t)
  t.is(memoryFor('self', PAGE_BYTES, proc.directory), undefined)
  proc.memory(1_000_000)
  const memory = { availablePages: 250_000, totalPages: 4_000_000 }
  t.deepEqual(memoryFor('self', PAGE_BYTES, proc.directory), { ...memory, isStalling: false })
  proc.stalls(1.5, 0.25)
  t.deepEqual(memoryFor('self', PAGE_BYTES, proc.directory), { ...memory, isStalling: false })
  proc.stalls(1.5, 5.25)
  t.deepEqual(memoryFor('self', PAGE_BYTES, proc.directory), { ...memory, isStalling: true })
  proc.memory(4_000_000)
  t.is(memoryFor('self', PAGE_BYTES, proc.directory)?.isStalling, false)
  t.truthy(memoryFor('self', PAGE_BYTES))
})

const MIB = 1 << 20
const pagesOf = (mib: number) => (mib * MIB) / PAGE_BYTES

test('a control group with a limit is as a machine of that size, of either version, at any height', t => {
  const proc = new Proc(t)
  proc.memory(8_000_000)
  const look = () => memoryFor(77, PAGE_BYTES, proc.directory)
  proc.write('77/cgroup', '3:cpu:/a\n0::/user/run\n')
  proc.mount('0 0 0:26 / ROOT/unified rw - cgroup2 cgroup2 rw')
  proc.write('unified/user/memory.max', `${1024 * MIB}\n`)
  proc.write('unified/user/memory.high', 'max\n')
  proc.write('unified/user/memory.current', `${700 * MIB}\n`)
  proc.write('unified/user/memory.stat', `anon 5\ninactive_file ${50 * MIB}\n`)
  proc.write('unified/user/run/memory.max', 'max\n')
  proc.write('unified/user/run/memory.high', `${800 * MIB}\n`)
  proc.write('unified/user/run/memory.current', `${300 * MIB}\n`)
  const both = { availablePages: pagesOf(374), totalPages: pagesOf(800), isStalling: false }
  t.deepEqual(look(), both)
  const stall = 'some avg10=40.00 avg60=0.00 avg300=0.00 total=1\n'
  proc.write('unified/user/memory.pressure', stall)
  t.deepEqual(look(), both, 'it has plenty')
  proc.write('unified/user/memory.current', `${1000 * MIB}\n`)
  t.deepEqual(look(), { ...both, availablePages: pagesOf(74), isStalling: true })

  proc.write('77/cgroup', '4:memory:/box/7\n')
  proc.mount('0 0 0:27 /box ROOT/memory rw - cgroup cgroup rw,memory')
  t.is(look()?.availablePages, 2_000_000)
  proc.write('memory/memory.limit_in_bytes', '9223372036854771712\n')
  proc.write('memory/memory.usage_in_bytes', '0\n')
  proc.write('memory/7/memory.limit_in_bytes', `${100 * MIB}\n`)
  proc.write('memory/7/memory.usage_in_bytes', `${200 * MIB}\n`)
  proc.write('memory/7/memory.stat', 'total_inactive_file 0\n')
  t.like(look(), { availablePages: 0, totalPages: pagesOf(100) })

  proc.write('self/cgroup', '4:memory:/box/7\n')
  proc.write('self/mountinfo', readFileSync(join(proc.directory, '77/mountinfo'), 'utf8'))
  proc.write('memory/7/memory.usage_in_bytes', `${40 * MIB}\n`)
  t.is(defaultMemoryPages(proc.directory), pagesOf(30), 'a run begins with half of it')
})
