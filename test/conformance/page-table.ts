/**
 * The conformance suite of the elastic page table port: what every back end must do, as tests. An implementation's
 * test file calls `pageTableConformance` with a way to make a fresh table and a process on it.
 *
 * Each test gets its own table. Waits are bounds, not expectations: a back end that answers at once is as good.
 */

import test, { type ExecutionContext } from 'ava'

import type { PageTableUnderTest } from '../../kmod/guest-port.js'
import { pageNumber } from '../../placement/ids.js'
import { PAGE_BYTES, pages } from '../../placement/units.js'
import { A_WHILE, Bench, NOW } from './page-table-bench.js'

export interface ConformanceOptions {
  readonly make: () => PageTableUnderTest | Promise<PageTableUnderTest>
  /** How far a thread counts while its page is evicted under it: enough for some dozen evictions. */
  readonly counts: number
}

/** A back end on which counting does not end has lost a wake-up. */
const EVICTIONS_MAX = 100_000

type Body = (t: ExecutionContext, bench: Bench, options: ConformanceOptions) => Promise<void>

/** Registers the whole suite; `name` leads the test titles. */
export function pageTableConformance(name: string, options: ConformanceOptions): void {
  for (const [title, body] of Object.entries({
    ...faults,
    ...mappings,
    ...evictions,
    ...scans,
    ...threads,
  })) {
    test.serial(`${name}: ${title}`, async t => {
      const under = await options.make()
      try {
        await body(t, new Bench(t, under), options)
      } finally {
        await under.table.close()
      }
    })
  }
}

const faults: Record<string, Body> = {
  'a first touch is a fault on an untouched page, and zero serves it': async (t, bench) => {
    await bench.done(bench.table.map(bench.range(0, 4), 'read-write'))
    t.is(await bench.table.state(bench.page(2)), 'untouched')
    await bench.start(0, { kind: 'read', page: bench.page(2) })
    const fault = await bench.fault()
    t.deepEqual(fault, {
      page: bench.page(2),
      access: 'read',
      thread: bench.thread(0),
      userMode: true,
      cause: 'untouched',
    })
    await bench.done(bench.table.place(bench.range(2), 'zero', false))
    await bench.finished(0, 0)
    t.is(await bench.table.state(bench.page(2)), 'resident')
    t.is(await bench.table.state(bench.page(1)), 'untouched')
  },

  'a placed page gives its contents to the thread that waits': async (t, bench) => {
    await bench.done(bench.table.map(bench.range(0), 'read-write'))
    await bench.start(0, { kind: 'read', page: bench.page(0) })
    await bench.fault()
    t.deepEqual(await bench.result(0, NOW), { kind: 'running' })
    await bench.done(bench.table.place(bench.range(0), new Uint8Array(PAGE_BYTES).fill(77), false))
    await bench.finished(0, 77)
  },

  'a write says so': async (t, bench) => {
    await bench.done(bench.table.map(bench.range(0), 'read-write'))
    await bench.start(1, { kind: 'write', page: bench.page(0), value: 5 })
    const fault = await bench.fault()
    t.is(fault.access, 'write')
    t.is(fault.thread, bench.thread(1))
    await bench.done(bench.table.place(bench.range(0), 'zero', false))
    await bench.finished(1)
    t.is((await bench.value(bench.table.evict(bench.range(0))))[0], 5)
  },

  'a fault inside a system call is known as one, and is served too': async (t, bench) => {
    await bench.done(bench.table.map(bench.range(0), 'read-write'))
    await bench.start(0, { kind: 'system-call-read', page: bench.page(0) })
    const fault = await bench.fault()
    t.false(fault.userMode)
    await bench.refused(bench.table.park(bench.thread(0)), 'not-in-user-mode')
    await bench.done(bench.table.place(bench.range(0), new Uint8Array(PAGE_BYTES).fill(9), false))
    await bench.finished(0, 9)
  },

  'two threads that fault on one page are one request, and one answer wakes both': async (t, bench) => {
    await bench.done(bench.table.map(bench.range(0), 'read-write'))
    await bench.start(0, { kind: 'read', page: bench.page(0) })
    await bench.start(1, { kind: 'read', page: bench.page(0) })
    t.is((await bench.fault()).page, bench.page(0))
    await bench.noFault()
    await bench.done(bench.table.place(bench.range(0), new Uint8Array(PAGE_BYTES).fill(3), false))
    await bench.finished(0, 3)
    await bench.finished(1, 3)
    await bench.noFault()
  },

  'a batch is placed whole, and pages nobody waits for are simply there': async (t, bench) => {
    await bench.filled(64)
    for (const i of [0, 31, 63]) {
      await bench.start(0, { kind: 'read', page: bench.page(i) })
      await bench.finished(0, i)
    }
    await bench.noFault()
    const { pagesPlaced, residentPages, faults: seen } = await bench.table.statistics()
    t.deepEqual([pagesPlaced, residentPages, seen], [64, 64, 0])
  },

  'a write to a protected page is announced, and goes through when allowed': async (t, bench) => {
    await bench.filled(2, true)
    await bench.start(0, { kind: 'read', page: bench.page(1) })
    await bench.finished(0, 1)
    await bench.start(0, { kind: 'write', page: bench.page(1), value: 8 })
    const fault = await bench.fault()
    t.deepEqual([fault.cause, fault.access, fault.page], ['protected', 'write', bench.page(1)])
    await bench.noFault()
    await bench.done(bench.table.allowWrite(bench.range(1)))
    await bench.finished(0)
    t.is((await bench.value(bench.table.evict(bench.range(1))))[0], 8)
  },
}

const mappings: Record<string, Body> = {
  'what is not mapped is a segmentation fault, not an event': async (t, bench) => {
    await bench.done(bench.table.map(bench.range(0), 'read-write'))
    await bench.start(0, { kind: 'read', page: bench.page(1) })
    t.deepEqual(await bench.result(0), { kind: 'segv' })
    await bench.noFault()
  },

  'access rights are kept': async (t, bench) => {
    await bench.done(bench.table.map(bench.range(0, 2), 'read-write'))
    await bench.done(bench.table.place(bench.range(0, 2), 'zero', false))
    await bench.done(bench.table.protect(bench.range(0), 'read'))
    await bench.done(bench.table.protect(bench.range(1), 'none'))
    await bench.start(0, { kind: 'read', page: bench.page(0) })
    await bench.finished(0, 0)
    await bench.start(0, { kind: 'write', page: bench.page(0), value: 1 })
    t.deepEqual(await bench.result(0), { kind: 'segv' })
    await bench.start(0, { kind: 'read', page: bench.page(1) })
    t.deepEqual(await bench.result(0), { kind: 'segv' })
    await bench.done(bench.table.protect(bench.range(0, 2), 'read-write'))
    await bench.start(0, { kind: 'write', page: bench.page(1), value: 1 })
    await bench.finished(0)
  },

  'unmapping forgets the contents, and frees the memory': async (t, bench) => {
    await bench.filled(3)
    await bench.done(bench.table.unmap(bench.range(1, 2)))
    t.is(await bench.table.state(bench.page(1)), 'unmapped')
    t.is((await bench.table.statistics()).residentPages, 1)
    await bench.start(0, { kind: 'read', page: bench.page(1) })
    t.deepEqual(await bench.result(0), { kind: 'segv' })
    await bench.done(bench.table.map(bench.range(1), 'read-write'))
    t.is(await bench.table.state(bench.page(1)), 'untouched')
    await bench.start(0, { kind: 'read', page: bench.page(1) })
    t.is((await bench.fault()).cause, 'untouched')
    await bench.done(bench.table.place(bench.range(1), 'zero', false))
    await bench.finished(0, 0)
    await bench.done(bench.table.unmap(bench.range(0, 3)))
  },

  'a thread that waits for a page which is unmapped gets its signal': async (t, bench) => {
    for (let round = 0; round < 50; round++) {
      await bench.done(bench.table.map(bench.range(0), 'read-write'))
      await bench.start(0, { kind: 'read', page: bench.page(0) })
      await bench.fault()
      await bench.done(bench.table.unmap(bench.range(0)))
      t.deepEqual(await bench.result(0), { kind: 'segv' }, `round ${round}`)
    }
  },

  'bad calls are refused, and change nothing': async (t, bench) => {
    const { table } = bench
    await bench.filled(2)
    const beyond = { first: pageNumber(2 ** 35 - 1), count: pages(2) }
    await bench.refused(table.map(beyond, 'read'), 'bad-range')
    await bench.refused(table.evict({ first: bench.page(0), count: pages(0) }), 'bad-range')
    await bench.refused(table.place(bench.range(4), new Uint8Array(1), false), 'unmapped')
    await bench.refused(table.map(bench.range(1, 4), 'read'), 'already-mapped')
    t.is(await table.state(bench.page(3)), 'unmapped')
    await bench.refused(table.protect(bench.range(1, 2), 'read'), 'unmapped')
    await bench.refused(table.place(bench.range(1), 'zero', false), 'already-resident')
    await bench.refused(table.evict(bench.range(1, 2)), 'unmapped')
    t.is(await table.state(bench.page(1)), 'resident')
    await bench.done(table.map(bench.range(2), 'read-write'))
    await bench.refused(table.evict(bench.range(1, 2)), 'not-resident')
    await bench.refused(table.allowWrite(bench.range(2)), 'not-resident')
    await bench.refused(table.place(bench.range(2), new Uint8Array(PAGE_BYTES - 1), false), 'bad-range')
    await bench.start(0, { kind: 'write', page: bench.page(1), value: 4 })
    await bench.finished(0)
    t.is((await bench.value(table.evict(bench.range(0, 2))))[PAGE_BYTES], 4)
    await bench.refused(table.evict(bench.range(0, 2)), 'not-resident')
  },
}

const evictions: Record<string, Body> = {
  'an evicted page is away with its contents, and comes back with them': async (t, bench) => {
    await bench.filled(16)
    const contents = await bench.value(bench.table.evict(bench.range(4, 8)))
    t.is(contents.length, 8 * PAGE_BYTES)
    for (let i = 0; i < 8; i++) t.is(contents[i * PAGE_BYTES], i + 4)
    t.is(await bench.table.state(bench.page(4)), 'away')
    t.is((await bench.table.statistics()).residentPages, 8)
    await bench.start(0, { kind: 'read', page: bench.page(6) })
    t.is((await bench.fault()).cause, 'away')
    await bench.done(bench.table.place(bench.range(4, 8), contents, false))
    await bench.finished(0, 6)
    t.is((await bench.table.statistics()).pagesEvicted, 8)
  },

  'a write that waits for its protection survives the eviction': async (t, bench) => {
    await bench.filled(1, true)
    await bench.start(0, { kind: 'write', page: bench.page(0), value: 99 })
    t.is((await bench.fault()).cause, 'protected')
    const contents = await bench.value(bench.table.evict(bench.range(0)))
    t.is(contents[0], 0)
    t.is((await bench.fault()).cause, 'away')
    await bench.done(bench.table.place(bench.range(0), contents, false))
    await bench.finished(0)
    t.is((await bench.value(bench.table.evict(bench.range(0))))[0], 99)
  },

  'no write is lost while threads write during evictions': async (t, bench, { counts }) => {
    await bench.filled(2)
    let contents = await bench.value(bench.table.evict(bench.range(0, 2)))
    contents.fill(0)
    for (const i of [0, 1]) await bench.start(i, { kind: 'count', page: bench.page(i), times: counts })
    const running = new Set([0, 1])
    let evicted = 0
    while (running.size > 0 && evicted < EVICTIONS_MAX) {
      await bench.table.nextFault(NOW)
      await bench.done(bench.table.place(bench.range(0, 2), contents, evicted % 3 === 0))
      if (evicted % 3 === 0) await bench.done(bench.table.allowWrite(bench.range(0, 2)))
      contents = await bench.value(bench.table.evict(bench.range(0, 2)))
      evicted++
      for (const i of running) if ((await bench.result(i, NOW)).kind !== 'running') running.delete(i)
    }
    const view = new DataView(contents.buffer, contents.byteOffset)
    for (const i of [0, 1]) t.is(Number(view.getBigUint64(i * PAGE_BYTES, true)), counts)
    t.true(evicted >= 10, `only ${evicted} evictions fell into the counting`)
  },
}

const scans: Record<string, Body> = {
  'the accessed scan finds what was used since the last one': async (t, bench) => {
    await bench.filled(32)
    t.is(
      (await bench.value(bench.table.scanAccessed(bench.range(0, 32)))).length,
      32,
      'placing counts as use',
    )
    t.deepEqual(await bench.value(bench.table.scanAccessed(bench.range(0, 32))), [])
    for (const [i, action] of [
      [3, 'read'],
      [20, 'write'],
      [21, 'read'],
    ] as const) {
      const page = bench.page(i)
      await bench.start(0, action === 'read' ? { kind: 'read', page } : { kind: 'write', page, value: 1 })
      await bench.finished(0, action === 'read' ? i : 0)
    }
    t.deepEqual(bench.indices(await bench.value(bench.table.scanAccessed(bench.range(0, 21)))), [3, 20])
    t.deepEqual(bench.indices(await bench.value(bench.table.scanAccessed(bench.range(0, 32)))), [21])
  },

  'the written scan finds what may have been written, and protects it again': async (t, bench) => {
    await bench.filled(16, true)
    t.deepEqual(await bench.value(bench.table.scanWritten(bench.range(0, 16))), [])
    for (const i of [2, 9]) {
      await bench.start(0, { kind: 'write', page: bench.page(i), value: 200 + i })
      t.is((await bench.fault()).cause, 'protected')
      await bench.done(bench.table.allowWrite(bench.range(i)))
      await bench.finished(0)
    }
    await bench.start(0, { kind: 'read', page: bench.page(5) })
    await bench.finished(0, 5)
    t.deepEqual(bench.indices(await bench.value(bench.table.scanWritten(bench.range(0, 16)))), [2, 9])
    t.deepEqual(await bench.value(bench.table.scanWritten(bench.range(0, 16))), [])
    await bench.start(0, { kind: 'write', page: bench.page(2), value: 1 })
    t.is((await bench.fault()).cause, 'protected')
    await bench.done(bench.table.allowWrite(bench.range(2)))
    await bench.finished(0)
  },

  'looking for use does not forget a write, nor a protection': async (t, bench) => {
    await bench.filled(4)
    t.deepEqual(bench.indices(await bench.value(bench.table.scanWritten(bench.range(0, 4)))), [0, 1, 2, 3])
    await bench.start(0, { kind: 'write', page: bench.page(1), value: 50 })
    await bench.fault()
    await bench.done(bench.table.allowWrite(bench.range(1)))
    await bench.finished(0)
    await bench.value(bench.table.scanAccessed(bench.range(0, 4)))
    t.deepEqual(bench.indices(await bench.value(bench.table.scanWritten(bench.range(0, 4)))), [1])
    await bench.value(bench.table.scanAccessed(bench.range(0, 4)))
    await bench.start(0, { kind: 'write', page: bench.page(3), value: 51 })
    t.is((await bench.fault()).cause, 'protected')
    await bench.done(bench.table.allowWrite(bench.range(3)))
    await bench.finished(0)
  },

  'scans speak of resident pages only': async (t, bench) => {
    await bench.filled(8)
    await bench.value(bench.table.evict(bench.range(2, 4)))
    await bench.done(bench.table.map(bench.range(8, 4), 'read-write'))
    t.deepEqual(bench.indices(await bench.value(bench.table.scanWritten(bench.range(0, 16)))), [0, 1, 6, 7])
    await bench.value(bench.table.scanAccessed(bench.range(0, 16)))
    t.deepEqual(await bench.value(bench.table.scanAccessed(bench.range(0, 16))), [])
  },
}

const threads: Record<string, Body> = {
  'a parked thread stays where it is, and goes on where it was': async (t, bench) => {
    await bench.done(bench.table.map(bench.range(0), 'read-write'))
    await bench.start(0, { kind: 'write', page: bench.page(0), value: 7 })
    await bench.fault()
    const context = await bench.value(bench.table.park(bench.thread(0)))
    await bench.done(bench.table.place(bench.range(0), 'zero', false))
    t.deepEqual(await bench.result(0, A_WHILE), { kind: 'running' })
    await bench.done(bench.table.resume(bench.thread(0), context))
    await bench.finished(0)
    t.is((await bench.value(bench.table.evict(bench.range(0))))[0], 7)
  },

  'a thread that goes on without its page faults again': async (t, bench) => {
    await bench.done(bench.table.map(bench.range(0), 'read-write'))
    await bench.start(0, { kind: 'read', page: bench.page(0) })
    await bench.fault()
    const context = await bench.value(bench.table.park(bench.thread(0)))
    await bench.noFault()
    await bench.done(bench.table.resume(bench.thread(0), context))
    t.is((await bench.fault()).page, bench.page(0))
    await bench.done(bench.table.place(bench.range(0), 'zero', false))
    await bench.finished(0, 0)
  },

  'parking one of two that wait for a page leaves the request of the other': async (t, bench) => {
    await bench.done(bench.table.map(bench.range(0), 'read-write'))
    await bench.start(0, { kind: 'read', page: bench.page(0) })
    t.is((await bench.fault()).thread, bench.thread(0))
    await bench.start(1, { kind: 'read', page: bench.page(0) })
    await bench.noFault()
    const context = await bench.value(bench.table.park(bench.thread(0)))
    await bench.noFault()
    await bench.done(bench.table.place(bench.range(0), 'zero', false))
    await bench.finished(1, 0)
    await bench.done(bench.table.resume(bench.thread(0), context))
    await bench.finished(0, 0)
  },

  'a thread continues with the context it is given': async (t, bench) => {
    await bench.done(bench.table.map(bench.range(0, 2), 'read-write'))
    await bench.start(0, { kind: 'write', page: bench.page(0), value: 7 })
    await bench.fault()
    const earlier = await bench.value(bench.table.park(bench.thread(0)))
    await bench.done(bench.table.place(bench.range(0), 'zero', false))
    await bench.done(bench.table.resume(bench.thread(0), earlier))
    await bench.finished(0)
    await bench.value(bench.table.evict(bench.range(0)))
    await bench.done(bench.table.place(bench.range(0), 'zero', false))
    await bench.start(0, { kind: 'write', page: bench.page(1), value: 9 })
    t.is((await bench.fault()).page, bench.page(1))
    await bench.value(bench.table.park(bench.thread(0)))
    await bench.done(bench.table.resume(bench.thread(0), earlier))
    await bench.finished(0)
    t.is((await bench.value(bench.table.evict(bench.range(0))))[0], 7, 'the earlier write was done again')
    t.is(await bench.table.state(bench.page(1)), 'untouched', 'the later one was not')
  },

  'bad thread calls are refused': async (_t, bench) => {
    const { table } = bench
    const context = new Uint8Array(3)
    await bench.refused(table.resume(bench.thread(0), context), 'not-parked')
    await bench.done(table.map(bench.range(0), 'read-write'))
    await bench.start(0, { kind: 'read', page: bench.page(0) })
    await bench.fault()
    const own = await bench.value(table.park(bench.thread(0)))
    await bench.refused(table.resume(bench.thread(0), context), 'bad-context')
    await bench.done(table.place(bench.range(0), 'zero', false))
    await bench.done(table.resume(bench.thread(0), own))
    await bench.finished(0, 0)
  },
}
