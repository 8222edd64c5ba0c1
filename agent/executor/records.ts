/**
 * What an agent has to remember of its running pagers over its own death: who is at the other end of which lease.
 * The pagers know pages and lanes, but not peers. Small JSON files (0600) in `<runtime>/leases`, replaced whole; no
 * secrets in them (lane keys are needed once and forgotten).
 *
 * Limits: a file that cannot be read or is malformed counts as missing; 64 KiB each. One that cannot be written (disk
 * full) is missing or old after a restart; that is said once, and each later change tries again.
 */

import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { EXCEPTIONS_MAX } from '../machines/choice.js'
import {
  NODES_MAX,
  PEER_ID_PATTERN,
  type PeerId,
  PROCESS_ID_PATTERN,
  type ProcessId,
} from '../machines/types.js'
import type { Logger } from '../service.js'

const RECORD_BYTES_MAX = 64 * 1024

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const text = z.string().max(4096)
const peer = z
  .string()
  .regex(PEER_ID_PATTERN)
  .transform(value => value as PeerId)
const processId = z
  .string()
  .regex(PROCESS_ID_PATTERN)
  .transform(value => value as ProcessId)
const node = z
  .number()
  .int()
  .min(0)
  .max(NODES_MAX - 1)

const named = z.array(peer).max(EXCEPTIONS_MAX).readonly()

const homeRecord = z.strictObject({
  attachment: z.strictObject({
    id: processId,
    pagerSocket: text,
    program: text,
    participantsMax: count,
    memoryPages: count,
    memoryFollows: z.boolean().optional(),
    uid: count,
  }),
  participants: z.array(z.strictObject({ peer, name: text, node, leaseId: count })).max(NODES_MAX),
  choices: z
    .strictObject({ asksAll: z.boolean(), exceptions: named, stretched: named.default([]) })
    .optional(),
})

const peerRecord = z.strictObject({
  processId,
  peer,
  homeName: text,
  program: text,
  leaseId: count,
  node,
  pages: count,
  pagesMax: count.optional(),
  threads: count,
  laneHost: text,
  members: z.array(z.strictObject({ node, name: text, peer })).max(NODES_MAX),
})

export type HomeRecord = z.output<typeof homeRecord>
export type PeerRecord = z.output<typeof peerRecord>

export class Records {
  readonly #directory: string
  readonly #log: Logger
  #failing = false

  constructor(runtimeDir: string, log: Logger) {
    this.#log = log
    this.#directory = join(runtimeDir, 'leases')
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 })
  }

  home(id: ProcessId): HomeRecord | undefined {
    return this.#read(homeRecord, this.#path(id, 'home'))
  }

  peer(id: ProcessId): PeerRecord | undefined {
    return this.#read(peerRecord, this.#path(id, 'peer'))
  }

  saveHome(record: HomeRecord): void {
    this.#write(this.#path(record.attachment.id, 'home'), record)
  }

  savePeer(record: PeerRecord): void {
    this.#write(this.#path(record.processId, 'peer'), record)
  }

  remove(id: ProcessId, role: 'home' | 'peer'): void {
    try {
      rmSync(this.#path(id, role), { force: true })
    } catch (error) {
      this.#log.debug(`${id}: its record stays: ${String(error)}`)
    }
  }

  /** Ids that have a record of this role. */
  ids(role: 'home' | 'peer'): ProcessId[] {
    const suffix = `.${role}.json`
    return readdirSync(this.#directory)
      .filter(name => name.endsWith(suffix))
      .map(name => name.slice(0, -suffix.length))
      .filter(id => PROCESS_ID_PATTERN.test(id)) as ProcessId[]
  }

  #path(id: ProcessId, role: 'home' | 'peer'): string {
    return join(this.#directory, `${id}.${role}.json`)
  }

  #read<T>(schema: z.ZodType<T>, path: string): T | undefined {
    try {
      if (statSync(path).size > RECORD_BYTES_MAX) return undefined
      const parsed = schema.safeParse(JSON.parse(readFileSync(path, 'utf8')))
      return parsed.success ? parsed.data : undefined
    } catch {
      return undefined
    }
  }

  #write(path: string, record: HomeRecord | PeerRecord): void {
    const scratch = `${path}.new`
    try {
      writeFileSync(scratch, JSON.stringify(record), { mode: 0o600 })
      renameSync(scratch, path)
      this.#failing = false
    } catch (error) {
      if (!this.#failing)
        this.#log.warn(`leases are not recorded, a restart would not find them: ${String(error)}`)
      this.#failing = true
    }
  }
}
