/**
 * Lane frames as TypeScript sees them: the tested twin of kmod/pager/src/wire.hpp (layout) and frame_check.cpp (what
 * a frame of each type must look like). The pagers alone speak this on a network; the twin is the readable
 * specification, what the simulator checks frames with, and what keeps the C++ honest (test/kmod/lane-frames.test.ts).
 *
 * All fields are little-endian. 64-bit fields are bigint, because they come from the network and may hold anything.
 * Limits: a payload is at most 2 MiB, with at most 256 pages; sequence and acknowledgement are the connection's.
 */

export const WIRE_MAGIC = 0x31504c45
export const PROTOCOL_VERSION = 3 // of the frames and all that is in them: a hello says it
export const HEADER_BYTES = 64
export const PAGE_META_BYTES = 24
export const PAYLOAD_BYTES_MAX = 2 << 20
export const PAGES_PER_FRAME_MAX = 256
export const CONTEXT_BYTES_MAX = 64 << 10
export const STATS_BYTES_MAX = 64 << 10
export const REASON_BYTES_MAX = 4 << 10
export const PAGE_NUMBER_END = (1n << 35n) - 1n // 47-bit user addresses of 4 KiB pages
/** Of the shell process: the pages from which a pager makes its calls there (kmod/pager/src/injector.hpp). */
export const SHELL_PAGE_FIRST = 0x100n
export const SHELL_PAGES = 2n
const PAGE_BYTES = 4096
const HELLO_BYTES = 24
const REGION_BYTES = 32
const STATUS_BYTES = 32
const PROTECTION_BITS = 7 // PROT_READ | PROT_WRITE | PROT_EXEC

export const FrameType = {
  hello: 1,
  get: 2,
  pages: 3,
  push: 4,
  map: 5,
  drop: 6,
  protect: 7,
  layoutAck: 8,
  jump: 9,
  back: 10,
  recall: 11,
  threadEnd: 12,
  fileGet: 13,
  filePages: 14,
  status: 15,
  stats: 16,
  bye: 17,
  reset: 18,
  owner: 19,
  giveBack: 20,
  echo: 21,
  echoReply: 22,
  setup: 23,
  /** Reserved for checkpoints: argument is the number of the cut. */
  cut: 24,
  /** Its header's `ack`, and in `version` the last sequence received on the other connection of the lane. */
  ack: 25,
} as const

export const PageFlag = { data: 1, zero: 2, moved: 4, absent: 8, pinned: 16, offered: 32 } as const
export const RegionKind = { elastic: 1, replica: 2 } as const

export interface FrameHeader {
  readonly magic: number
  readonly type: number
  readonly flags: number
  readonly payloadBytes: number
  readonly epoch: number
  readonly image: number
  readonly count: number
  readonly sequence: bigint
  readonly ack: bigint
  /** Virtual page number. */
  readonly page: bigint
  /** birth << 32 | moves. */
  readonly version: bigint
  readonly lastWrittenCut: number
  readonly argument: number
}

export interface PageMeta {
  readonly page: bigint
  readonly version: bigint
  readonly lastWrittenCut: number
  readonly flags: number
  readonly owner: number
}

export interface HelloPayload {
  readonly protocol: number
  readonly node: number
  readonly laneKind: number
  readonly processId: bigint
  readonly leaseId: bigint
}

export interface RegionPayload {
  readonly startPage: bigint
  readonly pageCount: bigint
  readonly prot: number
  readonly kind: number
  readonly birthVersion: bigint
}

export interface StatusPayload {
  readonly pagesResident: bigint
  readonly pagesLimit: bigint
  readonly pagesSpilled: bigint
  readonly threadsRunning: number
  readonly pagesTaken: number
}

export type ReadFrame =
  | { readonly kind: 'frame'; readonly header: FrameHeader; readonly payload: Uint8Array }
  | { readonly kind: 'refused'; readonly reason: string }

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** The 64 bytes of a header. */
export function encodeHeader(header: FrameHeader): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES)
  const view = viewOf(bytes)
  view.setUint32(0, header.magic, true)
  view.setUint16(4, header.type, true)
  view.setUint16(6, header.flags, true)
  view.setUint32(8, header.payloadBytes, true)
  view.setUint32(12, header.epoch, true)
  view.setUint32(16, header.image, true)
  view.setUint32(20, header.count, true)
  view.setBigUint64(24, header.sequence, true)
  view.setBigUint64(32, header.ack, true)
  view.setBigUint64(40, header.page, true)
  view.setBigUint64(48, header.version, true)
  view.setUint32(56, header.lastWrittenCut, true)
  view.setUint32(60, header.argument, true)
  return bytes
}

/** The header in the first 64 bytes; fewer are a RangeError. Nothing is judged yet. */
export function decodeHeader(bytes: Uint8Array): FrameHeader {
  const view = viewOf(bytes)
  return {
    magic: view.getUint32(0, true),
    type: view.getUint16(4, true),
    flags: view.getUint16(6, true),
    payloadBytes: view.getUint32(8, true),
    epoch: view.getUint32(12, true),
    image: view.getUint32(16, true),
    count: view.getUint32(20, true),
    sequence: view.getBigUint64(24, true),
    ack: view.getBigUint64(32, true),
    page: view.getBigUint64(40, true),
    version: view.getBigUint64(48, true),
    lastWrittenCut: view.getUint32(56, true),
    argument: view.getUint32(60, true),
  }
}

export function encodePageMetas(metas: readonly PageMeta[]): Uint8Array {
  const bytes = new Uint8Array(metas.length * PAGE_META_BYTES)
  const view = viewOf(bytes)
  for (const [index, meta] of metas.entries()) {
    const at = index * PAGE_META_BYTES
    view.setBigUint64(at, meta.page, true)
    view.setBigUint64(at + 8, meta.version, true)
    view.setUint32(at + 16, meta.lastWrittenCut, true)
    view.setUint16(at + 20, meta.flags, true)
    view.setUint16(at + 22, meta.owner, true)
  }
  return bytes
}

/** The first `count` metas of a payload; a shorter payload is a RangeError. */
export function decodePageMetas(payload: Uint8Array, count: number): PageMeta[] {
  const view = viewOf(payload)
  return Array.from({ length: count }, (_, index) => {
    const at = index * PAGE_META_BYTES
    return {
      page: view.getBigUint64(at, true),
      version: view.getBigUint64(at + 8, true),
      lastWrittenCut: view.getUint32(at + 16, true),
      flags: view.getUint16(at + 20, true),
      owner: view.getUint16(at + 22, true),
    }
  })
}

export function encodeHello(hello: HelloPayload): Uint8Array {
  const bytes = new Uint8Array(HELLO_BYTES)
  const view = viewOf(bytes)
  view.setUint32(0, hello.protocol, true)
  view.setUint16(4, hello.node, true)
  view.setUint16(6, hello.laneKind, true)
  view.setBigUint64(8, hello.processId, true)
  view.setBigUint64(16, hello.leaseId, true)
  return bytes
}

export function decodeHello(payload: Uint8Array): HelloPayload {
  const view = viewOf(payload)
  return {
    protocol: view.getUint32(0, true),
    node: view.getUint16(4, true),
    laneKind: view.getUint16(6, true),
    processId: view.getBigUint64(8, true),
    leaseId: view.getBigUint64(16, true),
  }
}

export function encodeRegion(region: RegionPayload): Uint8Array {
  const bytes = new Uint8Array(REGION_BYTES)
  const view = viewOf(bytes)
  view.setBigUint64(0, region.startPage, true)
  view.setBigUint64(8, region.pageCount, true)
  view.setUint32(16, region.prot, true)
  view.setUint32(20, region.kind, true)
  view.setBigUint64(24, region.birthVersion, true)
  return bytes
}

export function decodeRegion(payload: Uint8Array): RegionPayload {
  const view = viewOf(payload)
  return {
    startPage: view.getBigUint64(0, true),
    pageCount: view.getBigUint64(8, true),
    prot: view.getUint32(16, true),
    kind: view.getUint32(20, true),
    birthVersion: view.getBigUint64(24, true),
  }
}

export function encodeStatus(status: StatusPayload): Uint8Array {
  const bytes = new Uint8Array(STATUS_BYTES)
  const view = viewOf(bytes)
  view.setBigUint64(0, status.pagesResident, true)
  view.setBigUint64(8, status.pagesLimit, true)
  view.setBigUint64(16, status.pagesSpilled, true)
  view.setUint32(24, status.threadsRunning, true)
  view.setUint32(28, status.pagesTaken, true)
  return bytes
}

export function decodeStatus(payload: Uint8Array): StatusPayload {
  const view = viewOf(payload)
  return {
    pagesResident: view.getBigUint64(0, true),
    pagesLimit: view.getBigUint64(8, true),
    pagesSpilled: view.getBigUint64(16, true),
    threadsRunning: view.getUint32(24, true),
    pagesTaken: view.getUint32(28, true),
  }
}

function isRange(page: bigint, count: bigint): boolean {
  return count > 0n && page < PAGE_NUMBER_END && count <= PAGE_NUMBER_END - page
}

function touchesShell(page: bigint, count: bigint): boolean {
  return page < SHELL_PAGE_FIRST + SHELL_PAGES && SHELL_PAGE_FIRST < page + count
}

function isOneBitOf(flags: number, allowed: number): boolean {
  return (flags & ~allowed) === 0 && flags !== 0 && (flags & (flags - 1)) === 0
}

function pagesProblem(header: FrameHeader, payload: Uint8Array, allowed: number): string | undefined {
  if (header.count === 0 || header.count > PAGES_PER_FRAME_MAX) return 'page count out of bounds'
  const metaBytes = header.count * PAGE_META_BYTES
  if (payload.length < metaBytes) return 'payload shorter than its page metas'
  const metas = decodePageMetas(payload, header.count)
  for (const meta of metas) {
    if (meta.page >= PAGE_NUMBER_END) return 'page number out of bounds'
    if (touchesShell(meta.page, 1n)) return "the shell's own pages"
    if (!isOneBitOf(meta.flags, allowed)) return 'page flags not allowed here'
  }
  const withData = metas.filter(meta => meta.flags === PageFlag.data).length
  return payload.length === metaBytes + withData * PAGE_BYTES
    ? undefined
    : 'payload size does not fit its page metas'
}

function regionProblem(payload: Uint8Array): string | undefined {
  if (payload.length !== REGION_BYTES) return 'wrong payload size'
  const region = decodeRegion(payload)
  if (!isRange(region.startPage, region.pageCount)) return 'page range out of bounds'
  if (touchesShell(region.startPage, region.pageCount)) return "the shell's own pages"
  if ((region.prot & ~PROTECTION_BITS) !== 0) return 'unknown protection bits'
  const known = region.kind === RegionKind.elastic || region.kind === RegionKind.replica
  return known ? undefined : 'unknown kind of region'
}

function rangeProblem(header: FrameHeader, payload: Uint8Array): string | undefined {
  if (payload.length !== 0) return 'wrong payload size'
  return isRange(header.page, BigInt(header.count)) ? undefined : 'page range out of bounds'
}

function requestProblem(header: FrameHeader, payload: Uint8Array): string | undefined {
  if (payload.length !== 0) return 'wrong payload size'
  if (header.count === 0 || header.count > PAGES_PER_FRAME_MAX) return 'page count out of bounds'
  return rangeProblem(header, payload)
}

function layoutProblem(header: FrameHeader, payload: Uint8Array): string | undefined {
  const problem = rangeProblem(header, payload)
  const reaches = touchesShell(header.page, BigInt(header.count))
  return problem ?? (reaches ? "the shell's own pages" : undefined)
}

/** Argument 1: the mapping ends. Any other: the contents of some pages, each of which is looked at. */
function dropProblem(header: FrameHeader, payload: Uint8Array): string | undefined {
  if (header.argument !== 1 && header.count > PAGES_PER_FRAME_MAX) return 'page count out of bounds'
  return layoutProblem(header, payload)
}

function protectProblem(header: FrameHeader, payload: Uint8Array): string | undefined {
  const problem = layoutProblem(header, payload)
  if (problem !== undefined) return problem
  return (header.argument & ~PROTECTION_BITS) === 0 ? undefined : 'unknown protection bits'
}

function giveBackProblem(header: FrameHeader, payload: Uint8Array): string | undefined {
  if (payload.length !== 0) return 'wrong payload size'
  return header.page === 0n ? undefined : rangeProblem(header, payload)
}

/** On a fresh connection it is frame 1. What resumes a lost one has no number, and names the last that has come. */
function helloProblem(header: FrameHeader, payload: Uint8Array): string | undefined {
  if (payload.length !== HELLO_BYTES) return 'wrong payload size'
  if (decodeHello(payload).laneKind > 1) return 'unknown kind of lane'
  return (header.sequence === 0n) === header.version > 0n ? undefined : 'neither first nor resuming'
}

function sizeProblem(payload: Uint8Array, bytesMin: number, bytesMax: number): string | undefined {
  return payload.length >= bytesMin && payload.length <= bytesMax ? undefined : 'wrong payload size'
}

function cutProblem(header: FrameHeader, payload: Uint8Array): string | undefined {
  return sizeProblem(payload, 0, 0) ?? (header.argument > 0 ? undefined : 'a cut has a number')
}

type Check = (header: FrameHeader, payload: Uint8Array) => string | undefined

const empty: Check = (_, payload) => sizeProblem(payload, 0, 0)

const PUSHED_PAGE_FLAG = PageFlag.data | PageFlag.zero | PageFlag.offered
const ANY_PAGE_FLAG = PageFlag.data | PageFlag.zero | PageFlag.moved | PageFlag.absent | PageFlag.pinned

const CHECKS: ReadonlyMap<number, Check> = new Map<number, Check>([
  [FrameType.hello, helloProblem],
  [FrameType.get, requestProblem],
  [FrameType.pages, (header, payload) => pagesProblem(header, payload, ANY_PAGE_FLAG)],
  [FrameType.push, (header, payload) => pagesProblem(header, payload, PUSHED_PAGE_FLAG)],
  [FrameType.map, (_, payload) => regionProblem(payload)],
  [FrameType.drop, dropProblem],
  [FrameType.protect, protectProblem],
  [FrameType.layoutAck, empty],
  [FrameType.jump, (_, payload) => sizeProblem(payload, 1, CONTEXT_BYTES_MAX)],
  [FrameType.back, (_, payload) => sizeProblem(payload, 0, CONTEXT_BYTES_MAX)],
  [FrameType.recall, empty],
  [FrameType.threadEnd, empty],
  [FrameType.fileGet, requestProblem],
  [
    FrameType.filePages,
    (header, payload) => pagesProblem(header, payload, PageFlag.data | PageFlag.zero | PageFlag.absent),
  ],
  [FrameType.status, (_, payload) => sizeProblem(payload, STATUS_BYTES, STATUS_BYTES)],
  [FrameType.stats, (_, payload) => sizeProblem(payload, 0, STATS_BYTES_MAX)],
  [FrameType.bye, (_, payload) => sizeProblem(payload, 0, REASON_BYTES_MAX)],
  [FrameType.reset, empty],
  [FrameType.owner, rangeProblem],
  [FrameType.giveBack, giveBackProblem],
  [
    FrameType.echo,
    header => (header.argument <= PAYLOAD_BYTES_MAX ? undefined : 'answer asked for is too large'),
  ],
  [FrameType.echoReply, () => undefined],
  [FrameType.setup, (_, payload) => sizeProblem(payload, 0, REASON_BYTES_MAX)],
  [FrameType.cut, cutProblem],
  [FrameType.ack, empty],
])

/** Why a frame is unacceptable, in the words the pager uses, or undefined. */
export function frameProblem(header: FrameHeader, payload: Uint8Array): string | undefined {
  if (header.magic !== WIRE_MAGIC) return 'bad magic'
  const check = CHECKS.get(header.type)
  if (check === undefined) return 'unknown frame type'
  if (header.payloadBytes > PAYLOAD_BYTES_MAX) return 'payload too large'
  if (header.payloadBytes !== payload.length) return 'payload size differs from its header'
  return check(header, payload)
}

/** One whole frame, header and payload, judged. */
export function readFrame(bytes: Uint8Array): ReadFrame {
  if (bytes.length < HEADER_BYTES) return { kind: 'refused', reason: 'short frame' }
  const header = decodeHeader(bytes)
  const payload = bytes.subarray(HEADER_BYTES)
  const reason = frameProblem(header, payload)
  return reason === undefined ? { kind: 'frame', header, payload } : { kind: 'refused', reason }
}
