/**
 * The home side of leases under random sequences of events: never more participants than there may be, every offer
 * ends, what was contracted is not asked, and lenders are found again when the network behaves.
 */

import test from 'ava'
import fc from 'fast-check'
import { type HomeEffect, type HomeEvent, LeaseHome } from '../../../agent/machines/lease-home.js'
import type { PeerId, RefusalCode } from '../../../agent/machines/types.js'

const RUNS = { numRuns: 300 }
const peers = ['p1', 'p2', 'p3', 'p4', 'p5'] as PeerId[]
const anyPeer = fc.constantFrom(...peers)

const codes: RefusalCode[] = ['full', 'incompatible', 'shutting-down', 'pager-failed', 'already-participant']

const acts = [
  ...(['grant', 'refuse', 'silence', 'up', 'down', 'leave', 'lost', 'back'] as const),
  ...(['contract', 'stretch'] as const),
]

interface Script {
  readonly peer: PeerId
  readonly act: (typeof acts)[number]
  readonly code: RefusalCode
  readonly delayMs: number
}

const script: fc.Arbitrary<Script> = fc.record({
  peer: anyPeer,
  act: fc.constantFrom(...acts),
  code: fc.constantFrom(...codes),
  delayMs: fc.nat(4_000),
})

/** What the world knows of the offers a home machine has made. */
class HomeWorld {
  readonly open = new Map<number, { peer: PeerId; node: number }>()
  readonly granted = new Map<number, { peer: PeerId; node: number }>()
  readonly up = new Set<number>()
  /** Contracted, and not named by `stretch` since. */
  readonly barred = new Set<PeerId>()
  readonly home: LeaseHome
  broken = ''

  constructor(readonly participantsMax: number) {
    this.home = new LeaseHome({ participantsMax, leaseIdBase: 1 })
  }

  feed(event: HomeEvent, now: number): void {
    const { participantsMax } = this.home
    const effects = this.home.onEvent(event, now)
    if (event.kind === 'stretch' && !effects.some(effect => effect.kind === 'refusal'))
      this.barred.delete(event.peer)
    if (event.kind !== 'stretch' && this.home.participantsMax !== participantsMax)
      this.broken = 'another limit'
    for (const effect of effects) this.#note(effect)
    const seats = this.home.leases().length + this.open.size
    if (this.home.up().length > this.home.participantsMax - 1) this.broken = 'too many participants'
    if (seats > this.home.participantsMax - 1) this.broken = `too many seats: ${seats}`
    const nodes = this.home.leases().map(lease => lease.node)
    if (new Set(nodes).size !== nodes.length) this.broken = 'two participants with one index'
  }

  #note(effect: HomeEffect): void {
    if (effect.kind === 'offer') {
      const asked = [...this.open.values()].some(offer => offer.peer === effect.peer)
      if (asked) this.broken = 'asked twice'
      if (this.barred.has(effect.peer)) this.broken = 'asked after it was contracted'
      this.open.set(effect.leaseId, effect)
    }
    if (effect.kind === 'release') {
      this.open.delete(effect.leaseId)
      const lease = this.granted.get(effect.leaseId)
      this.granted.delete(effect.leaseId)
      if (lease !== undefined) this.up.delete(lease.node)
    }
  }

  offerTo(peer: PeerId): [number, { peer: PeerId; node: number }] | undefined {
    return [...this.open].find(([, offer]) => offer.peer === peer)
  }
}

function step(world: HomeWorld, { peer, act, code }: Script, now: number): void {
  const offer = world.offerTo(peer)
  const lease = [...world.granted.values()].find(one => one.peer === peer)
  const terms = { pages: 100, threads: 1, ttlMs: 10_000 }
  if (act === 'grant' && offer !== undefined) {
    world.open.delete(offer[0])
    world.granted.set(...offer)
    world.feed({ kind: 'granted', peer, leaseId: offer[0], terms, host: '', port: 1 }, now)
  } else if (act === 'refuse' && offer !== undefined) {
    world.open.delete(offer[0])
    world.feed({ kind: 'refused', peer, leaseId: offer[0], refusal: { code, detail: '' } }, now)
  } else if (act === 'up' && lease !== undefined) {
    world.up.add(lease.node)
    world.feed({ kind: 'lane-up', node: lease.node }, now)
  } else if (act === 'down' && lease !== undefined) {
    world.feed({ kind: 'lane-down', node: lease.node, reason: 'reset' }, now)
  } else if (act === 'leave' || act === 'lost') {
    if (offer !== undefined) world.open.delete(offer[0])
    world.feed({ kind: 'unavailable', peer, why: act === 'leave' ? 'leaving' : 'suspected' }, now)
  } else if (act === 'contract') {
    world.barred.add(peer)
    world.feed({ kind: 'contract', peer }, now)
  } else if (act === 'stretch') {
    world.feed({ kind: 'stretch', peer }, now)
  } else if (act === 'back') {
    const lenders = [{ peer, name: peer, incarnation: now, freePages: 1000 }]
    world.feed({ kind: 'available', lenders }, now)
  }
}

test('home never has too many participants, every offer ends, and it finds lenders again', t => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 5 }),
      fc.array(script, { maxLength: 80 }),
      (participantsMax, scripts) => {
        const world = new HomeWorld(participantsMax)
        let now = 0
        const everybody = peers.map(peer => ({ peer, name: peer, incarnation: 0, freePages: 1000 }))
        world.feed({ kind: 'available', lenders: everybody }, now)
        for (const one of scripts) {
          now += one.delayMs
          world.feed({ kind: 'tick' }, now)
          step(world, one, now)
          if (world.broken !== '') return false
        }
        now += 100_000
        world.feed({ kind: 'tick' }, now)
        const restarted = everybody.map(lender => ({ ...lender, incarnation: now }))
        for (let round = 0; round < 8; round++) {
          now += 40_000
          world.feed({ kind: 'available', lenders: restarted }, now)
          for (const peer of peers) step(world, { peer, act: 'grant', code: 'full', delayMs: 0 }, now)
          for (const peer of peers) step(world, { peer, act: 'up', code: 'full', delayMs: 0 }, now)
        }
        const able = peers.filter(peer => !world.barred.has(peer)).length
        const leaving = world.home.up().filter(one => world.barred.has(one.peer)).length
        const most = Math.max(participantsMax, world.home.participantsMax) - 1
        return world.broken === '' && world.home.up().length === Math.min(most, able + leaving)
      },
    ),
    RUNS,
  )
  t.pass()
})

function everybodyJoined(home: LeaseHome): HomeEffect[] {
  const lenders = peers.map((peer, at) => ({ peer, name: peer, incarnation: 1, freePages: 100 - at }))
  return home.onEvent({ kind: 'available', lenders }, 0)
}

function seat(home: LeaseHome, leaseId: number, node: number): void {
  const terms = { pages: 1, threads: 1, ttlMs: 10_000 }
  const peer = peers[leaseId - 1] ?? ('' as PeerId)
  home.onEvent({ kind: 'granted', peer, leaseId, terms, host: '', port: 1 }, 1)
  home.onEvent({ kind: 'lane-up', node }, 2)
}

test('what is contracted comes back and is asked no more, until stretch names it; all the same', t => {
  const home = new LeaseHome({ participantsMax: 3, leaseIdBase: 1 })
  const [p1 = '' as PeerId, p2 = '' as PeerId, p3 = '' as PeerId] = peers
  everybodyJoined(home)
  seat(home, 1, 1)
  t.deepEqual(home.onEvent({ kind: 'contract', peer: p1 }, 3), [{ kind: 'drop', node: 1 }])
  t.like(home.onEvent({ kind: 'lane-down', node: 1, reason: 'contracted' }, 4).at(-1), {
    kind: 'offer',
    peer: p3,
  })
  t.false(everybodyJoined(home).some(effect => effect.kind === 'offer'))

  t.like(home.onEvent({ kind: 'stretch', peer: p1 }, 5), [{ kind: 'offer', peer: p1, node: 4 }])
  t.is(home.participantsMax, 4, 'beyond the most there were to be')
  t.deepEqual(home.onEvent({ kind: 'stretch', peer: p1 }, 6), [], 'it has been asked')

  const released = home.onEvent({ kind: 'contract', peer: undefined }, 7)
  t.deepEqual(
    released.map(effect => (effect.kind === 'release' ? effect.peer : effect.kind)),
    [p2, p3, p1],
  )
  t.deepEqual(everybodyJoined(home), [])
  const again = new LeaseHome({ participantsMax: 3, leaseIdBase: 1, choices: home.choices })
  t.deepEqual(everybodyJoined(again), [], 'also after a restart')
  t.like(again.onEvent({ kind: 'stretch', peer: p2 }, 8), [{ kind: 'offer', peer: p2 }])
  t.deepEqual(everybodyJoined(again), [], 'only the one that was named')

  t.like(again.onEvent({ kind: 'automatic' }, 9), [{ kind: 'offer', peer: p1 }], 'one place was left')
  t.deepEqual(again.choices, { asksAll: true, exceptions: [] })
})

test('a contracted participant that had no lane yet is let go when it has; stretch says why it asks nobody', t => {
  const home = new LeaseHome({ participantsMax: 2, leaseIdBase: 1 })
  const [p1 = '' as PeerId, p2 = '' as PeerId] = peers
  const terms = { pages: 1, threads: 1, ttlMs: 10_000 }
  everybodyJoined(home)
  home.onEvent({ kind: 'granted', peer: p1, leaseId: 1, terms, host: '', port: 1 }, 1)
  t.deepEqual(home.onEvent({ kind: 'contract', peer: p1 }, 2), [])
  t.like(home.onEvent({ kind: 'lane-up', node: 1 }, 3), [{ kind: 'drop', node: 1 }, { kind: 'participants' }])
  t.like(home.onEvent({ kind: 'stretch', peer: p1 }, 4), [
    { kind: 'refusal', text: 'it is just being let go; try again when it is' },
  ])
  home.onEvent({ kind: 'unavailable', peer: p2, why: 'suspected' }, 5)
  t.like(home.onEvent({ kind: 'stretch', peer: p2 }, 6), [{ kind: 'refusal', text: 'it does not answer' }])
})

test('a lease of an agent that ran before counts once its lane is up, and is given up if it is not', t => {
  const home = new LeaseHome({ participantsMax: 3, leaseIdBase: 1 })
  const [p1 = '' as PeerId, p2 = '' as PeerId] = peers
  home.onEvent({ kind: 'restored', participant: { peer: p1, name: 'b', node: 1, leaseId: 7 } }, 0)
  home.onEvent({ kind: 'restored', participant: { peer: p2, name: 'c', node: 2, leaseId: 8 } }, 0)
  t.deepEqual(home.up(), [])
  home.onEvent({ kind: 'lane-up', node: 1 }, 1)
  t.deepEqual(
    home.up().map(one => one.name),
    ['b'],
  )
  const effects = home.onEvent({ kind: 'tick' }, 10_000)
  t.true(effects.some(effect => effect.kind === 'release' && effect.leaseId === 8))
  t.deepEqual(
    home.leases().map(one => one.name),
    ['b'],
  )
})

test('late grants are released, and nothing is offered after the end', t => {
  const world = new HomeWorld(2)
  const [peer = '' as PeerId] = peers
  world.feed({ kind: 'available', lenders: [{ peer, name: 'n', incarnation: 1, freePages: 1 }] }, 0)
  const leaseId = world.offerTo(peer)?.[0] ?? 0
  world.feed({ kind: 'tick' }, 6_000)
  const terms = { pages: 1, threads: 1, ttlMs: 10_000 }
  const granted: HomeEvent = { kind: 'granted', peer, leaseId, terms, host: '', port: 1 }
  t.deepEqual(world.home.onEvent(granted, 6_001), [{ kind: 'release', peer, leaseId, homeEnded: false }])
  world.home.onEvent({ kind: 'ended', seen: true }, 6_002)
  t.deepEqual(world.home.onEvent(granted, 6_003), [{ kind: 'release', peer, leaseId, homeEnded: false }])
  t.deepEqual(world.home.onEvent({ kind: 'tick' }, 99_000), [])
})
