import test from 'ava'

import { MemoryPageTable, type Operation } from '../../kmod/memory.js'
import type { Refusal } from '../../kmod/port.js'
import { pageNumber } from '../../placement/ids.js'
import { pages } from '../../placement/units.js'
import { pageTableConformance } from '../conformance/page-table.js'

pageTableConformance('memory', {
  make: () => {
    const table = new MemoryPageTable()
    return { table, guest: table }
  },
  counts: 500,
})

test('any chosen call can be made to fail, and changes nothing', t => {
  const failing = new Map<Operation, Refusal>()
  const table = new MemoryPageTable({ refuse: operation => failing.get(operation) })
  const range = { first: pageNumber(100), count: pages(2) }
  failing.set('map', 'gone')
  t.deepEqual(table.map(range, 'read'), { kind: 'refused', reason: 'gone' })
  t.is(table.state(range.first), 'unmapped')
  failing.clear()
  t.is(table.map(range, 'read-write').kind, 'ok')
  t.is(table.place(range, 'zero', false).kind, 'ok')
  failing.set('evict', 'gone')
  t.is(table.evict(range).kind, 'refused')
  t.is(table.state(range.first), 'resident')
})
