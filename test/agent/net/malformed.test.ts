/**
 * Ten thousand malformed ones of each kind of message: each is refused, none throws; on the network their sender is shut
 * out long before all were said, whatever kind they are, and nobody else notices.
 */

import { createHmac } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import { encode } from 'cborg'
import { decodeLine, requestSchema } from '../../../agent/control/messages.js'
import { newKey } from '../../../agent/key.js'
import type { PeerId } from '../../../agent/machines/types.js'
import { AnnouncementCodec } from '../../../agent/net/announcement.js'
import { decodeLoad, decodeMessage } from '../../../agent/net/messages.js'
import { SeededRng } from '../../../sim-net/rng.js'
import { HostilePeer } from '../../helpers/hostile-peer.js'
import { SEED } from '../../helpers/seed.js'
import { addressOf, Cluster, joined, until } from '../cluster.js'
import { FakeWorld } from '../fake-pagers.js'
import { LOAD, MESSAGES } from './samples.js'

const EACH = 10_000
const TIMEOUT_MS = 170_000
const DOOR_MS = 200
const LONG = 'x'.repeat(5_000)

/** What no field of that type may be. */
function wrongValues(value: unknown): readonly unknown[] {
  if (typeof value === 'number') return [-1, 1.5, 'x', null, [1], { a: 1 }, true, -(2 ** 40)]
  if (typeof value === 'string') return [7, null, ['x'], {}, '\u0000', '\u001b[2J', LONG, true]
  if (typeof value === 'boolean') return [0, 1, null, 'true', []]
  if (value instanceof Uint8Array) return ['x', 7, null, new Uint8Array(257), []]
  if (Array.isArray(value)) return [{}, 'x', 7, null, Array(1_000).fill(null)]
  return ['x', 7, null, [], true]
}

/** `value` with one thing wrong in it, somewhere. */
function spoilt(value: object, rng: SeededRng): object {
  const fields = Object.entries(value)
  const [field, old] = rng.pick(fields)
  const what = rng.below(12)
  if (what === 0) return Object.fromEntries(fields.filter(([name]) => name !== field))
  if (what === 1) return { ...value, [`x${rng.below(1_000)}`]: old }
  const isDeep = old !== null && typeof old === 'object' && !(old instanceof Uint8Array)
  if (isDeep && what < 8) {
    if (!Array.isArray(old)) return { ...value, [field]: spoilt(old, rng) }
    const [first] = old
    return {
      ...value,
      [field]: [typeof first === 'object' ? spoilt(first, rng) : rng.pick(wrongValues(first))],
    }
  }
  return { ...value, [field]: rng.pick(wrongValues(old)) }
}

const rng = new SeededRng(SEED)

for (const message of MESSAGES) {
  test(`${message.kind}: ten thousand malformed ones are refused`, t => {
    for (let i = 0; i < EACH; i++) {
      const wrong = spoilt(message, rng)
      if (decodeMessage(encode(wrong)).kind !== 'malformed')
        return t.fail(`ELASTICOS_SEED=${SEED}: ${JSON.stringify(wrong)}`)
    }
    return t.pass()
  })
}

test('load: ten thousand malformed ones are refused', t => {
  for (let i = 0; i < EACH; i++) {
    const wrong = spoilt(LOAD, rng)
    if (decodeLoad(encode(wrong)).kind !== 'malformed') return t.fail(JSON.stringify(wrong))
  }
  return t.pass()
})

test('announcement: ten thousand malformed ones are ignored, however well they are signed', t => {
  const key = newKey()
  const codec = new AnnouncementCodec(key)
  const macKey = createHmac('sha256', key.bytes).update('elasticos announcement 1').digest()
  const peer = '12D3KooWJZmiUz1J3727T3pvRhDXvw62XTs8Uz2vhnjQUAdLWvZp' as PeerId
  const fields = { key: '0'.repeat(16), peer, instance: 'f'.repeat(32), claim: new Uint8Array(9), name: 'n' }
  for (let i = 0; i < EACH; i++) {
    const wrong = spoilt({ ...fields, addresses: ['/ip4/1.2.3.4/tcp/5'] }, rng)
    const body = Buffer.concat([Buffer.from('elastic1'), encode(wrong)])
    const packet = Buffer.concat([body, createHmac('sha256', macKey).update(body).digest()])
    if (codec.decode(packet).kind !== 'ignored') return t.fail(JSON.stringify(wrong))
  }
  return t.pass()
})

const processId = '0123456789abcdef'
const home = { id: processId, pagerSocket: '/s', program: 'p', participantsMax: 2, memoryPages: 9, uid: 0 }
const REQUESTS: readonly { op: string }[] = [
  { op: 'hello' },
  { op: 'nodes' },
  { op: 'processes' },
  { op: 'attach', home } as { op: string },
  ...['watch', 'refusals', 'pages', 'leases', 'automatic'].map(op => ({ op, processId })),
  { op: 'contract', processId } as { op: string },
  { op: 'stretch', processId, node: 'b' } as { op: string },
  { op: 'stop', processId, reason: 'r' } as { op: string },
]

for (const request of REQUESTS) {
  test(`request ${request.op}: ten thousand malformed ones are refused`, t => {
    for (let i = 0; i < EACH; ) {
      const line = JSON.stringify({ n: 1, request: spoilt(request, rng) })
      // The names of programs and files may be any text.
      if (/\\u00/.test(line)) continue
      i++
      if (decodeLine(requestSchema, line) !== undefined) return t.fail(line)
    }
    return t.pass()
  })
}

test('who sends malformed messages is shut out, whatever their kind, and nobody else notices', async t => {
  t.timeout(TIMEOUT_MS)
  const cluster = await Cluster.make()
  t.teardown(() => cluster.stop())
  const world = new FakeWorld()
  const a = await cluster.start('a', world.pagers())
  const b = await cluster.start('b', world.pagers(), { peers: [addressOf(a)] })
  await until('joined', () => joined(a).length === 1)
  const where = { address: addressOf(a), peerId: a.nodes()[0]?.peerId ?? '' }
  const hostile = await HostilePeer.join(where, cluster.keyFile, { ...LOAD, name: 'mallory', nextMs: 60_000 })
  t.teardown(() => hostile.stop())
  for (const message of MESSAGES) {
    const before = a.counts().shutOuts
    let said = 0
    while (a.counts().shutOuts === before && said++ < EACH) {
      // While its address is let in slowly it waits, and comes as somebody else.
      await hostile.sendFrame(encode(spoilt(message, rng))).catch(() => sleep(DOOR_MS))
      await sleep(0)
    }
    t.true(said < EACH, message.kind)
  }
  const { offences, shutOuts } = a.counts()
  t.log(`${JSON.stringify(offences)}, ${shutOuts} times shut out`)
  t.true(shutOuts >= MESSAGES.length && Number(offences.malformed) >= 5 * MESSAGES.length)
  t.true(joined(a).includes('b') && joined(b).includes('a'))
  t.false(cluster.log.some(line => line.startsWith('a info b is') || line.startsWith('b warn')))
})
