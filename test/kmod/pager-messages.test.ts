/**
 * The pager protocol's codec: whatever is encoded comes back equal, however the stream is cut; whatever else comes in
 * is refused with a reason and never throws. The pager's C++ gives every message as many fields as this codec does.
 */

import { spawnSync } from 'node:child_process'
import test from 'ava'
import fc from 'fast-check'
import { FRAME_BODY_BYTES_MAX, FrameSplitter } from '../../kmod/pager-frame.js'
import {
  decodePagerCommand,
  decodePagerEvent,
  encodePagerCommand,
  encodePagerEvent,
  LANE_KEY_BYTES,
  type PagerCommand,
  type PagerEvent,
} from '../../kmod/pager-messages.js'
import { PAGER } from '../helpers/native.js'

const text = fc.string({ unit: 'grapheme', maxLength: 40 })
const count = fc.nat({ max: Number.MAX_SAFE_INTEGER })
const port = fc.nat({ max: 65535 })
const positive = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER })

const command: fc.Arbitrary<PagerCommand> = fc.oneof(
  fc.record({ kind: fc.constant('hello' as const), role: fc.constantFrom('run', 'agent', 'observer') }),
  fc.record({
    kind: fc.constant('lane' as const),
    node: count,
    leaseId: count,
    pagesMax: count,
    threadsMax: count,
    ttlMs: count,
    port,
    nodeName: text,
    host: text,
    laneKey: fc.uint8Array({ minLength: LANE_KEY_BYTES, maxLength: LANE_KEY_BYTES }),
    peerId: text,
  }),
  fc.record({
    kind: fc.constant('lease-update' as const),
    leaseId: count,
    pagesMax: count,
    threadsMax: count,
    ttlMs: count,
    reason: text,
  }),
  fc.record({ kind: fc.constant('participant-drop' as const), node: count }),
  fc.record({
    kind: fc.constant('node-verdict' as const),
    node: count,
    leaseId: count,
    verdict: fc.constantFrom('dead', 'stalls', 'runs'),
    reason: text,
  }),
  fc.constant<PagerCommand>({ kind: 'stats-request' }),
  fc.record({ kind: fc.constant('terminate' as const), reason: text }),
  fc.record({ kind: fc.constant('lane-refused' as const), node: count, reason: text }),
  fc.constant<PagerCommand>({ kind: 'start' }),
  fc.record({ kind: fc.constant('signal' as const), signal: fc.integer({ min: 1, max: 64 }) }),
  fc.constant<PagerCommand>({ kind: 'pages-request' }),
  fc.record({ kind: fc.constant('limit' as const), pages: fc.integer({ min: 1, max: 2 ** 26 }) }),
  fc.record({ kind: fc.constant('processors' as const), thousandths: fc.nat(1_000_000) }),
)

const describe = fc.record({
  role: fc.constantFrom('home' as const, 'peer' as const),
  pagerPid: positive,
  appPid: count,
  node: count,
  lanePort: port,
  memoryPages: count,
  epoch: count,
  uid: count,
  startedAtMs: count,
  id: text,
  program: text,
  nodeName: text,
})

const stats = fc.record(
  {
    elasticProcessId: text,
    mode: fc.constantFrom('stretched' as const, 'unstretched' as const),
    pagesTouched: count,
    running: fc.boolean(),
    participants: fc.array(
      fc.record(
        { node: text, peakPages: count, jumpsTo: count, threadsPeak: count },
        { noNullPrototype: true },
      ),
      { maxLength: 5 },
    ),
  },
  { requiredKeys: [], noNullPrototype: true },
)

const plain = { noNullPrototype: true }
const nodePages = fc.record(
  { node: text, resident: count, spilled: count, remote: count, inFlight: count },
  plain,
)
const pageRange = fc.record(
  { first: count, pages: count, place: fc.constant(0), spilled: fc.boolean() },
  plain,
)
const pageMap = fc.record(
  {
    nodes: fc.array(nodePages, { minLength: 1, maxLength: 4 }),
    ranges: fc.array(pageRange, { maxLength: 6 }),
    leftOut: fc.record({ ranges: count, pages: count }, plain),
  },
  plain,
)

const event: fc.Arbitrary<PagerEvent> = fc.oneof(
  fc.record({ kind: fc.constant('describe' as const), describe }),
  fc.record({ kind: fc.constant('stats' as const), stats }),
  fc.record({ kind: fc.constant('lane-up' as const), node: count, nodeName: text }),
  fc.record({ kind: fc.constant('lane-down' as const), node: count, nodeName: text, reason: text }),
  fc.record({ kind: fc.constant('lane-wanted' as const), node: count, nodeName: text, peerId: text }),
  fc.record({
    kind: fc.constant('exited' as const),
    how: fc.constantFrom('exit', 'signal', 'failed', 'cannot-execute', 'not-found'),
    code: fc.integer(),
    childrenLeft: count,
    message: text,
  }),
  fc.record({
    kind: fc.constant('log' as const),
    level: fc.constantFrom('error', 'warning', 'info', 'debug'),
    text,
  }),
  fc.record({ kind: fc.constant('room-wanted' as const), pages: count }),
  fc.record({ kind: fc.constant('started' as const), appPid: positive }),
  fc.record({ kind: fc.constant('lease-renewed' as const), leaseId: count, expiresInMs: count }),
  fc.record({ kind: fc.constant('pages' as const), map: pageMap }),
  fc.record({ kind: fc.constant('node-silent' as const), node: count, leaseId: count, silentMs: count }),
)

/** Splits `stream` at arbitrary places and returns the bodies that come out. */
function bodiesOf(stream: Uint8Array, cuts: number[]): Uint8Array[] {
  const splitter = new FrameSplitter()
  const places = [...cuts.map(cut => cut % (stream.length + 1)), 0, stream.length].sort((a, b) => a - b)
  const bodies: Uint8Array[] = []
  for (let i = 1; i < places.length; i++) {
    const out = splitter.push(stream.subarray(places[i - 1], places[i]))
    if (out.kind === 'malformed') throw new Error(out.reason)
    bodies.push(...out.message)
  }
  return bodies
}

function joined(frames: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(frames))
}

const cuts = fc.array(fc.nat({ max: 1 << 20 }), { maxLength: 20 })

test('commands survive encoding and any cutting of the stream', t => {
  fc.assert(
    fc.property(fc.array(command, { maxLength: 6 }), cuts, (commands, places) => {
      const bodies = bodiesOf(joined(commands.map(encodePagerCommand)), places)
      t.deepEqual(
        bodies.map(decodePagerCommand),
        commands.map(message => ({ kind: 'ok', message })),
      )
    }),
  )
})

test('events survive encoding and any cutting of the stream', t => {
  fc.assert(
    fc.property(fc.array(event, { maxLength: 6 }), cuts, (events, places) => {
      const bodies = bodiesOf(joined(events.map(encodePagerEvent)), places)
      t.deepEqual(
        bodies.map(decodePagerEvent),
        events.map(message => ({ kind: 'ok', message })),
      )
    }),
  )
})

test('garbage is refused with a reason', t => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), body => {
      for (const decode of [decodePagerCommand, decodePagerEvent]) {
        const out = decode(body)
        if (out.kind === 'malformed') t.true(out.reason.length > 0)
      }
    }),
  )
  t.is(decodePagerCommand(new Uint8Array(0)).kind, 'malformed')
})

test('one changed byte gives a valid message or a reason, never an exception', t => {
  fc.assert(
    fc.property(fc.oneof(command), event, fc.nat(), fc.nat({ max: 255 }), (aCommand, anEvent, at, value) => {
      for (const frame of [encodePagerCommand(aCommand), encodePagerEvent(anEvent)]) {
        const body = frame.slice(4)
        body[at % body.length] = value
        t.notThrows(() => decodePagerCommand(body))
        t.notThrows(() => decodePagerEvent(body))
      }
    }),
  )
})

test('the bytes of a frame are those of the protocol', t => {
  t.deepEqual(
    [...encodePagerCommand({ kind: 'hello', role: 'agent' })],
    [16, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
  )
  const frame = encodePagerEvent({
    kind: 'exited',
    how: 'not-found',
    code: -1,
    childrenLeft: 0,
    message: 'ab',
  })
  const body = [
    106,
    0,
    3,
    0,
    1,
    0,
    0,
    0,
    4,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    ...Array<number>(8).fill(255),
    ...Array<number>(8).fill(0),
    2,
    0,
    0,
    0,
    97,
    98,
  ]
  t.deepEqual([...frame], [body.length, 0, 0, 0, ...body])
})

test('frames beyond the bounds end the stream', t => {
  const splitter = new FrameSplitter()
  const head = new Uint8Array(4)
  new DataView(head.buffer).setUint32(0, FRAME_BODY_BYTES_MAX + 1, true)
  t.is(splitter.push(head).kind, 'malformed')
  const reason = 'x'.repeat(FRAME_BODY_BYTES_MAX)
  t.throws(() => encodePagerCommand({ kind: 'terminate', reason }), { instanceOf: RangeError })
})

test('fields that are missing, left over or out of range are refused', t => {
  const start = encodePagerCommand({ kind: 'start' }).slice(4)
  t.is(decodePagerCommand(start).kind, 'ok')
  const signal = encodePagerCommand({ kind: 'signal', signal: 2 }).slice(4)
  signal[0] = 8
  t.deepEqual(decodePagerCommand(signal), { kind: 'malformed', reason: 'fields left over' })
  start[0] = 9
  t.deepEqual(decodePagerCommand(start), { kind: 'malformed', reason: 'a number is missing' })
  const role = encodePagerCommand({ kind: 'hello', role: 'run' }).slice(4)
  role[8] = 3
  t.is(decodePagerCommand(role).kind, 'malformed')
  const huge = encodePagerCommand({ kind: 'participant-drop', node: 1 }).slice(4)
  huge.fill(0x7f, 8, 16)
  t.deepEqual(decodePagerCommand(huge), { kind: 'malformed', reason: 'number out of range' })
})

test('statistics with fields of the wrong form are told apart from frames that are malformed', t => {
  for (const bad of ['[]', 'null', '{', '{"pulls":-1}', '{"mode":"?"}', '{"participants":[{}]}']) {
    const frame = encodePagerEvent({ kind: 'log', level: 'error', text: bad }).slice(4)
    // A log event with its type changed and its number dropped has the form of a stats event.
    const body = new Uint8Array([102, 0, 0, 0, 1, 0, 0, 0, ...frame.slice(16)])
    t.is(decodePagerEvent(body).kind, 'unusable', bad)
  }
})

/** "TYPE NUMBERS STRINGS" of a frame, from its header. */
function shapeOf(frame: Uint8Array): string {
  const view = new DataView(frame.buffer, frame.byteOffset)
  return [4, 6, 8].map(at => view.getUint16(at, true)).join(' ')
}

test('the pager knows the same messages, with as many fields', t => {
  const shapes = new Set<string>()
  const add = (frame: Uint8Array) => void shapes.add(shapeOf(frame))
  fc.assert(
    fc.property(fc.array(command, { minLength: 50 }), each => each.map(encodePagerCommand).forEach(add)),
  )
  fc.assert(fc.property(fc.array(event, { minLength: 50 }), each => each.map(encodePagerEvent).forEach(add)))
  const printed = spawnSync(PAGER, ['control-shapes'], { encoding: 'utf8' })
  t.is(printed.status, 0, printed.stderr)
  t.deepEqual(printed.stdout.trim().split('\n').sort(), [...shapes].sort())
})
