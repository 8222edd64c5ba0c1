/** Who is dialled, when, and where, in virtual time; what made-up peers and addresses cannot change about it. */

import test from 'ava'
import fc from 'fast-check'
import type { PeerId } from '../../../agent/machines/types.js'
import { Dialer, type DialOutcome, type Source } from '../../../agent/net/dialer.js'
import { Whereabouts } from '../../../agent/net/whereabouts.js'
import { VirtualClock } from '../../../sim-net/clock.js'
import { check } from '../../helpers/seed.js'

const [A, B] = ['a', 'b'] as PeerId[] as [PeerId, PeerId]
const STEP_MS = 250
const ADDRESSES_MAX = 8
const FAILED: DialOutcome = { kind: 'failed', reason: '' }

interface Dial {
  readonly at: number
  readonly addresses: readonly string[]
  readonly peer: PeerId | undefined
  readonly end: (outcome: DialOutcome) => void
}

/** An agent's dialler; what a dial comes to says the test, at once (`answer`) or later. */
class Bench {
  readonly clock = new VirtualClock()
  readonly dials: Dial[] = []
  readonly connected = new Set<PeerId>()
  readonly outcomes: string[] = []
  readonly moved: PeerId[] = []
  readonly dialer: Dialer

  constructor(answer?: (dial: Dial) => DialOutcome | undefined) {
    this.dialer = new Dialer({
      self: A,
      clock: this.clock,
      isConnected: peer => this.connected.has(peer),
      dial: (addresses, peer) =>
        new Promise(end => {
          const dial = { at: this.clock.now(), addresses, peer, end }
          this.dials.push(dial)
          const outcome = answer?.(dial)
          if (outcome !== undefined) end(outcome)
        }),
      onOutcome: (_, outcome) => this.outcomes.push(outcome.kind),
      onMoved: peer => this.moved.push(peer),
    })
  }

  async pass(ms: number): Promise<void> {
    for (const end = this.clock.now() + ms; this.clock.now() < end; this.clock.runFor(STEP_MS))
      await settled()
    await settled()
  }

  /** As libp2p tells of a connection that has come and gone. */
  lose(peer: PeerId): void {
    this.connected.delete(peer)
    this.dialer.lost(peer)
  }
}

function settled(): Promise<void> {
  return new Promise(resolve => setImmediate(resolve))
}

function some(count: number, name: string): string[] {
  return Array.from({ length: count }, (_, i) => `/${name}${i}`)
}

for (const [where, peer] of [
  ['where it is expected', B],
  ['where anybody may be', undefined],
] as const)
  test(`who lets connect and then keeps out is dialled with growing pauses, ${where}`, async t => {
    const bench = new Bench(() => {
      bench.connected.add(B)
      queueMicrotask(() => bench.lose(B))
      return { kind: 'connected', peer: B, address: '/b' }
    })
    bench.dialer.addStatic('/b', peer)
    await bench.pass(60_000)
    const { dials } = bench
    t.true(dials.length >= 5 && dials.length <= 14, `${dials.length}`)
    const pausesMs = dials.slice(1).map((dial, i) => dial.at - (dials[i]?.at ?? 0))
    t.true(
      pausesMs.slice(6).every(ms => ms >= 8_000),
      `${pausesMs}`,
    )
  })

test('who has joined and is lost is dialled at once', async t => {
  const bench = new Bench()
  bench.dialer.addDiscovered(B, ['/b'], 'lan')
  for (let i = 0; i < 5; i++) {
    bench.dials.at(-1)?.end(FAILED)
    await bench.pass(12_000)
  }
  const { length } = bench.dials
  bench.connected.add(B)
  bench.dialer.joined(B)
  bench.dials.at(-1)?.end({ kind: 'connected', peer: B, address: '/b' })
  await bench.pass(20_000)
  t.is(bench.dials.length, length)
  bench.lose(B)
  t.is(bench.dials.length, length + 1)
})

test('a new address is tried at once, however long the pause for the old one is', async t => {
  const bench = new Bench(() => FAILED)
  bench.dialer.addDiscovered(B, ['/old'], 'lan')
  await bench.pass(30_000)
  const { length } = bench.dials
  bench.dialer.addDiscovered(B, ['/old'], 'lan')
  t.is(bench.dials.length, length)
  bench.dialer.addDiscovered(B, ['/new'], 'lan')
  t.is(bench.dials.length, length + 1)
  t.deepEqual(bench.dials.at(-1)?.addresses, ['/new', '/old'])
})

test('a peer with more addresses than are kept is not dialled all the time', async t => {
  const bench = new Bench(() => FAILED)
  for (let i = 0; i < 120; i++) {
    for (const address of some(12, 'b')) bench.dialer.addDiscovered(B, [address], 'lan')
    await bench.pass(500)
  }
  t.true(bench.dials.length < 40, `${bench.dials.length}`)
})

test('what others say of a peer comes after what it says itself, and never in place of where it was reached', async t => {
  const addresses = fc.array(fc.nat({ max: 30 }), { minLength: 1, maxLength: 9 })
  const source = fc.constantFrom<Source>('lan', 'gossip', 'another', 'another')
  const said = fc.record({ addresses, source, reached: fc.boolean() })
  await check(
    t,
    fc.asyncProperty(fc.array(said, { minLength: 1, maxLength: 12 }), async all => {
      const bench = new Bench()
      bench.dialer.addDiscovered(B, ['/home'], 'lan')
      bench.dials[0]?.end({ kind: 'connected', peer: B, address: '/home' })
      await bench.pass(2_000)
      let [first, reached] = ['/home', '/home']
      const own = new Set(['/home'])
      for (const one of all) {
        const found = one.addresses.map(i => (one.source === 'another' ? `/${i}` : `/own${i}`))
        bench.dialer.addDiscovered(B, found, one.source)
        if (one.source !== 'another') {
          first = found[0] ?? ''
          for (const address of found) own.add(address)
        }
        bench.dials.at(-1)?.end(FAILED)
        await bench.pass(13_000)
        const tried = bench.dials.at(-1)?.addresses ?? []
        const isOwn = tried.map(address => own.has(address))
        const told = isOwn.indexOf(false)
        if (told >= 0 && isOwn.lastIndexOf(true) > told) return false
        if (tried.length > ADDRESSES_MAX || !tried.includes(reached) || !tried.includes(first)) return false
        if (!one.reached) continue
        const [address = ''] = tried.slice(-1)
        bench.dials.at(-1)?.end({ kind: 'connected', peer: B, address })
        await bench.pass(13_000)
        reached = address
        own.add(address)
      }
      return true
    }),
    40,
  )
})

test('made-up peers are dialled a few at a time, and neither keep announced ones waiting nor have them forgotten', async t => {
  const bench = new Bench()
  for (let i = 0; i < 1_100; i++) bench.dialer.addDiscovered(`x${i}` as PeerId, some(8, 'x'), 'another')
  t.is(bench.dials.length, 16)
  for (let i = 0; i < 20; i++) bench.dialer.addDiscovered(`lan${i}` as PeerId, [`/lan${i}`], 'lan')
  bench.dialer.addStatic('/named', undefined)
  for (let i = 0; i < 1_100; i++) bench.dialer.addDiscovered(`y${i}` as PeerId, some(8, 'y'), 'gossip')
  await bench.pass(2_000)
  const tried = () => new Set(bench.dials.map(dial => dial.addresses[0]))
  t.true(tried().has('/named'))
  t.is(bench.dials.length, 16 + 8 + 1)
  for (const address of some(20, 'lan')) {
    t.true(tried().has(address))
    bench.dials.find(dial => dial.addresses[0] === address)?.end(FAILED)
    await settled()
  }
  await bench.pass(2_000)
  t.is(bench.dials.filter(dial => dial.addresses[0]?.startsWith('/lan')).length, 20 + 8, 'and again')
})

test('those only heard of take turns', async t => {
  const bench = new Bench()
  for (let i = 0; i < 40; i++) bench.dialer.addDiscovered(`x${i}` as PeerId, [`/x${i}`], 'another')
  for (let i = 0; i < 40; i++) {
    await bench.pass(300)
    bench.dials[i]?.end(FAILED)
  }
  await settled()
  t.is(new Set(bench.dials.slice(0, 40).map(dial => dial.peer)).size, 40)
})

test('who is known and not there makes room for others', async t => {
  const bench = new Bench(() => FAILED)
  bench.connected.add('p0' as PeerId)
  for (let i = 0; i < 1_100; i++) {
    bench.dialer.addDiscovered(`p${i}` as PeerId, [`/${i}`], 'lan')
    await settled()
  }
  await bench.pass(2_000)
  t.true(bench.dials.some(dial => dial.peer === 'p1099'))
  t.false(
    bench.dials.some(dial => dial.peer === 'p0'),
    'there already',
  )
})

test('an address where this agent itself answers is said once and tried again now and then', async t => {
  let outcome: DialOutcome = { kind: 'self' }
  const bench = new Bench(() => outcome)
  bench.dialer.addStatic('/b', undefined)
  await bench.pass(200_000)
  t.deepEqual(bench.outcomes, ['self'])
  t.true(bench.dials.length > 1 && bench.dials.length < 6, `${bench.dials.length}`)
  outcome = { kind: 'connected', peer: B, address: '/b' }
  await bench.pass(100_000)
  t.is(bench.outcomes[1], 'connected')
})

test('a peer that may have moved is asked every ten seconds at most, once more after the last doubt; silence ends it', async t => {
  const clock = new VirtualClock()
  const asked: number[] = []
  const ended: PeerId[] = []
  let silent = false
  const whereabouts = new Whereabouts({
    clock,
    isSilent: async () => asked.push(clock.now()) > 0 && silent,
    onSilent: peer => ended.push(peer),
  })
  for (let i = 0; i < 600; i++) {
    whereabouts.doubt(B)
    clock.runFor(100)
  }
  await settled()
  t.deepEqual(
    asked,
    [0, 1, 2, 3, 4, 5, 6].map(i => i * 10_000),
  )
  t.deepEqual(ended, [])
  clock.runFor(1_000_000)
  t.true(asked.length <= 8)
  silent = true
  whereabouts.doubt(B)
  await settled()
  t.deepEqual(ended, [B])
  whereabouts.doubt(B)
  whereabouts.stop()
  t.is(clock.pending, 0)
})
