/**
 * Messages between the command line and an agent over its control socket: newline-delimited JSON, one request or
 * answer a line. The schemas of requests and answers; the envelope of an answer and `hello` are in reply.ts.
 *
 * Every request has a number chosen by the client; its answer carries the same number. `watch` alone is followed by
 * events (lines without a number). Limits: a line is at most 1 MiB, lists at most 4096 long; a line that does not
 * parse ends the connection it came from.
 */

import { z } from 'zod'

const LIST_MAX = 4096
const NODE_NAME_MAX = 256

const text = z.string().max(4096)
const count = z.int().nonnegative()
export const processIdSchema = z
  .string()
  .regex(/^[0-9a-f]{16}$/, 'an elastic process id has 16 hexadecimal digits')

/** A node's name or peer id. */
const nodeNameSchema = z.string().min(1).max(NODE_NAME_MAX)

export const homeAttachmentSchema = z.strictObject({
  id: processIdSchema,
  pagerSocket: text,
  program: text,
  participantsMax: count.min(1),
  memoryPages: count,
  memoryFollows: z.boolean().optional(),
  uid: count,
})

const requestBodySchema = z.discriminatedUnion('op', [
  z.strictObject({ op: z.literal('hello') }),
  z.strictObject({ op: z.literal('nodes') }),
  z.strictObject({ op: z.literal('processes') }),
  z.strictObject({ op: z.literal('attach'), home: homeAttachmentSchema }),
  z.strictObject({ op: z.literal('watch'), processId: processIdSchema }),
  z.strictObject({ op: z.literal('refusals'), processId: processIdSchema }),
  z.strictObject({ op: z.literal('pages'), processId: processIdSchema }),
  z.strictObject({ op: z.literal('leases'), processId: processIdSchema }),
  z.strictObject({ op: z.literal('contract'), processId: processIdSchema, node: nodeNameSchema.optional() }),
  z.strictObject({ op: z.literal('stretch'), processId: processIdSchema, node: nodeNameSchema }),
  z.strictObject({ op: z.literal('automatic'), processId: processIdSchema }),
  z.strictObject({ op: z.literal('stop'), processId: processIdSchema, reason: text }),
])

export const requestSchema = z.strictObject({ n: count, request: requestBodySchema })
export type ControlRequest = z.infer<typeof requestBodySchema>
export type NumberedRequest = z.infer<typeof requestSchema>

const nodeSchema = z.object({
  name: text,
  peerId: text,
  addresses: z.array(text).max(LIST_MAX),
  self: z.boolean(),
  state: z.enum(['joined', 'suspected', 'seen-not-joined']),
  freePages: count,
  capacityPages: count,
  cpus: count,
  processes: count,
  rttMs: z.number().nonnegative().optional(),
  remedy: text.optional(),
})

const processSchema = z.object({
  id: processIdSchema,
  program: text,
  role: z.enum(['home', 'participant']),
  home: text,
  pid: count,
  residentPages: count,
  participants: z.array(text).max(LIST_MAX),
  stats: z.record(z.string(), z.unknown()).optional(),
})

const leaseSchema = z.object({
  node: text,
  peerId: text,
  state: z.enum(['offered', 'granted', 'up', 'leaving']),
  pages: count,
})

const pageMapSchema = z.object({
  nodes: z
    .array(z.object({ node: text, resident: count, spilled: count, remote: count, inFlight: count }))
    .max(LIST_MAX),
  ranges: z.array(z.object({ first: count, pages: count, place: count, spilled: z.boolean() })).max(LIST_MAX),
  leftOut: z.object({ ranges: count, pages: count }),
})

/** `hello` is checked by hand, see reply.ts. */
export type CheckedOp = Exclude<ControlRequest['op'], 'hello'>

/** What the answer to each request has to look like. */
export const answerSchemas = {
  nodes: z.array(nodeSchema).max(LIST_MAX),
  processes: z.array(processSchema).max(LIST_MAX),
  attach: z.null(),
  watch: z.strictObject({ participants: count }),
  refusals: z.array(text).max(LIST_MAX),
  pages: pageMapSchema,
  leases: z.array(leaseSchema).max(LIST_MAX),
  contract: z.array(leaseSchema).max(LIST_MAX),
  stretch: text,
  automatic: z.null(),
  stop: z.null(),
} as const satisfies Record<CheckedOp, z.ZodType>

export type CheckedAnswer<Op extends CheckedOp> = z.infer<(typeof answerSchemas)[Op]>

/** A line as a message of `schema`, or undefined when it is none. */
export function decodeLine<T>(schema: z.ZodType<T>, line: string): T | undefined {
  try {
    const parsed = schema.safeParse(JSON.parse(line))
    return parsed.success ? parsed.data : undefined
  } catch {
    return undefined
  }
}
