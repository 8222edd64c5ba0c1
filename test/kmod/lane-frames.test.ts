/**
 * The lane-frame codec: what is encoded comes back, hostile bytes are refused with a reason, and the pager's C++
 * gives the same fields or the same reason for the same bytes (`elasticos-pager frame-lockstep`).
 */

import { spawnSync } from 'node:child_process'

import test from 'ava'
import fc from 'fast-check'

import {
  decodeHeader,
  decodeHello,
  decodePageMetas,
  decodeRegion,
  decodeStatus,
  encodeHeader,
  encodeHello,
  encodePageMetas,
  encodeRegion,
  encodeStatus,
  type FrameHeader,
  FrameType,
  HEADER_BYTES,
  PAGE_NUMBER_END,
  PAGES_PER_FRAME_MAX,
  PAYLOAD_BYTES_MAX,
  PageFlag,
  type PageMeta,
  readFrame,
  SHELL_PAGE_FIRST,
  SHELL_PAGES,
  WIRE_MAGIC,
} from '../../kmod/lane-frames.js'
import { PAGER } from '../helpers/native.js'
import { check, SEED } from '../helpers/seed.js'

const u16 = fc.integer({ min: 0, max: 0xffff })
const u32 = fc.integer({ min: 0, max: 0xffffffff })
const u64 = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n })
const pageNumber = fc.bigInt({ min: 0n, max: PAGE_NUMBER_END - 1n })
/** Mostly right, sometimes just wrong, sometimes anything. */
const anyPage = fc.oneof(
  { weight: 8, arbitrary: pageNumber },
  fc.constant(PAGE_NUMBER_END),
  fc.bigInt({ min: SHELL_PAGE_FIRST - 3n, max: SHELL_PAGE_FIRST + SHELL_PAGES }),
  u64,
)
const anyCount = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 0, max: 3 }) },
  fc.constant(PAGES_PER_FRAME_MAX + 1),
  u32,
)

const anyHeader: fc.Arbitrary<FrameHeader> = fc.record({
  magic: fc.oneof({ weight: 30, arbitrary: fc.constant(WIRE_MAGIC) }, u32),
  type: fc.oneof({ weight: 30, arbitrary: fc.integer({ min: 0, max: 26 }) }, u16),
  flags: u16,
  payloadBytes: fc.constant(0),
  epoch: u32,
  image: u32,
  count: anyCount,
  sequence: fc.oneof(fc.constantFrom(0n, 1n), u64),
  ack: u64,
  page: anyPage,
  version: fc.oneof(fc.constantFrom(0n, 1n), u64),
  lastWrittenCut: u32,
  argument: fc.oneof(fc.integer({ min: 0, max: 9 }), fc.constant(PAYLOAD_BYTES_MAX + 1), u32),
})

const anyMeta: fc.Arbitrary<PageMeta> = fc.record({
  page: anyPage,
  version: u64,
  lastWrittenCut: u32,
  flags: fc.oneof(
    { weight: 20, arbitrary: fc.constantFrom(...Object.values(PageFlag)) },
    fc.integer({ min: 0, max: 0xffff }),
  ),
  owner: u16,
})

const anyHello = fc.record({
  protocol: u32,
  node: u16,
  laneKind: fc.oneof(fc.integer({ min: 0, max: 2 }), u16),
  processId: u64,
  leaseId: u64,
})

const anyRegion = fc.record({
  startPage: anyPage,
  pageCount: fc.oneof({ weight: 5, arbitrary: fc.bigInt({ min: 0n, max: 99n }) }, u64),
  prot: fc.integer({ min: 0, max: 9 }),
  kind: fc.integer({ min: 0, max: 3 }),
  birthVersion: u64,
})

const anyStatus = fc.record({
  pagesResident: u64,
  pagesLimit: u64,
  pagesSpilled: u64,
  threadsRunning: u32,
  pagesTaken: u32,
})

function concat(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts))
}

/** A frame whose payload matches its header's size. */
function frame(header: FrameHeader, payload: Uint8Array): Uint8Array {
  return concat(encodeHeader({ ...header, payloadBytes: payload.length }), payload)
}

const PAGE_FRAMES = [FrameType.pages, FrameType.push, FrameType.filePages]

const pagesFrame = fc
  .tuple(anyHeader, fc.array(anyMeta, { minLength: 1, maxLength: 4 }), fc.constantFrom(...PAGE_FRAMES), u16)
  .map(([header, metas, type, spoil]) => {
    const data = metas.filter(meta => meta.flags === PageFlag.data).length
    const extra = spoil % 11 === 0 ? 1 : 0
    const payload = concat(encodePageMetas(metas), new Uint8Array(data * 4096 + extra).fill(spoil & 255))
    return frame({ ...header, magic: WIRE_MAGIC, type, count: metas.length }, payload)
  })

const structFrame = fc
  .tuple(anyHeader, anyHello, anyRegion, anyStatus, fc.integer({ min: 0, max: 2 }))
  .map(([header, hello, region, status, which]) => {
    const [type, payload] = [
      [FrameType.hello, encodeHello(hello)] as const,
      [FrameType.map, encodeRegion(region)] as const,
      [FrameType.status, encodeStatus(status)] as const,
    ][which] ?? [FrameType.bye, new Uint8Array()]
    return frame({ ...header, magic: WIRE_MAGIC, type }, payload)
  })

const plainFrame = fc
  .tuple(anyHeader, fc.oneof(fc.constant(new Uint8Array()), fc.uint8Array({ maxLength: 80 })))
  .map(([header, payload]) => frame(header, payload))

/** Large payloads around the limits of jump, back, stats, bye and setup. */
const largeFrame = fc
  .tuple(
    anyHeader,
    fc.constantFrom(FrameType.jump, FrameType.back, FrameType.stats, FrameType.bye, FrameType.setup),
    fc.constantFrom(0, 1, 4096, 4097, 65536, 65537),
  )
  .map(([header, type, length]) => frame({ ...header, magic: WIRE_MAGIC, type }, new Uint8Array(length)))

const spoiltFrame = fc
  .tuple(fc.oneof(pagesFrame, structFrame, plainFrame), fc.nat(), u16, fc.nat({ max: 9 }))
  .map(([bytes, at, value, cut]) => {
    const spoilt = Uint8Array.from(bytes)
    spoilt[at % Math.min(spoilt.length, 200)] = value & 255
    return cut === 0 ? spoilt.subarray(0, at % spoilt.length) : spoilt
  })

const anyFrame = fc.oneof(
  { weight: 4, arbitrary: pagesFrame },
  { weight: 4, arbitrary: structFrame },
  { weight: 4, arbitrary: plainFrame },
  { weight: 3, arbitrary: spoiltFrame },
  { weight: 1, arbitrary: largeFrame },
)

/** The line `elasticos-pager frame-lockstep` prints for these bytes. */
function expectedLine(bytes: Uint8Array): string {
  const read = readFrame(bytes)
  if (read.kind === 'refused') return `bad ${read.reason}`
  const { header, payload } = read
  const groups: (number | bigint)[][] = [Object.values(header)]
  if (PAGE_FRAMES.some(type => type === header.type))
    for (const meta of decodePageMetas(payload, header.count)) groups.push(Object.values(meta))
  if (header.type === FrameType.hello) groups.push(Object.values(decodeHello(payload)))
  if (header.type === FrameType.map) groups.push(Object.values(decodeRegion(payload)))
  if (header.type === FrameType.status) groups.push(Object.values(decodeStatus(payload)))
  return `ok ${groups.map(group => group.join(' ')).join(' | ')}`
}

test('headers and metas come back as they were', async t => {
  await check(
    t,
    fc.property(anyHeader, fc.array(anyMeta, { maxLength: 9 }), (header, metas) => {
      t.deepEqual(decodeHeader(encodeHeader(header)), header)
      t.deepEqual(decodePageMetas(encodePageMetas(metas), metas.length), metas)
    }),
  )
})

test('payload structs come back as they were', async t => {
  await check(
    t,
    fc.property(anyHello, anyRegion, anyStatus, (hello, region, status) => {
      t.deepEqual(decodeHello(encodeHello(hello)), hello)
      t.deepEqual(decodeRegion(encodeRegion(region)), region)
      t.deepEqual(decodeStatus(encodeStatus(status)), status)
    }),
  )
})

test('any bytes are judged, never thrown over', async t => {
  await check(
    t,
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 300 }), spoiltFrame), bytes => {
      const read = readFrame(bytes)
      return read.kind === 'frame' || read.reason.length > 0
    }),
    1000,
  )
})

test('the limits are where they are said to be', t => {
  const base = decodeHeader(new Uint8Array(HEADER_BYTES))
  const ask = (count: number, page: bigint) =>
    readFrame(frame({ ...base, magic: WIRE_MAGIC, type: FrameType.get, count, page }, new Uint8Array()))
  t.is(ask(PAGES_PER_FRAME_MAX, PAGE_NUMBER_END - 256n).kind, 'frame')
  t.deepEqual(ask(PAGES_PER_FRAME_MAX, PAGE_NUMBER_END - 255n), {
    kind: 'refused',
    reason: 'page range out of bounds',
  })
  t.deepEqual(ask(PAGES_PER_FRAME_MAX + 1, 0n), { kind: 'refused', reason: 'page count out of bounds' })
  t.deepEqual(ask(0, 0n), { kind: 'refused', reason: 'page count out of bounds' })
})

test("nothing reaches the shell's own pages", t => {
  const base = { ...decodeHeader(new Uint8Array(HEADER_BYTES)), magic: WIRE_MAGIC }
  const refused = { kind: 'refused', reason: "the shell's own pages" }
  const end = SHELL_PAGE_FIRST + SHELL_PAGES
  const ranges = [
    { page: SHELL_PAGE_FIRST - 2n, count: 2, fine: true },
    { page: SHELL_PAGE_FIRST - 2n, count: 3, fine: false },
    { page: SHELL_PAGE_FIRST + 1n, count: 1, fine: false },
    { page: 1n, count: 0xffffffff, fine: false },
    { page: end, count: 1, fine: true },
  ]
  for (const { page, count, fine } of ranges) {
    const expected = (read: unknown) => (fine ? t.like(read, { kind: 'frame' }) : t.deepEqual(read, refused))
    for (const type of [FrameType.drop, FrameType.protect])
      expected(readFrame(frame({ ...base, type, page, count, argument: 1 }, new Uint8Array())))
    const region = { startPage: page, pageCount: BigInt(count), prot: 3, kind: 1, birthVersion: 0n }
    expected(readFrame(frame({ ...base, type: FrameType.map }, encodeRegion(region))))
  }
  for (const type of PAGE_FRAMES) {
    const meta = { page: end - 1n, version: 1n, lastWrittenCut: 0, flags: PageFlag.zero, owner: 0 }
    t.deepEqual(readFrame(frame({ ...base, type, count: 1 }, encodePageMetas([meta]))), refused)
  }
})

test('contents are dropped a few pages at a time, mappings as wide as they are', t => {
  const base = { ...decodeHeader(new Uint8Array(HEADER_BYTES)), magic: WIRE_MAGIC, type: FrameType.drop }
  const drop = (count: number, argument: number) =>
    readFrame(frame({ ...base, count, argument, page: SHELL_PAGE_FIRST + SHELL_PAGES }, new Uint8Array()))
  t.is(drop(PAGES_PER_FRAME_MAX, 0).kind, 'frame')
  t.is(drop(0xffffffff, 1).kind, 'frame')
  for (const argument of [0, 2])
    t.deepEqual(drop(PAGES_PER_FRAME_MAX + 1, argument), {
      kind: 'refused',
      reason: 'page count out of bounds',
    })
})

test('a cut marker has a number, an acknowledgement only its header', t => {
  const base = decodeHeader(new Uint8Array(HEADER_BYTES))
  const read = (type: number, argument: number, payload = new Uint8Array()) =>
    readFrame(frame({ ...base, magic: WIRE_MAGIC, type, argument }, payload))
  t.is(read(FrameType.cut, 1).kind, 'frame')
  t.is(read(FrameType.ack, 0).kind, 'frame')
  t.deepEqual(read(FrameType.cut, 0), { kind: 'refused', reason: 'a cut has a number' })
  for (const type of [FrameType.cut, FrameType.ack])
    t.deepEqual(read(type, 1, new Uint8Array(1)), { kind: 'refused', reason: 'wrong payload size' })
  t.deepEqual(read(FrameType.ack + 1, 0), { kind: 'refused', reason: 'unknown frame type' })
})

test('the pager reads and refuses the same frames for the same reasons', t => {
  const frames = fc.sample(anyFrame, { seed: SEED, numRuns: 4000 })
  const input = frames.map(bytes => `${Buffer.from(bytes).toString('hex')}\n`).join('')
  const run = spawnSync(PAGER, ['frame-lockstep'], {
    input,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    timeout: 60_000,
  })
  t.is(run.status, 0, run.stderr)
  const lines = run.stdout.split('\n').slice(0, -1)
  t.is(lines.length, frames.length)
  const reasons = new Map<string, number>()
  for (const [index, bytes] of frames.entries()) {
    const line = lines[index] ?? ''
    if (line !== expectedLine(bytes))
      t.is(
        line,
        expectedLine(bytes),
        `ELASTICOS_SEED=${SEED}, frame ${index}: ${Buffer.from(bytes.subarray(0, 200)).toString('hex')}`,
      )
    const what = line.startsWith('bad ') ? line : 'ok'
    reasons.set(what, (reasons.get(what) ?? 0) + 1)
  }
  // A lock-step that never sees a good frame, or only one reason, proves nothing.
  t.true((reasons.get('ok') ?? 0) > 200, `accepted ${reasons.get('ok')}`)
  t.true(reasons.size >= 10, [...reasons.keys()].join('; '))
})
