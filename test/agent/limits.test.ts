/** Limits that follow the machine's memory, with a /proc of the test's own and pagers without pages. */

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { machineMemory, memoryStalls } from '../../agent/executor/capacity.js'
import { Limits } from '../../agent/executor/limits.js'
import { CALM_MS } from '../../agent/machines/pressure.js'
import { PAGE_BYTES } from '../../placement/units.js'
import { VirtualClock } from '../../sim-net/clock.js'
import { type FakePager, FakeWorld } from './fake-pagers.js'

const TOTAL_KIB = 16_000_000
const LIMIT_PAGES = 1_000_000

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
  return { pager, home: { attachment: { id, pagerSocket, memoryFollows, ...rest }, client } }
}

test('runs without --memory are told to give way and to grow; others are left alone', async t => {
  const proc = new Proc(t)
  const clock = new VirtualClock()
  const world = new FakeWorld()
  const log = { error() {}, warn() {}, info() {}, debug() {} }
  const limits = new Limits(clock, log, PAGE_BYTES, proc.directory)
  const follows = await homeOf(world, '0000000000000001', true)
  const fixed = await homeOf(world, '0000000000000002', undefined)
  const stalled = await homeOf(world, '0000000000000003', true)
  stalled.pager.stalled = true
  const homes = [stalled.home, fixed.home, follows.home]
  for (const { pager } of [follows, fixed, stalled]) holds(pager, LIMIT_PAGES, LIMIT_PAGES)
  const look = async (passedMs: number) => {
    clock.runFor(passedMs)
    void limits.look(homes)
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

test('what the kernel says of memory, and does not', t => {
  const proc = new Proc(t)
  t.is(machineMemory(PAGE_BYTES, proc.directory), undefined)
  t.deepEqual(memoryStalls(proc.directory), { some: 0, full: 0 })
  proc.memory(4_000_000)
  proc.stalls(1.5, 0.25)
  t.deepEqual(machineMemory(PAGE_BYTES, proc.directory), { availablePages: 1_000_000, totalPages: 4_000_000 })
  t.deepEqual(memoryStalls(proc.directory), { some: 1.5, full: 0.25 })
  t.truthy(machineMemory(PAGE_BYTES))
})
