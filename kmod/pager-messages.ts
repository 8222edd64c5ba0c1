/**
 * Messages between a pager and its clients (`run`, agents, observers) over a unix socket: one closed union for each
 * direction and the only codec for them. The C++ side is kmod/pager/src/control.cpp.
 *
 * The form of a frame and its limits are those of pager-frame.ts. Decoding is strict: unknown types, missing and
 * left-over fields, numbers out of range are refused. It never throws: a malformed body is a value with its reason,
 * and the connection it came from has to be closed.
 */

import type { OwnedRange } from './ownership/hints.js'
import { type Describe, describeFields, readDescribe } from './pager-describe.js'
import { type Decoded, encodeFrame, type Fields, Malformed, readBody } from './pager-frame.js'
import { packOwned, unpackOwned } from './pager-owned.js'
import { type PageMap, pageMapText, parsePageMap } from './pager-pages.js'
import { type PagerStats, parsePagerStats } from './pager-stats.js'

export type { Describe, PagerRole } from './pager-describe.js'
export type { Decoded } from './pager-frame.js'
export type { PageMap } from './pager-pages.js'
export type { PagerStats, ParticipantStats } from './pager-stats.js'

export const LANE_KEY_BYTES = 32

export type ClientRole = 'run' | 'agent' | 'observer'
const CLIENT_ROLES: readonly ClientRole[] = ['run', 'agent', 'observer']
export type EndKind = 'exit' | 'signal' | 'failed' | 'cannot-execute' | 'not-found'
const END_KINDS: readonly EndKind[] = ['exit', 'signal', 'failed', 'cannot-execute', 'not-found']
export type LogLevel = 'error' | 'warning' | 'info' | 'debug'
const LOG_LEVELS: readonly LogLevel[] = ['error', 'warning', 'info', 'debug']

export type NodeVerdict = 'dead' | 'stalls' | 'runs'
const NODE_VERDICTS: readonly NodeVerdict[] = ['dead', 'stalls', 'runs']

export type PagerCommand =
  | { readonly kind: 'hello'; readonly role: ClientRole }
  | {
      readonly kind: 'lane'
      readonly node: number
      readonly leaseId: number
      readonly pagesMax: number
      readonly threadsMax: number
      readonly ttlMs: number
      /** 0: this side accepts, the other dials. */
      readonly port: number
      readonly nodeName: string
      readonly host: string
      readonly laneKey: Uint8Array
      readonly peerId: string
    }
  | {
      readonly kind: 'lease-update'
      readonly leaseId: number
      readonly pagesMax: number
      readonly threadsMax: number
      /** 0: revoked. */
      readonly ttlMs: number
      readonly reason: string
    }
  | { readonly kind: 'participant-drop'; readonly node: number }
  /**
   * What the silence of a node means. One that stalls or runs is waited for, 2 s from each verdict; to one that runs
   * connections are made anew.
   */
  | {
      readonly kind: 'node-verdict'
      readonly node: number
      readonly leaseId: number
      readonly verdict: NodeVerdict
      readonly reason: string
    }
  /** Of a home pager: the most memory from now on. A lower one comes into force as pages find a place elsewhere. */
  | { readonly kind: 'limit'; readonly pages: number }
  /** Of a peer pager: the processor time that its guests may use, in thousandths of one processor's; 0: no bound. */
  | { readonly kind: 'processors'; readonly thousandths: number }
  | { readonly kind: 'stats-request' }
  | { readonly kind: 'terminate'; readonly reason: string }
  | { readonly kind: 'lane-refused'; readonly node: number; readonly reason: string }
  | { readonly kind: 'start' }
  | { readonly kind: 'signal'; readonly signal: number }
  /** Of a home pager; answered with `pages` after a walk over its table, in parts. */
  | { readonly kind: 'pages-request' }
  /** Answered with `owned`, after a walk over the table that takes a hundredth of the pager's time. */
  | { readonly kind: 'owned-request' }
  /** What another node says that it owns, instead of what it said before: where to ask first, if that is no news. */
  | { readonly kind: 'hints'; readonly node: number; readonly ranges: readonly OwnedRange[] }

export type PagerEvent =
  | { readonly kind: 'describe'; readonly describe: Describe }
  | { readonly kind: 'stats'; readonly stats: PagerStats }
  | { readonly kind: 'lane-up'; readonly node: number; readonly nodeName: string }
  | { readonly kind: 'lane-down'; readonly node: number; readonly nodeName: string; readonly reason: string }
  | {
      readonly kind: 'lane-wanted'
      readonly node: number
      readonly nodeName: string
      readonly peerId: string
    }
  | {
      readonly kind: 'exited'
      readonly how: EndKind
      readonly code: number
      /** Children of the program that live on; while there are any the pager stays, as their tracer. */
      readonly childrenLeft: number
      readonly message: string
    }
  | { readonly kind: 'log'; readonly level: LogLevel; readonly text: string }
  | { readonly kind: 'room-wanted'; readonly pages: number }
  | { readonly kind: 'started'; readonly appPid: number }
  | { readonly kind: 'lease-renewed'; readonly leaseId: number; readonly expiresInMs: number }
  | { readonly kind: 'pages'; readonly map: PageMap }
  /** The largest ranges of pages that are at this node; none where no thread ever leaves home. */
  | { readonly kind: 'owned'; readonly ranges: readonly OwnedRange[] }
  /** Every 100 ms from half a second of silence on; 0: it is heard again. */
  | {
      readonly kind: 'node-silent'
      readonly node: number
      readonly leaseId: number
      readonly silentMs: number
    }

const TYPE = {
  hello: 1,
  lane: 2,
  'lease-update': 3,
  'participant-drop': 4,
  'stats-request': 5,
  terminate: 6,
  'lane-refused': 7,
  start: 8,
  signal: 9,
  'pages-request': 10,
  'node-verdict': 30,
  limit: 40,
  processors: 41,
  'owned-request': 50,
  hints: 51,
  describe: 101,
  stats: 102,
  'lane-up': 103,
  'lane-down': 104,
  'lane-wanted': 105,
  exited: 106,
  log: 107,
  'room-wanted': 108,
  started: 109,
  'lease-renewed': 110,
  pages: 111,
  'node-silent': 130,
  owned: 150,
} as const satisfies Record<PagerCommand['kind'] | PagerEvent['kind'], number>

/** The whole frame of a command. Throws RangeError on values no frame can carry (a bug of the caller). */
export function encodePagerCommand(command: PagerCommand): Uint8Array {
  const type = TYPE[command.kind]
  switch (command.kind) {
    case 'hello':
      return encodeFrame(type, [CLIENT_ROLES.indexOf(command.role)], [])
    case 'lane': {
      const { node, leaseId, pagesMax, threadsMax, ttlMs, port, nodeName, host, laneKey, peerId } = command
      if (laneKey.length !== LANE_KEY_BYTES) throw new RangeError(`lane key of ${laneKey.length} bytes`)
      return encodeFrame(
        type,
        [node, leaseId, pagesMax, threadsMax, ttlMs, port],
        [nodeName, host, laneKey, peerId],
      )
    }
    case 'lease-update':
      return encodeFrame(
        type,
        [command.leaseId, command.pagesMax, command.threadsMax, command.ttlMs],
        [command.reason],
      )
    case 'participant-drop':
      return encodeFrame(type, [command.node], [])
    case 'node-verdict':
      return encodeFrame(
        type,
        [command.node, command.leaseId, NODE_VERDICTS.indexOf(command.verdict)],
        [command.reason],
      )
    case 'limit':
      return encodeFrame(type, [command.pages], [])
    case 'processors':
      return encodeFrame(type, [command.thousandths], [])
    case 'hints':
      return encodeFrame(type, [command.node], [packOwned(command.ranges)])
    case 'terminate':
      return encodeFrame(type, [], [command.reason])
    case 'lane-refused':
      return encodeFrame(type, [command.node], [command.reason])
    case 'signal':
      return encodeFrame(type, [command.signal], [])
    case 'stats-request':
    case 'pages-request':
    case 'owned-request':
    case 'start':
      return encodeFrame(type, [], [])
  }
}

/** Reads the body of a command frame (without its length). */
export function decodePagerCommand(body: Uint8Array): Decoded<PagerCommand> {
  return readBody<PagerCommand>(body, fields => {
    switch (fields.type) {
      case TYPE.hello:
        return { kind: 'hello', role: fields.choice(CLIENT_ROLES) }
      case TYPE.lane:
        return readLane(fields)
      case TYPE['lease-update']:
        return {
          kind: 'lease-update',
          leaseId: fields.count(),
          pagesMax: fields.count(),
          threadsMax: fields.count(),
          ttlMs: fields.count(),
          reason: fields.text(),
        }
      case TYPE['participant-drop']:
        return { kind: 'participant-drop', node: fields.count() }
      case TYPE['node-verdict']:
        return {
          kind: 'node-verdict',
          node: fields.count(),
          leaseId: fields.count(),
          verdict: fields.choice(NODE_VERDICTS),
          reason: fields.text(),
        }
      case TYPE.limit:
        return { kind: 'limit', pages: fields.count(1) }
      case TYPE.processors:
        return { kind: 'processors', thousandths: fields.count() }
      case TYPE['stats-request']:
        return { kind: 'stats-request' }
      case TYPE['pages-request']:
        return { kind: 'pages-request' }
      case TYPE['owned-request']:
        return { kind: 'owned-request' }
      case TYPE.hints:
        return { kind: 'hints', node: fields.count(), ranges: readOwned(fields) }
      case TYPE.terminate:
        return { kind: 'terminate', reason: fields.text() }
      case TYPE['lane-refused']:
        return { kind: 'lane-refused', node: fields.count(), reason: fields.text() }
      case TYPE.start:
        return { kind: 'start' }
      case TYPE.signal:
        return { kind: 'signal', signal: fields.count(1) }
      default:
        throw new Malformed(`unknown command ${fields.type}`)
    }
  })
}

function readOwned(fields: Fields): readonly OwnedRange[] {
  const ranges = unpackOwned(fields.bytes())
  if (ranges === undefined) throw new Malformed('no ranges of pages')
  return ranges
}

function readLane(fields: Fields): PagerCommand {
  const lane = {
    kind: 'lane',
    node: fields.count(),
    leaseId: fields.count(),
    pagesMax: fields.count(),
    threadsMax: fields.count(),
    ttlMs: fields.count(),
    port: fields.port(),
    nodeName: fields.name(),
    host: fields.name(),
    laneKey: Uint8Array.from(fields.bytes()),
    peerId: fields.name(),
  } as const
  if (lane.laneKey.length !== LANE_KEY_BYTES) throw new Malformed('lane key has the wrong length')
  return lane
}

/** The whole frame of an event (the pager's side: used by tests and by pagers written in TypeScript). */
export function encodePagerEvent(event: PagerEvent): Uint8Array {
  const type = TYPE[event.kind]
  switch (event.kind) {
    case 'describe':
      return encodeFrame(type, ...describeFields(event.describe))
    case 'stats':
      return encodeFrame(type, [], [JSON.stringify(event.stats)])
    case 'lane-up':
      return encodeFrame(type, [event.node], [event.nodeName])
    case 'lane-down':
      return encodeFrame(type, [event.node], [event.nodeName, event.reason])
    case 'lane-wanted':
      return encodeFrame(type, [event.node], [event.nodeName, event.peerId])
    case 'exited':
      return encodeFrame(
        type,
        [END_KINDS.indexOf(event.how), event.code, event.childrenLeft],
        [event.message],
      )
    case 'log':
      return encodeFrame(type, [LOG_LEVELS.indexOf(event.level)], [event.text])
    case 'room-wanted':
      return encodeFrame(type, [event.pages], [])
    case 'started':
      return encodeFrame(type, [event.appPid], [])
    case 'lease-renewed':
      return encodeFrame(type, [event.leaseId, event.expiresInMs], [])
    case 'pages':
      return encodeFrame(type, [], [pageMapText(event.map)])
    case 'owned':
      return encodeFrame(type, [], [packOwned(event.ranges)])
    case 'node-silent':
      return encodeFrame(type, [event.node, event.leaseId, event.silentMs], [])
  }
}

/** Statistics are for people: those that make no sense are passed over, and are no reason to give up a pager. */
export type DecodedEvent = Decoded<PagerEvent> | { readonly kind: 'unusable'; readonly reason: string }

/** Reads the body of an event frame (without its length). */
export function decodePagerEvent(body: Uint8Array): DecodedEvent {
  let unusable: string | undefined
  const decoded = readBody<PagerEvent>(body, fields => {
    switch (fields.type) {
      case TYPE.describe:
        return { kind: 'describe', describe: readDescribe(fields) }
      case TYPE.stats: {
        const stats = parsePagerStats(fields.name())
        if (typeof stats !== 'string') return { kind: 'stats', stats }
        unusable = `statistics: ${stats}`
        return { kind: 'stats', stats: {} }
      }
      case TYPE['lane-up']:
        return { kind: 'lane-up', node: fields.count(), nodeName: fields.name() }
      case TYPE['lane-down']:
        return { kind: 'lane-down', node: fields.count(), nodeName: fields.name(), reason: fields.text() }
      case TYPE['lane-wanted']:
        return { kind: 'lane-wanted', node: fields.count(), nodeName: fields.name(), peerId: fields.name() }
      case TYPE.exited:
        return {
          kind: 'exited',
          how: fields.choice(END_KINDS),
          code: fields.integer(),
          childrenLeft: fields.count(),
          message: fields.text(),
        }
      case TYPE.log:
        return { kind: 'log', level: fields.choice(LOG_LEVELS), text: fields.text() }
      case TYPE['room-wanted']:
        return { kind: 'room-wanted', pages: fields.count() }
      case TYPE.started:
        return { kind: 'started', appPid: fields.count(1) }
      case TYPE['lease-renewed']:
        return { kind: 'lease-renewed', leaseId: fields.count(), expiresInMs: fields.count() }
      case TYPE.pages: {
        const map = parsePageMap(fields.name())
        if (typeof map === 'string') throw new Malformed(`pages: ${map}`)
        return { kind: 'pages', map }
      }
      case TYPE.owned:
        return { kind: 'owned', ranges: readOwned(fields) }
      case TYPE['node-silent']:
        return {
          kind: 'node-silent',
          node: fields.count(),
          leaseId: fields.count(),
          silentMs: fields.count(),
        }
      default:
        throw new Malformed(`unknown event ${fields.type}`)
    }
  })
  return decoded.kind === 'ok' && unusable !== undefined ? { kind: 'unusable', reason: unusable } : decoded
}
