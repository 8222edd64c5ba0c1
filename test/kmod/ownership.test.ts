/**
 * Properties of the rules of ownership, of which the pager's engines are the twin: whatever the order in which frames
 * arrive, a page has one owner, nobody waits for ever, and a read sees the last write.
 */

import test from 'ava'
import fc from 'fast-check'

import type { OwnedRange } from '../../kmod/ownership/hints.js'
import { type NodeIndex, nodeIndex, type PageNumber } from '../../placement/ids.js'
import { check } from '../helpers/seed.js'
import { Play } from './ownership-play.js'
import type { WorldOptions } from './ownership-world.js'

type Step = readonly [kind: number, a: number, b: number, c: number]

const STEPS = fc.array(fc.tuple(fc.nat(99), fc.nat(), fc.nat(), fc.nat()), { maxLength: 150, size: 'max' })

function step(play: Play, [kind, a, b, c]: Step): void {
  const { nodes, stay, pages } = play.world.options
  const any = nodeIndex(a % nodes)
  const page = play.world.page(b % pages)
  const two: PageNumber[] = [...new Set([page, play.world.page(c % pages)])]
  const other = nodeIndex((any + 1 + (c % (nodes - 1))) % nodes)
  const busy = play.busy()
  const connection = busy[a % Math.max(1, busy.length)]
  if (kind < 45 && connection !== undefined) play.deliver(connection)
  else if (kind < 70) play.touch(stay ? nodeIndex(0) : any, page, c % 2 === 0 ? 'read' : 'write')
  else if (kind < 80 && play.world.isConnected(any, other)) play.evict(any, two, c % 9 === 0 ? 'disk' : other)
  else if (kind < 83 && !stay && play.world.isConnected(any, other)) play.ship(any, two, other)
  else if (kind < 86) play.forget(page, play.world.page((b % pages) + 1))
  else if (kind < 88) play.pin(page, a % 3 === 0)
  else if (kind < 90) play.fetch(nodeIndex(1 + (a % (nodes - 1))))
  else if (kind < 92 && any !== 0 && other !== 0 && !play.world.isConnected(any, other))
    play.world.connect(any, other)
  else if (kind < 95) play.hint(any, other, lie(page, c))
  else play.pass(b % 200)
}

/** Of a version that is newer than any there is, or of one that is likely. */
function lie(first: PageNumber, c: number): OwnedRange[] {
  return [{ first, pages: 1 + (c % 3), birth: c % 2 === 0 ? 1000 : 0, moves: c % 5 }]
}

const WORLDS: Readonly<Record<string, WorldOptions>> = {
  'two nodes, one page': { nodes: 2, stay: false, pages: 1 },
  'three nodes, two pages': { nodes: 3, stay: false, pages: 2 },
  'four nodes, eight pages': { nodes: 4, stay: false, pages: 8 },
  'three nodes, copies': { nodes: 3, stay: true, pages: 4 },
}

for (const [name, options] of Object.entries(WORLDS)) {
  test(`one owner, nobody waits for ever, reads see the last write: ${name}`, async t => {
    t.timeout(120_000)
    const property = fc.property(STEPS, fc.array(fc.nat(), { minLength: 1 }), (steps, picks) => {
      const play = new Play(options)
      for (const each of steps) step(play, each)
      let at = 0
      play.settle(busy => busy[(picks[at++ % picks.length] ?? 0) % Math.max(1, busy.length)])
    })
    await check(t, property, 400)
  })
}

/** Plays a beginning with every order in which its frames, and those that follow from them, can arrive. */
function everyOrder(begin: () => Play): number {
  let orders = 0
  const choices: number[] = []
  const widths: number[] = []
  do {
    let at = 0
    begin().settle(busy => {
      if (at === choices.length) choices.push(0)
      widths[at] = busy.length
      return busy[choices[at++] ?? 0]
    })
    orders++
    choices.length = at
    // The last choice that leaves another one.
    while (choices.length > 0 && (choices.at(-1) ?? 0) + 1 >= (widths[choices.length - 1] ?? 0)) choices.pop()
    const last = choices.length - 1
    if (last >= 0) choices[last] = (choices[last] ?? 0) + 1
  } while (choices.length > 0)
  return orders
}

test('every order of arrival: three nodes write to a page, and home drops it', t => {
  t.timeout(120_000)
  const orders = everyOrder(() => {
    const play = new Play({ nodes: 3, stay: false, pages: 1 })
    play.world.connect(nodeIndex(1), nodeIndex(2))
    const page = play.world.page(0)
    play.touch(nodeIndex(1), page, 'write')
    play.settle(busy => busy[0])
    play.touch(nodeIndex(2), page, 'write')
    play.touch(nodeIndex(0), page, 'write')
    play.forget(page, play.world.region.end)
    play.touch(nodeIndex(1), page, 'write')
    play.touch(nodeIndex(0), page, 'read')
    return play
  })
  t.log(`${orders} orders`)
  t.true(orders >= 50)
})

test('every order of arrival: a page is pushed on while others ask for it', t => {
  t.timeout(120_000)
  const orders = everyOrder(() => {
    const play = new Play({ nodes: 3, stay: false, pages: 1 })
    play.world.connect(nodeIndex(1), nodeIndex(2))
    const page = play.world.page(0)
    play.touch(nodeIndex(0), page, 'write')
    play.evict(nodeIndex(0), [page], nodeIndex(1))
    play.touch(nodeIndex(2), page, 'write')
    play.touch(nodeIndex(0), page, 'read')
    play.touch(nodeIndex(1), page, 'write')
    return play
  })
  t.log(`${orders} orders`)
  t.true(orders >= 50)
})

test('every order of arrival: hints name nodes that have the page no more', t => {
  t.timeout(120_000)
  const orders = everyOrder(() => {
    const play = new Play({ nodes: 4, stay: false, pages: 1 })
    const page = play.world.page(0)
    const [one, two, three] = [nodeIndex(1), nodeIndex(2), nodeIndex(3)]
    for (const [a, b] of [
      [one, two],
      [one, three],
      [two, three],
    ] as const)
      play.world.connect(a, b)
    for (const node of [one, two, nodeIndex(0)]) {
      play.touch(node, page, 'write')
      play.settle(busy => busy[0])
    }
    for (const [node, of] of [
      [one, two],
      [two, one],
    ] as const)
      play.hint(node, of, lie(page, 0))
    play.touch(one, page, 'write')
    play.touch(two, page, 'write')
    play.touch(three, page, 'write')
    return play
  })
  t.log(`${orders} orders`)
  t.true(orders >= 50)
})

test('a hint saves the way by home, and one that is older than what is known is not followed', t => {
  const play = new Play({ nodes: 3, stay: false, pages: 1 })
  const page = play.world.page(0)
  const [one, two] = [nodeIndex(1), nodeIndex(2)]
  play.world.connect(one, two)
  const settle = () => play.settle(busy => busy[0])
  const asks = (node: NodeIndex) => {
    play.touch(node, page, 'write')
    const asked = play.busy().find(({ from }) => from === node)?.to
    settle()
    return asked
  }
  const hint = (to: NodeIndex, of: NodeIndex, moves: number) =>
    play.hint(to, of, [{ first: page, pages: 1, birth: 0, moves }])
  play.touch(nodeIndex(0), page, 'write')
  hint(two, one, 9)
  t.is(asks(two), nodeIndex(0), 'it has never heard of the page')
  play.pass(1000) // a page that has just come is held
  play.evict(two, [page], nodeIndex(0))
  settle()
  play.evict(nodeIndex(0), [page], one)
  settle()
  hint(two, one, 3)
  t.is(asks(two), one)
  t.is(asks(one), two)
  t.is(asks(nodeIndex(0)), one)
  hint(one, two, 4)
  t.is(asks(one), nodeIndex(0))
})

test('a page that a lost node had got from another one is known to be lost', t => {
  const play = new Play({ nodes: 3, stay: false, pages: 2 })
  const [one, two] = [nodeIndex(1), nodeIndex(2)]
  const pages = [play.world.page(0), play.world.page(1)]
  const settle = () => play.settle(busy => busy[0])
  play.world.connect(one, two)
  for (const page of pages) play.touch(nodeIndex(0), page, 'write')
  play.evict(nodeIndex(0), pages, one)
  settle()
  for (const page of pages) play.touch(two, page, 'write')
  while (play.world.node(two).counts.residentPages < pages.length) {
    const connection = play
      .busy()
      .find(({ from, to }) => from !== two || to !== 0 || play.busy().length === 1)
    if (connection !== undefined) play.deliver(connection)
  }
  play.world.disconnect(nodeIndex(0), two) // with the news of that on it
  play.world.disconnect(one, two)
  const touches = () => {
    play.touch(nodeIndex(0), pages[0] as PageNumber, 'read')
    settle()
  }
  t.throws(touches, { message: /is lost/ })
})

test('every order of arrival: a copy is offered back while its page ends', t => {
  t.timeout(120_000)
  const orders = everyOrder(() => {
    const play = new Play({ nodes: 2, stay: true, pages: 2 })
    const [page, other] = [play.world.page(0), play.world.page(1)]
    play.touch(nodeIndex(0), page, 'write')
    play.evict(nodeIndex(0), [page], nodeIndex(1))
    play.touch(nodeIndex(0), page, 'read')
    play.settle(busy => busy[0])
    play.pass(1000)
    play.evict(nodeIndex(0), [page], nodeIndex(1))
    t.true(play.world.node(0).page(page).offered)
    play.touch(nodeIndex(0), page, 'write')
    play.touch(nodeIndex(0), other, 'write')
    play.evict(nodeIndex(0), [other], nodeIndex(1))
    play.forget(page, other)
    play.touch(nodeIndex(0), page, 'read')
    return play
  })
  t.log(`${orders} orders`)
  t.true(orders > 2)
})
