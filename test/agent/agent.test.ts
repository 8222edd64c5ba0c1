/**
 * Agents end to end on the loopback interface, with pagers in memory: joining, leases, lanes to both pagers, lanes
 * between participants, leaving, restarting.
 */

import test from 'ava'
import type { AgentService } from '../../agent/service.js'
import { addressOf, Cluster, joined, someId, until } from './cluster.js'
import { FakeWorld } from './fake-pagers.js'

async function attach(agent: AgentService, world: FakeWorld, participantsMax: number) {
  const id = someId()
  const { path, pager } = world.home(id)
  const attachment = { id, pagerSocket: path, program: 'sort', participantsMax, memoryPages: 1024, uid: 0 }
  await agent.attachHome(attachment)
  return { id, pager }
}

test('a home pager gets lanes to the pagers of two peers, which are told who takes part', async t => {
  const cluster = await Cluster.make()
  t.teardown(() => cluster.stop())
  const world = new FakeWorld()
  const a = await cluster.start('a', world.pagers())
  const b = await cluster.start('b', world.pagers(), { peers: [addressOf(a)], capacityPages: 9_000 })
  const c = await cluster.start('c', world.pagers(), { peers: [addressOf(a), addressOf(b)] })
  const ms = await until('full mesh', () => [a, b, c].every(agent => joined(agent).length === 2))
  t.log(`full mesh after ${ms.toFixed(0)} ms`)
  const { id, pager } = await attach(a, world, 3)
  const counts: number[] = []
  a.onParticipants(id, count => counts.push(count))
  const leaseMs = await until('two lanes', () => a.participants(id) === 3)
  t.log(`two lanes after ${leaseMs.toFixed(0)} ms`)
  t.deepEqual([...pager.lanes.keys()].sort(), [1, 2])
  t.is(counts.at(-1), 3)
  const lanes = pager.received.filter(command => command.kind === 'lane')
  t.deepEqual(lanes.map(lane => [lane.node, lane.nodeName, lane.host, lane.pagesMax]).sort(), [
    [1, 'c', '127.0.0.1', 4096],
    [2, 'b', '127.0.0.1', 4096],
  ])
  // In the order of their numbers, whichever was started first.
  const [first, second] = ['c', 'b'].map(name => world.peers().find(peer => peer.describe.nodeName === name))
  t.is(first?.host, '127.0.0.1')
  if (first === undefined || second === undefined) return t.fail()
  await until('b is known to c', () => cluster.log.length > 0 && first.accepting.size > 0)
  await new Promise(resolve => setTimeout(resolve, 100))
  first.emit({ kind: 'lane-wanted', node: 2, nodeName: '', peerId: '' })
  second.emit({ kind: 'lane-wanted', node: 1, nodeName: '', peerId: '' })
  await until('a lane between the participants', () => first.lanes.has(2) && second.lanes.has(1))
  const processes = await b.processes()
  t.like(processes, [{ id, role: 'participant', home: 'a', residentPages: 7, participants: ['a', 'c', 'b'] }])
  pager.exit('done')
  await until('the peers free everything', () => world.peers().length === 0)
  await until('nothing is lent', () => [b, c].every(agent => agent.nodes()[0]?.freePages !== 0))
  t.is(b.nodes()[0]?.freePages, 9_000)
  t.deepEqual(await a.processes(), [])
})

test('no more participants than asked for, refusals are told, and the rest is tried', async t => {
  const cluster = await Cluster.make()
  t.teardown(() => cluster.stop())
  const world = new FakeWorld()
  const a = await cluster.start('a', world.pagers())
  const peers = [addressOf(a)]
  await cluster.start('full', world.pagers(), { peers, capacityPages: 10 })
  await cluster.start('old', world.pagers({ facts: { cpuFeatures: ['fpu'] } }), {
    peers,
    capacityPages: 90_000,
  })
  await cluster.start('broken', world.pagers({ failing: 'no memory' }), { peers, capacityPages: 80_000 })
  await cluster.start('good', world.pagers(), { peers, capacityPages: 1_000 })
  await cluster.start('spare', world.pagers(), { peers, capacityPages: 900 })
  await until('all joined', () => joined(a).length === 5)
  const { id, pager } = await attach(a, world, 2)
  await until('one lane', () => a.participants(id) === 2)
  await new Promise(resolve => setTimeout(resolve, 700))
  t.is(a.participants(id), 2)
  t.deepEqual(
    world.peers().map(pager => pager.describe.nodeName),
    ['good'],
  )
  t.deepEqual(a.refusals(id).sort(), [
    'broken: pager-failed: no memory',
    'old: incompatible: CPU features missing here: sse sse2 avx avx2',
  ])
  pager.exit('done')
})

test('a peer that appears later is asked, one that leaves hands back first', async t => {
  const cluster = await Cluster.make()
  t.teardown(() => cluster.stop())
  const world = new FakeWorld()
  const a = await cluster.start('a', world.pagers())
  const { id, pager } = await attach(a, world, 3)
  t.is(a.participants(id), 1)
  const b = await cluster.start('b', world.pagers(), { peers: [addressOf(a)] })
  await until('a lane to b', () => a.participants(id) === 2)
  const stopMs = await (async () => {
    const start = performance.now()
    await b.stop()
    return performance.now() - start
  })()
  t.true(stopMs < 3_000, `stopping took ${stopMs} ms`)
  t.true(pager.received.some(command => command.kind === 'participant-drop' && command.node === 1))
  t.is(world.peers().length, 0)
  await until('b is gone', () => a.participants(id) === 1)
  const again = await cluster.start('b', world.pagers(), { peers: [addressOf(a)] })
  await until('a lane to b again', () => a.participants(id) === 2)
  t.is(pager.received.filter(command => command.kind === 'lane').at(-1)?.node, 2)
  t.is(again.nodes().length, 2)
  pager.exit('done')
})

test('contract brings back and asks no more, stretch asks again; refusals say why, and a restart changes nothing', async t => {
  const cluster = await Cluster.make()
  t.teardown(() => cluster.stop())
  const world = new FakeWorld()
  const a = await cluster.start('a', world.pagers())
  const peers = [addressOf(a)]
  const b = await cluster.start('b', world.pagers(), { peers })
  const full = await cluster.start('full', world.pagers(), { peers, capacityPages: 10 })
  await until('joined', () => joined(a).length === 2)
  const { id, pager } = await attach(a, world, 2)
  await until('a lane', () => a.participants(id) === 2)

  t.like(await a.contract(id, 'b'), [{ node: 'b', state: 'up' }])
  await until('b is let go', () => a.participants(id) === 1)
  t.true(pager.received.some(command => command.kind === 'participant-drop'))
  await new Promise(resolve => setTimeout(resolve, 1_500))
  t.is(a.participants(id), 1, 'its room is known, and it is not asked')
  t.is(await a.stretch(id, 'b'), 'b')
  t.like(await a.leases(id), [{ node: 'b', state: 'up' }])
  t.is(await a.stretch(id, 'b'), 'b', 'it takes part')

  const refusals = [
    [id, 'full', /^full does not take part in [0-9a-f]{16}: full/],
    [id, 'nobody', /^no machine nobody is known here; see `elasticos nodes`$/],
    [someId(), 'b', /^no elastic process [0-9a-f]{16} has its home at this agent; see `elasticos ps`$/],
  ] as const
  for (const [process, node, message] of refusals) await t.throwsAsync(a.stretch(process, node), { message })
  await t.throwsAsync(a.contract(id, 'full'), { message: /^full takes no part in / })

  await a.contract(id, undefined)
  await until('all are let go', () => a.participants(id) === 1)
  await a.stop()
  const back = await cluster.start('a', world.pagers(), { peers: [addressOf(full), addressOf(b)] })
  await until('joined again', () => joined(back).length === 2)
  await new Promise(resolve => setTimeout(resolve, 700))
  t.is(back.participants(id), 1)
  t.is(await back.stretch(id, 'b'), 'b')
  pager.exit('done')
})

test('agents that come back find their pagers and their leases', async t => {
  const cluster = await Cluster.make()
  t.teardown(() => cluster.stop())
  const world = new FakeWorld()
  const a = await cluster.start('a', world.pagers())
  const b = await cluster.start('b', world.pagers(), { peers: [addressOf(a)] })
  await until('joined', () => joined(a).length === 1)
  const { id, pager } = await attach(a, world, 2)
  await until('a lane', () => a.participants(id) === 2)
  const peerId = a.nodes()[0]?.peerId
  const [held] = world.peers()
  if (held === undefined) return t.fail()
  held.stubborn = true
  await a.stop()
  t.true(pager.alive)
  t.is(pager.lanes.size, 1, 'a stopped home agent leaves its pager alone')
  const back = await cluster.start('a', world.pagers(), { peers: [addressOf(b)] })
  t.is(back.nodes()[0]?.peerId, peerId)
  t.is(back.participants(id), 2)
  t.like(await back.processes(), [{ id, role: 'home', participants: ['a', 'b'] }])
  await until('joined again', () => joined(back).length === 1)
  pager.exit('done')
  held.exit('home said goodbye')
  await until('b lends everything again', () => b.nodes()[0]?.freePages === 10_000)
})

test('a connection that is lost is made again; a pager that refuses it has ended', async t => {
  const cluster = await Cluster.make()
  t.teardown(() => cluster.stop())
  const world = new FakeWorld()
  const a = await cluster.start('a', world.pagers())
  const b = await cluster.start('b', world.pagers(), { peers: [addressOf(a)] })
  await until('joined', () => joined(a).length === 1)
  const { id, pager } = await attach(a, world, 2)
  await until('a lane', () => a.participants(id) === 2)
  const [held] = world.peers()
  if (held === undefined) return t.fail()
  const counts: number[] = []
  a.onParticipants(id, count => counts.push(count))
  for (const one of [pager, held]) {
    for (const connection of [...one.connections]) connection.end('reset')
    await until('connected again', () => one.connections.size === 1)
  }
  await new Promise(resolve => setTimeout(resolve, 700))
  t.true(pager.alive && held.alive)
  t.is(a.participants(id), 2)
  t.is(counts.at(-1), 2, 'who waits for participants still hears of them')
  t.like(await b.processes(), [{ id, role: 'participant', home: 'a' }])
  t.is(held.received.at(-1)?.kind, 'lease-update')
  t.is(world.peers().length, 1, 'nothing was released')

  held.refusing = true
  for (const connection of [...held.connections]) connection.end('reset')
  await until('the lease is forgotten', () => b.nodes()[0]?.freePages === 10_000)
  pager.refusing = true
  for (const connection of [...pager.connections]) connection.end('reset')
  await until('home is forgotten', () => a.participants(id) === 0)
})

test('lenders are told of a home pager that was killed, also by an agent that is just stopping', async t => {
  const cluster = await Cluster.make()
  t.teardown(() => cluster.stop())
  const world = new FakeWorld()
  const a = await cluster.start('a', world.pagers())
  await cluster.start('b', world.pagers(), { peers: [addressOf(a)] })
  await until('joined', () => joined(a).length === 1)
  for (const stopping of [false, true]) {
    const { id, pager } = await attach(a, world, 2)
    await until('a lane', () => a.participants(id) === 2)
    pager.vanish()
    if (stopping) await a.stop()
    await until('the pager of b ends', () => world.peers().length === 0)
    t.true(cluster.log.includes(`b info ${id}: pager told to end: its home has ended`))
  }
})

test('a second agent in the same directory is told so; a wrong key is refused with the remedy', async t => {
  const cluster = await Cluster.make()
  t.teardown(() => cluster.stop())
  const other = await Cluster.make()
  t.teardown(() => other.stop())
  const world = new FakeWorld()
  const a = await cluster.start('a', world.pagers())
  await t.throwsAsync(cluster.start('a', world.pagers()), { message: /another agent \(pid \d+\) uses/ })
  const stranger = await other.start('s', world.pagers(), { peers: [addressOf(a)] })
  await until(
    'the stranger is told',
    () => stranger.nodes().some(node => node.state === 'seen-not-joined'),
    20_000,
  )
  t.regex(stranger.nodes().find(node => node.state === 'seen-not-joined')?.remedy ?? '', /elasticos key show/)
  t.deepEqual(joined(a), [])
})

test('a machine with a new identity is joined again, unless --peer names the old one', async t => {
  const cluster = await Cluster.make()
  t.teardown(() => cluster.stop())
  const world = new FakeWorld()
  const old = await cluster.start('old', world.pagers())
  const named = addressOf(old)
  const [listen = ''] = named.split('/p2p/')
  const open = await cluster.start('open', world.pagers(), { peers: [listen] })
  const strict = await cluster.start('strict', world.pagers(), { peers: [named] })
  await until('joined', () => [open, strict].every(agent => joined(agent).includes('old')))
  await old.stop()
  await cluster.start('new', world.pagers(), { listen: [listen] })
  await until('joined again', () => joined(open).includes('new'), 30_000)
  const seen = () =>
    strict.nodes().find(node => node.state === 'seen-not-joined' && node.addresses[0] === named)
  await until('the identity is named', () => seen() !== undefined, 30_000)
  t.regex(seen()?.remedy ?? '', /another identity than --peer names/)
  t.false(open.nodes().some(node => node.state === 'seen-not-joined'))
})

test('who is not on the allow list does not join and is named', async t => {
  const cluster = await Cluster.make()
  t.teardown(() => cluster.stop())
  const world = new FakeWorld()
  const friend = await cluster.start('friend', world.pagers())
  const allow = [friend.nodes()[0]?.peerId ?? '']
  const a = await cluster.start('a', world.pagers(), { allow, peers: [addressOf(friend)] })
  const other = await cluster.start('other', world.pagers(), { peers: [addressOf(a)] })
  await until('the friend joins', () => joined(a).length === 1)
  const otherId = other.nodes()[0]?.peerId ?? ''
  await until('the other is named', () => a.nodes().some(node => node.peerId === otherId && !node.self))
  const seen = a.nodes().find(node => node.peerId === otherId)
  t.is(seen?.state, 'seen-not-joined')
  t.is(seen?.remedy, `it is not on the allow list here: add --allow ${otherId}`)
  t.deepEqual(joined(a), ['friend'])
})
