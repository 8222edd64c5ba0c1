/** Round trips to other agents: measured as they join and from time to time, the shortest counts, nobody else's answer does. */

import test from 'ava'
import { Distances } from '../../agent/executor/distances.js'
import type { PeerId } from '../../agent/machines/types.js'
import type { PeerMessage } from '../../agent/net/messages.js'
import type { Clock } from '../../agent/ports/clock.js'
import { SeededRng } from '../../sim-net/rng.js'

const [B, C] = ['peer-b', 'peer-c'] as PeerId[] as [PeerId, PeerId]

class Scene {
  ms = 1_000
  readonly sent: [PeerId, PeerMessage][] = []
  readonly changed: PeerId[] = []
  readonly distances: Distances

  constructor() {
    const at = () => ({ cancel: () => {} })
    const clock: Clock = { now: () => this.ms, wall: () => 0, at }
    this.distances = new Distances({
      clock,
      rng: new SeededRng(1),
      send: (peer, message) => this.sent.push([peer, message]) > 0,
      onChange: peer => this.changed.push(peer),
    })
  }

  /** The ping that was sent to `peer` just now. */
  pingTo(peer: PeerId): number {
    const [to, message] = this.sent.at(-1) ?? []
    if (to !== peer || message?.kind !== 'ping') throw new Error('no ping')
    return message.pingId
  }

  answer(peer: PeerId, ms: number, pingId = this.pingTo(peer)): void {
    this.ms += ms
    this.distances.onMessage(peer, { kind: 'pong', pingId })
  }
}

test('known after four within two seconds, then asked about every five; the shortest of the last eight counts', t => {
  const scene = new Scene()
  const { distances } = scene
  distances.onJoined(B)
  for (const ms of [90, 40, 60]) {
    scene.answer(B, ms)
    t.is(distances.rttMs(B), undefined)
    scene.ms += 500
    distances.onTick([B])
  }
  scene.answer(B, 70)
  t.is(distances.rttMs(B), 40)
  t.deepEqual(scene.changed, [B])
  const later = [1, ...Array(7).fill(30), 25] as const
  for (const [i, ms] of later.entries()) {
    scene.ms += 500
    distances.onTick([B])
    const before = scene.sent.length
    scene.ms += 6_000
    distances.onTick([B])
    t.is(scene.sent.length, before + 1)
    scene.answer(B, ms)
    t.is(distances.rttMs(B), i < 8 ? 1 : 25)
  }
  t.deepEqual(scene.changed, [B, B, B])
})

test('an answer counts once, from who was asked, to the latest ping; pings are answered', t => {
  const scene = new Scene()
  const { distances } = scene
  distances.onJoined(B)
  const first = scene.pingTo(B)
  scene.answer(C, 1, first)
  t.deepEqual([distances.rttMs(B), distances.rttMs(C)], [undefined, undefined])
  distances.onJoined(B)
  scene.answer(B, 1, first)
  for (let i = 0; i < 4; i++) {
    t.is(distances.rttMs(B), undefined)
    const pingId = scene.pingTo(B)
    scene.answer(B, 5)
    distances.onMessage(B, { kind: 'pong', pingId })
    scene.ms += 500
    distances.onTick([B])
  }
  t.is(distances.rttMs(B), 5)
  distances.onMessage(C, { kind: 'ping', pingId: 9 })
  t.deepEqual(scene.sent.at(-1), [C, { kind: 'pong', pingId: 9 }])
  distances.onTick([])
  t.is(distances.rttMs(B), undefined, 'it is gone')
})

test('with many agents five pings a second go out once they have joined', t => {
  const scene = new Scene()
  const many = Array.from({ length: 500 }, (_, i) => `p${i}` as PeerId)
  for (let i = 0; i < 5; i++) {
    scene.distances.onTick(many)
    for (const [peer, message] of scene.sent.slice(-many.length))
      if (message.kind === 'ping') scene.distances.onMessage(peer, { kind: 'pong', pingId: message.pingId })
    scene.ms += 500
  }
  const first = scene.sent.length
  t.true(first <= 5 * many.length)
  for (let i = 0; i < 240; i++) {
    scene.ms += 500
    scene.distances.onTick(many)
  }
  t.true(scene.sent.length - first <= 6.5 * 120, `${scene.sent.length - first} in two minutes`)
})
