/**
 * The decoders of everything that comes from outside, and what each must do with any bytes: give a value or a refusal,
 * and never throw what its caller does not expect. Where a value can be encoded again, it must decode to the same.
 */

import { deepStrictEqual } from 'node:assert'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { readConfig } from '../../agent/cli/agent-config.js'
import { CliFailure } from '../../agent/cli/failure.js'
import { decodeLine, requestSchema } from '../../agent/control/messages.js'
import { decodeReply, LineSplitter, readHello } from '../../agent/control/reply.js'
import { newKey, parseKey } from '../../agent/key.js'
import type { PeerId, ProcessId } from '../../agent/machines/types.js'
import { toEndpoint } from '../../agent/net/address.js'
import { AnnouncementCodec } from '../../agent/net/announcement.js'
import {
  decodeLoad,
  decodeMessage,
  encodeLoad,
  encodeMessage,
  type PeerMessage,
  parseFacts,
} from '../../agent/net/messages.js'
import {
  decodePageMetas,
  encodeHeader,
  encodePageMetas,
  FrameType,
  readFrame,
  WIRE_MAGIC,
} from '../../kmod/lane-frames.js'
import { FrameSplitter } from '../../kmod/pager-frame.js'
import {
  decodePagerCommand,
  decodePagerEvent,
  encodePagerCommand,
  encodePagerEvent,
} from '../../kmod/pager-messages.js'
import { parsePagerStats } from '../../kmod/pager-stats.js'
import { parsePolicy } from '../../placement/registry.js'
import { parseDuration, parseSize } from '../../placement/units.js'

export interface Decoder {
  readonly name: string
  /** Inputs that are accepted, from which others are made. */
  readonly samples: readonly Uint8Array[]
  /** Throws when the decoder does what it must not. */
  readonly judge: (bytes: Uint8Array) => void
}

const PEER = '12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA' as PeerId
const PROCESS = '00112233aabbccdd' as ProcessId
const KEY = newKey(new Uint8Array(32).fill(7))
const laneKey = new Uint8Array(32).fill(9)
const terms = { pages: 4096, threads: 4, ttlMs: 10_000 }
const load = {
  name: 'a',
  incarnation: 1,
  sequence: 2,
  freePages: 300,
  capacityPages: 4000,
  cpus: 2,
  processes: 1,
  addresses: ['/ip4/10.0.0.1/tcp/7420'],
  nextMs: 1000,
}
const facts = {
  protocolVersion: 1,
  pageSize: 4096,
  arch: 'x86_64',
  kernel: '6.1.0',
  cpuVendor: 'GenuineIntel',
  cpuFeatures: ['avx2', 'sse4_2'],
  xcr0: '0xe7',
}
const RANGES = [
  { first: 0x10000, pages: 3, birth: 2, moves: 5 },
  { first: 0x10010, pages: 1, birth: 0, moves: 1 },
]
const messages: PeerMessage[] = [
  { kind: 'hello', instance: '0'.repeat(32), load },
  { kind: 'known', agents: [{ peer: PEER, addresses: ['/ip4/192.0.2.7/tcp/7420'] }] },
  { kind: 'twin-seen', instance: 'f'.repeat(32) },
  { kind: 'twin-claim', claim: new Uint8Array(200) },
  { kind: 'twin-told', claim: new Uint8Array(200), addresses: ['/ip4/192.0.2.7/tcp/7420'] },
  { kind: 'leaving' },
  {
    kind: 'offer',
    processId: PROCESS,
    leaseId: 77,
    program: 'sort',
    homeName: 'a',
    node: 1,
    epoch: 1,
    pages: 4096,
    threads: 2,
    facts,
    laneKey,
  },
  { kind: 'grant', processId: PROCESS, leaseId: 77, terms, host: '10.0.0.2', port: 4000 },
  { kind: 'refuse', processId: PROCESS, leaseId: 77, refusal: { code: 'full', detail: 'no room' } },
  { kind: 'lease-update', processId: PROCESS, leaseId: 77, terms, reason: 'pressure' },
  { kind: 'members', processId: PROCESS, members: [{ node: 1, name: 'b', peer: PEER }] },
  { kind: 'pager-ended', processId: PROCESS, leaseId: 77 },
  { kind: 'probe', probeId: 1, processId: PROCESS, leaseId: 77 },
  { kind: 'probe-for', probeId: 2, peer: PEER, processId: PROCESS, leaseId: 77 },
  { kind: 'probe-answer', probeId: 2, state: 'stalls' },
  { kind: 'lane-ask', processId: PROCESS, leaseId: 78, fromNode: 2, laneKey },
  { kind: 'ping', pingId: 79 },
  { kind: 'pong', pingId: 79 },
  { kind: 'owned', summaries: [{ processId: PROCESS, ranges: RANGES }] },
]
const NOBODY_ELSE = { instance: '0'.repeat(32), claim: new Uint8Array() }
const codec = new AnnouncementCodec(KEY)
const utf8 = new TextEncoder()
const text = (bytes: Uint8Array) => Buffer.from(bytes).toString()
const asText = (lines: readonly string[]) => lines.map(line => utf8.encode(line))
const asJson = (values: readonly unknown[]) => asText(values.map(value => JSON.stringify(value)))

const header = {
  magic: WIRE_MAGIC,
  type: FrameType.get as number,
  flags: 0,
  payloadBytes: 0,
  epoch: 1,
  image: 1,
  count: 2,
  sequence: 1n,
  ack: 0n,
  page: 0x10000n,
  version: 3n,
  lastWrittenCut: 0,
  argument: 1,
}
const metas = encodePageMetas([{ page: 5n, version: 1n, lastWrittenCut: 0, flags: 2, owner: 0 }])
const frames = [
  encodeHeader(header),
  Buffer.concat([
    encodeHeader({ ...header, type: FrameType.push, count: 1, payloadBytes: metas.length }),
    metas,
  ]),
].map(bytes => new Uint8Array(bytes))

/** What is accepted encodes again, to what decodes to the same. */
function comesBack<T>(
  decode: (bytes: Uint8Array) => { kind: string; message?: T },
  encode: (message: T) => Uint8Array,
): (bytes: Uint8Array) => void {
  return bytes => {
    const once = decode(bytes)
    if (once.kind === 'ok') deepStrictEqual(decode(encode(once.message as T)), once)
  }
}

const commands = [
  { kind: 'hello', role: 'agent' },
  {
    kind: 'lane',
    node: 1,
    leaseId: 2,
    pagesMax: 3,
    threadsMax: 4,
    ttlMs: 5,
    port: 6,
    nodeName: 'b',
    host: 'h',
    laneKey,
    peerId: PEER,
  },
  { kind: 'lease-update', leaseId: 1, pagesMax: 2, threadsMax: 3, ttlMs: 4, reason: 'r' },
  { kind: 'signal', signal: 15 },
] as const
const events = [
  { kind: 'lane-down', node: 1, nodeName: 'b', reason: 'silent' },
  {
    kind: 'stats',
    stats: { pulls: 3, participants: [{ node: 'a', peakPages: 1, jumpsTo: 0, threadsPeak: 1 }] },
  },
  { kind: 'exited', how: 'exit', code: 3, childrenLeft: 0, message: '' },
] as const
const hello = { name: 'a', version: '0.1.0', pid: 5, dataDir: '/d', runtimeDir: '/r', spillMaxBytes: 9 }
const home = { id: PROCESS, pagerSocket: '/s', program: 'p', participantsMax: 3, memoryPages: 9, uid: 0 }
const toml = 'name = "a"\nlisten = ["/ip4/0.0.0.0/tcp/7420"]\ndiscovery = false\ncapacity = "512M"\n'

function jsonOf(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(text(bytes))
  } catch {
    return undefined
  }
}

const NETWORK: readonly Decoder[] = [
  {
    name: 'peer-message',
    samples: messages.map(encodeMessage),
    judge: comesBack(decodeMessage, encodeMessage),
  },
  { name: 'load', samples: [encodeLoad(load)], judge: comesBack(decodeLoad, encodeLoad) },
  {
    name: 'announcement',
    samples: [codec.encode({ ...NOBODY_ELSE, peer: PEER, name: 'a', addresses: ['/ip4/10.0.0.1/tcp/7420'] })],
    judge: bytes => {
      const heard = codec.decode(bytes)
      if (heard.kind === 'ours') deepStrictEqual(codec.decode(codec.encode(heard.announcement)), heard)
    },
  },
  {
    name: 'lane-frame',
    samples: frames,
    judge: bytes => {
      const read = readFrame(bytes)
      if (read.kind === 'refused' || read.header.type !== FrameType.push) return
      deepStrictEqual(decodePageMetas(read.payload, read.header.count).length, read.header.count)
    },
  },
]

const PAGER: readonly Decoder[] = [
  {
    name: 'pager-command',
    samples: commands.map(command => encodePagerCommand(command).slice(4)),
    judge: comesBack(decodePagerCommand, command => encodePagerCommand(command).slice(4)),
  },
  {
    name: 'pager-event',
    samples: events.map(event => encodePagerEvent(event).slice(4)),
    judge: bytes => void decodePagerEvent(bytes),
  },
  {
    name: 'pager-stream',
    samples: [new Uint8Array(Buffer.concat(commands.map(encodePagerCommand)))],
    judge: bytes => {
      const splitter = new FrameSplitter()
      const cut = bytes.length >> 1
      for (const part of [bytes.subarray(0, cut), bytes.subarray(cut)])
        if (splitter.push(part).kind === 'malformed') return
    },
  },
]

const CONTROL: readonly Decoder[] = [
  {
    name: 'control-request',
    samples: asJson([
      { n: 1, request: { op: 'attach', home } },
      { n: 2, request: { op: 'stop', processId: PROCESS, reason: 'enough' } },
    ]),
    judge: bytes => void decodeLine(requestSchema, text(bytes)),
  },
  {
    name: 'control-reply',
    samples: asJson([
      { n: 1, answer: hello },
      { n: 2, refused: 'no' },
      { event: 'participants', processId: PROCESS, count: 2 },
    ]),
    judge: bytes => {
      const reply = decodeReply(text(bytes))
      if (reply !== undefined && 'answer' in reply) readHello(reply.answer)
    },
  },
  {
    name: 'control-stream',
    samples: asText([`${JSON.stringify({ n: 1, refused: 'no' })}\n{}\n`]),
    judge: bytes => {
      const lines = new LineSplitter().push(text(bytes))
      for (const line of lines ?? []) decodeReply(line)
    },
  },
]

const LOCAL: readonly Decoder[] = [
  {
    name: 'facts',
    samples: asJson([facts]),
    judge: bytes => void parseFacts(jsonOf(bytes)),
  },
  {
    name: 'pager-stats',
    samples: asJson([events[1].stats]),
    judge: bytes => void parsePagerStats(text(bytes)),
  },
  {
    name: 'key',
    samples: asText([KEY.file, `${KEY.file}\n`]),
    judge: bytes => {
      const key = parseKey(text(bytes))
      if (key !== undefined) deepStrictEqual(parseKey(key.file), key)
    },
  },
  {
    name: 'values',
    samples: asText([
      '512M',
      '5s',
      'multinode-adaptive-lru:window=10,threshold=0.2',
      '/ip4/10.0.0.1/tcp/7420',
    ]),
    judge: bytes => {
      const value = text(bytes)
      parseSize(value)
      parseDuration(value)
      parsePolicy(value)
      toEndpoint(value)
    },
  },
]

/** `directory`: where the file that is read lies. */
function configDecoder(directory: string): Decoder {
  const configFile = join(directory, 'agent.toml')
  return {
    name: 'config',
    samples: asText([toml, '[x]\nname = 3\n']),
    judge: bytes => {
      writeFileSync(configFile, bytes)
      try {
        readConfig(configFile)
      } catch (error) {
        if (!(error instanceof CliFailure) || error.message.includes('\n')) throw error
      }
    },
  }
}

/** All of them. `directory`: where files that are read may lie. */
export function decoders(directory: string): readonly Decoder[] {
  return [...NETWORK, ...PAGER, ...CONTROL, ...LOCAL, configDecoder(directory)]
}
