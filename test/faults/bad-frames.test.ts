/**
 * Frames that no honest node sends, from one that has the right lane key, against real pagers: what is malformed or out
 * of order ends the lane, what is of another epoch or not the sender's to say is left out; both are counted and logged,
 * and neither harms the pager. (Home reads lanes by the same code; kmod/pager/fuzz feeds its engine.)
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import {
  encodePageMetas,
  encodeRegion,
  encodeStatus,
  FrameType,
  PAYLOAD_BYTES_MAX,
  PageFlag,
  RegionKind,
} from '../../kmod/lane-frames.js'
import { PagerClient } from '../../kmod/pager-client.js'
import type { PagerEvent } from '../../kmod/pager-messages.js'
import { dialLane, type LaneEnd } from '../helpers/lane-end.js'
import { PAGER } from '../helpers/native.js'
import { until } from '../helpers/outcome.js'

const ID = '00112233aabbccdd'
const ID_NUMBER = 0x00112233aabbccddn
const PAGES = 4096
const TERMS = { pagesMax: PAGES, threadsMax: 4, ttlMs: 60_000, peerId: 'x' } as const
/** As often as a pager says how much room it has. */
const STATUS_MS = 100
const TIMEOUT_MS = 120_000
const NOBODYS_PAGE = 0x7000_0000n

interface Lanes {
  readonly urgent: LaneEnd
  readonly bulk: LaneEnd
}

interface Case {
  readonly name: string
  readonly say: (lanes: Lanes) => void
  /** What the log says of it; nothing: nobody takes note. */
  readonly logged?: RegExp
  /** It ends the lane. */
  readonly ends: boolean
}

const NO_ROOM = { pagesResident: 0n, pagesLimit: 0n, pagesSpilled: 0n, threadsRunning: 0, pagesTaken: 0 }

const zeroPage = (page: bigint, version = 1n) =>
  encodePageMetas([{ page, version, lastWrittenCut: 0, flags: PageFlag.zero, owner: 0 }])
const region = encodeRegion({
  startPage: 0x10000n,
  pageCount: 4n,
  prot: 3,
  kind: RegionKind.elastic,
  birthVersion: 0n,
})

/** The same for every pager. */
const MALFORMED: readonly Case[] = [
  {
    name: 'garbage',
    say: ({ urgent }) => urgent.write(new Uint8Array(300).fill(0x5a)),
    logged: /malformed frame: bad magic/,
    ends: true,
  },
  {
    name: 'an oversized frame',
    say: ({ bulk }) => bulk.send(FrameType.push, undefined, { payloadBytes: PAYLOAD_BYTES_MAX + 1 }),
    logged: /malformed frame: payload too large/,
    ends: true,
  },
  {
    name: 'a truncated frame',
    say: ({ urgent, bulk }) => {
      urgent.send(FrameType.bye, undefined, { payloadBytes: 1000 })
      urgent.socket.end()
      bulk.socket.end()
    },
    ends: true,
  },
  {
    name: 'a duplicated frame',
    say: ({ urgent }) => {
      const frame = urgent.frame(FrameType.get, undefined, { page: NOBODYS_PAGE, count: 1 })
      urgent.write(frame)
      urgent.write(frame)
    },
    logged: /malformed frame: frame out of sequence/,
    ends: true,
  },
  {
    name: 'a replayed push',
    say: ({ bulk }) => {
      const frame = bulk.frame(FrameType.push, zeroPage(NOBODYS_PAGE), { count: 1 })
      bulk.write(frame)
      bulk.send(FrameType.push, zeroPage(NOBODYS_PAGE + 1n), { count: 1 })
      bulk.write(frame)
    },
    logged: /malformed frame: frame out of sequence/,
    ends: true,
  },
  {
    name: 'an acknowledgement of what was never sent',
    say: ({ urgent }) => urgent.send(FrameType.stats, undefined, { ack: 1n << 40n }),
    logged: /malformed frame: acknowledges what was not sent/,
    ends: true,
  },
  {
    name: 'page metas that do not fit',
    say: ({ bulk }) => bulk.send(FrameType.push, zeroPage(NOBODYS_PAGE), { count: 2 }),
    logged: /malformed frame: payload shorter than its page metas/,
    ends: true,
  },
  {
    name: 'a frame of another epoch',
    say: ({ bulk }) => bulk.send(FrameType.push, zeroPage(NOBODYS_PAGE), { count: 1, epoch: 2 }),
    logged: /a frame of another epoch/,
    ends: false,
  },
  {
    name: 'a frame of another image',
    say: ({ bulk }) => bulk.send(FrameType.push, zeroPage(NOBODYS_PAGE), { count: 1, image: 7 }),
    ends: false,
  },
]

/** What it did not ask for, and what only home says. */
const FROM_PARTICIPANT: readonly Case[] = [
  {
    name: 'pages that nobody asked for',
    say: ({ urgent, bulk }) => {
      urgent.send(FrameType.pages, zeroPage(0x7fff_ffff_0n), { count: 1 })
      bulk.send(FrameType.push, zeroPage(0x400n, 1n << 40n), { count: 1 })
    },
    ends: false,
  },
  {
    name: 'what only home says',
    say: ({ urgent }) => {
      urgent.send(FrameType.jump, new Uint8Array(2000), { argument: 99 })
      urgent.send(FrameType.map, region)
      urgent.send(FrameType.drop, undefined, { page: 0x400n, count: 1, argument: 1 })
      urgent.send(FrameType.reset, undefined, { argument: 9 })
      urgent.send(FrameType.layoutAck, undefined, { argument: 99 })
      urgent.send(FrameType.owner, undefined, { page: 0x400n, count: 1, version: 9n, argument: 1 })
    },
    ends: false,
  },
]

async function startPager(
  t: ExecutionContext,
  args: readonly string[],
): Promise<{ child: ChildProcess; client: PagerClient; events: PagerEvent[] }> {
  const directory = mkdtempSync('/tmp/el-bad-')
  const socket = join(directory, 'pager.sock')
  const spill = join(directory, 'spill')
  mkdirSync(spill)
  const fixed = ['--id', ID, '--socket', socket, '--spill-dir', spill, '--memory-pages', String(PAGES)]
  const child = spawn(PAGER, ['peer', ...fixed, ...args], { stdio: ['ignore', 'ignore', 'inherit'] })
  t.teardown(() => {
    child.kill('SIGKILL')
    rmSync(directory, { recursive: true, force: true })
  })
  let client: PagerClient | undefined
  await until('the pager', async () => {
    client = await PagerClient.connect(socket, 'agent').catch(() => undefined)
    return client !== undefined
  })
  if (client === undefined) throw new Error('unreachable')
  const events: PagerEvent[] = []
  client.on(event => events.push(event))
  return { child, client, events }
}

/** Goes on as an honest node does. Resolves when `done`. */
async function talkUntil(
  { urgent }: Lanes,
  what: string,
  done: () => boolean | Promise<boolean>,
): Promise<void> {
  const talk = setInterval(() => urgent.send(FrameType.status, encodeStatus(NO_ROOM)), STATUS_MS)
  try {
    await until(what, done, 20_000)
  } finally {
    clearInterval(talk)
  }
}

/** The pager takes note of the case as it should. `ended`: the lane has. */
async function expectJudged(
  t: ExecutionContext,
  each: Case,
  lanes: Lanes,
  pager: { client: PagerClient; events: PagerEvent[] },
  ended: () => boolean,
): Promise<void> {
  const refused = async () => Number((await pager.client.requestStats()).framesRefused ?? 0)
  const before = await refused()
  pager.events.length = 0
  each.say(lanes)
  const { logged } = each
  const isLogged = () => pager.events.some(event => event.kind === 'log' && logged?.test(event.text))
  if (logged !== undefined) await talkUntil(lanes, `${each.name}: the log`, isLogged)
  if (each.ends) return await talkUntil(lanes, `${each.name}: the end of the lane`, ended)
  if (logged !== undefined) t.true((await refused()) > before, `${each.name}: counted`)
  let answers = 0
  await talkUntil(lanes, `${each.name}: the lane to go on`, () => ended() || ++answers > 10)
  t.false(ended(), `${each.name}: the lane stays`)
}

/** Greets as node `node` with lease `leaseId`, which the pager knows. */
async function greet(pager: PagerClient, node: number, leaseId: number): Promise<Lanes> {
  const laneKey = new Uint8Array(randomBytes(32))
  pager.send({ kind: 'lane', ...TERMS, leaseId, node, nodeName: `n${node}`, host: '', port: 0, laneKey })
  const port = pager.describe.lanePort
  const urgent = await dialLane(port, leaseId, laneKey)
  const bulk = await dialLane(port, leaseId, laneKey)
  urgent.hello(node, 0, ID_NUMBER, BigInt(leaseId))
  bulk.hello(node, 1, ID_NUMBER, BigInt(leaseId))
  return { urgent, bulk }
}

const startPeer = (t: ExecutionContext) =>
  startPager(t, ['--node', '1', '--name', 'b', '--listen', '127.0.0.1'])

test.serial('a participant bears what another must not say, and stays', async t => {
  t.timeout(TIMEOUT_MS)
  const peer = await startPeer(t)
  const exited = once(peer.child, 'exit')
  const home = await greet(peer.client, 0, 7)
  await talkUntil(home, 'the lane of home', () => peer.events.some(event => event.kind === 'lane-up'))
  const talk = setInterval(() => home.urgent.send(FrameType.status, encodeStatus(NO_ROOM)), STATUS_MS)
  t.teardown(() => clearInterval(talk))
  for (const [index, each] of [...MALFORMED, ...FROM_PARTICIPANT].entries()) {
    const node = index + 2
    const isAbout = (kind: PagerEvent['kind']) =>
      peer.events.some(event => event.kind === kind && 'node' in event && event.node === node)
    const lanes = await greet(peer.client, node, 100 + node)
    await until(`${each.name}: the lane`, () => isAbout('lane-up'))
    await expectJudged(t, each, lanes, peer, () => isAbout('lane-down'))
    lanes.urgent.socket.destroy()
    lanes.bulk.socket.destroy()
  }
  home.urgent.send(FrameType.bye)
  const [status] = await exited
  t.is(status, 0)
})

for (const each of [
  ...MALFORMED,
  {
    name: 'a context that is none',
    say: ({ urgent }: Lanes) => urgent.send(FrameType.jump, new Uint8Array(5000).fill(0xff), { argument: 3 }),
    logged: /jump refused: malformed context/,
    ends: false,
  },
  {
    name: 'the same mapping again and again, and what ends a mapping that is not there',
    say: ({ urgent }: Lanes) => {
      for (let i = 0; i < 3; i++) urgent.send(FrameType.map, region)
      urgent.send(FrameType.drop, undefined, { page: NOBODYS_PAGE, count: 5, argument: 1 })
    },
    ends: false,
  },
]) {
  test.serial(`a participant bears what home must not say: ${each.name}`, async t => {
    t.timeout(TIMEOUT_MS)
    const peer = await startPeer(t)
    const exited = once(peer.child, 'exit')
    const lanes = await greet(peer.client, 0, 7)
    await until('the lane', () => peer.events.some(event => event.kind === 'lane-up'))
    const ended = () => peer.child.exitCode !== null || peer.child.signalCode !== null
    await expectJudged(t, each, lanes, peer, ended)
    if (!each.ends) lanes.urgent.send(FrameType.bye)
    const [status] = await exited
    t.is(status, each.ends ? 1 : 0)
  })
}
