/**
 * The messages between agents: one closed union and its only codec. CBOR, one message per length-prefixed frame.
 *
 * Decoding is strict: unknown kinds, missing and left-over fields, duplicate keys, floats, numbers and texts out of
 * range are refused, and it never throws. A malformed message closes the stream it came from; the other side is
 * either broken or hostile.
 * Answers name the lease id of what they answer, which serves as request id: lease ids are chosen at random by the
 * side that asks and never used twice; so are probe ids. Time-outs are the state machines' business.
 *
 * Limits: 64 KiB a message; 8 addresses an agent; 64 nodes a process; 512 CPU features; ownership of 8
 * processes, of each 64 ranges.
 */

import { decode, encode } from 'cborg'
import { z } from 'zod'
import { areOwnedRanges, OWNED_RANGES_MAX } from '../../kmod/ownership/hints.js'
import type { Load } from '../machines/membership.js'
import { SUMMARIES_MAX } from '../machines/ownership-gossip.js'
import {
  type CompatibilityFacts,
  NODE_NAME_PATTERN,
  NODES_MAX,
  PEER_ID_PATTERN,
  type PeerId,
  PROCESS_ID_PATTERN,
  type ProcessId,
} from '../machines/types.js'
import { CLAIM_BYTES_MAX, INSTANCE_PATTERN } from './twins.js'

export const MESSAGE_BYTES_MAX = 64 * 1024
export const LANE_KEY_BYTES = 32
/** Agents that one introduces to another. */
export const KNOWN_MAX = 32
/** A load message is gossiped every second: an address or two of 8 at most, and numbers. */
export const LOAD_BYTES_MAX = 2048

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const small = z.number().int().min(0).max(1_000_000)
const node = z
  .number()
  .int()
  .min(0)
  .max(NODES_MAX - 1)
const port = z.number().int().min(1).max(65_535)
const name = z.string().regex(NODE_NAME_PATTERN)
const peer = z
  .string()
  .regex(PEER_ID_PATTERN)
  .transform(text => text as PeerId)
const processId = z
  .string()
  .regex(PROCESS_ID_PATTERN)
  .transform(text => text as ProcessId)
/** Text for people: no control characters, so that it cannot drive a terminal. */
const line = z
  .string()
  .max(400)
  .regex(/^\P{Cc}*$/u)
const program = z
  .string()
  .max(4096)
  .regex(/^\P{Cc}*$/u)
const address = z
  .string()
  .min(1)
  .max(200)
  .regex(/^[\x21-\x7e]+$/)
const host = z
  .string()
  .max(64)
  .regex(/^[0-9a-fA-F.:]*$/)
/** Not zod's `readonly()`: it freezes what it gets before it is known to be an array, and throws on bytes. */
const listOf = <T extends z.ZodType>(item: T, most: number) =>
  z
    .array(item)
    .max(most)
    .transform((all): readonly z.output<T>[] => all)
const laneKey = z.instanceof(Uint8Array).refine(key => key.length === LANE_KEY_BYTES)
const instance = z.string().regex(INSTANCE_PATTERN)
const claim = z.instanceof(Uint8Array).refine(bytes => bytes.length <= CLAIM_BYTES_MAX)
const terms = z.strictObject({ pages: count, threads: small, ttlMs: small })
const refusal = z.strictObject({
  code: z.enum([
    'full',
    'incompatible',
    'not-allowed',
    'shutting-down',
    'stale-epoch',
    'too-many-processes',
    'already-participant',
    'lane-failed',
    'pager-failed',
    'timeout',
  ]),
  detail: line,
})

const load = z.strictObject({
  name,
  incarnation: count,
  sequence: count,
  freePages: count,
  capacityPages: count,
  cpus: small,
  processes: small,
  addresses: listOf(address, 8),
  nextMs: z.number().int().min(1).max(600_000),
})

const factsSchema = z.strictObject({
  protocolVersion: small,
  pageSize: z
    .number()
    .int()
    .min(4096)
    .max(1 << 20),
  arch: line,
  kernel: line,
  cpuVendor: line,
  cpuFeatures: listOf(z.string().regex(/^[a-z0-9_.]{1,32}$/), 512),
  xcr0: z.string().regex(/^0x[0-9a-fA-F]{1,16}$/),
})

const known = z.strictObject({ peer, addresses: listOf(address, 8) })
const member = z.strictObject({ node, name, peer })
const ownedRange = z.strictObject({ first: count, pages: count, birth: count, moves: count })
const ownedSummary = z.strictObject({
  processId,
  ranges: listOf(ownedRange, OWNED_RANGES_MAX).refine(areOwnedRanges),
})

const message = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('hello'), instance, load }),
  z.strictObject({ kind: z.literal('known'), agents: listOf(known, KNOWN_MAX) }),
  z.strictObject({ kind: z.literal('twin-seen'), instance }),
  z.strictObject({ kind: z.literal('twin-claim'), claim }),
  z.strictObject({ kind: z.literal('twin-told'), claim, addresses: listOf(address, 8) }),
  z.strictObject({ kind: z.literal('leaving') }),
  z.strictObject({
    kind: z.literal('offer'),
    processId,
    leaseId: count,
    program,
    homeName: name,
    node,
    epoch: count,
    pages: count,
    threads: small,
    facts: factsSchema,
    laneKey,
  }),
  z.strictObject({ kind: z.literal('grant'), processId, leaseId: count, terms, host, port }),
  z.strictObject({ kind: z.literal('refuse'), processId, leaseId: count, refusal }),
  z.strictObject({ kind: z.literal('lease-update'), processId, leaseId: count, terms, reason: line }),
  z.strictObject({ kind: z.literal('release'), processId, leaseId: count, homeEnded: z.boolean() }),
  z.strictObject({
    kind: z.literal('members'),
    processId,
    members: listOf(member, NODES_MAX),
  }),
  z.strictObject({ kind: z.literal('owned'), summaries: listOf(ownedSummary, SUMMARIES_MAX) }),
  z.strictObject({ kind: z.literal('lane-ask'), processId, leaseId: count, fromNode: node, laneKey }),
  z.strictObject({ kind: z.literal('lane-agree'), processId, leaseId: count, terms, host, port }),
  z.strictObject({ kind: z.literal('lane-refuse'), processId, leaseId: count, refusal }),
  z.strictObject({ kind: z.literal('pager-ended'), processId, leaseId: count }),
  z.strictObject({ kind: z.literal('probe'), probeId: count, processId, leaseId: count }),
  z.strictObject({ kind: z.literal('probe-for'), probeId: count, peer, processId, leaseId: count }),
  z.strictObject({
    kind: z.literal('probe-answer'),
    probeId: count,
    state: z.enum(['runs', 'stalls', 'ended', 'unknown']),
  }),
  z.strictObject({ kind: z.literal('ping'), pingId: count }),
  z.strictObject({ kind: z.literal('pong'), pingId: count }),
])

/** A message on the stream between two agents. */
export type PeerMessage = z.output<typeof message>

export type Decoded<T> =
  | { readonly kind: 'ok'; readonly message: T }
  | { readonly kind: 'malformed'; readonly reason: string }

const STRICT = { strict: true, allowUndefined: false, allowInfinity: false, allowNaN: false } as const

/** Bytes of a message. Throws RangeError when it is too large (a bug: every field is bounded). */
export function encodeMessage(value: PeerMessage): Uint8Array {
  return bounded(encode(value), MESSAGE_BYTES_MAX)
}

export function decodeMessage(bytes: Uint8Array): Decoded<PeerMessage> {
  return decodeAs(message, bytes, MESSAGE_BYTES_MAX)
}

/** Bytes of a load message, as gossiped. */
export function encodeLoad(value: Load): Uint8Array {
  return bounded(encode(value), LOAD_BYTES_MAX)
}

export function decodeLoad(bytes: Uint8Array): Decoded<Load> {
  return decodeAs(load, bytes, LOAD_BYTES_MAX)
}

/** Whether `value` is a fact sheet of a pager, in the form that peers accept. */
export function parseFacts(value: unknown): CompatibilityFacts | undefined {
  const parsed = factsSchema.safeParse(value)
  return parsed.success ? parsed.data : undefined
}

function bounded(bytes: Uint8Array, bytesMax: number): Uint8Array {
  if (bytes.length > bytesMax) throw new RangeError(`message of ${bytes.length} bytes`)
  return bytes
}

function decodeAs<T>(schema: z.ZodType<T>, bytes: Uint8Array, bytesMax: number): Decoded<T> {
  if (bytes.length > bytesMax) return { kind: 'malformed', reason: `${bytes.length} bytes are too many` }
  let value: unknown
  try {
    value = decode(bytes, { ...STRICT, rejectDuplicateMapKeys: true })
  } catch {
    return { kind: 'malformed', reason: 'not CBOR' }
  }
  const parsed = schema.safeParse(value)
  if (parsed.success) return { kind: 'ok', message: parsed.data }
  const issue = parsed.error.issues[0]
  return {
    kind: 'malformed',
    reason: `${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'unknown'}`.slice(0, 200),
  }
}
