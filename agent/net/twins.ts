/**
 * Two agents with one identity: a data directory was copied, or two have one key file. To all others they are one peer
 * whose messages come from two places, so one of them has to end: the one that started later by what both say of
 * themselves, and of two that started in the same millisecond the one with the larger instance number.
 *
 * An agent ends only on proof: a claim that the identity's own key has signed and that names the instance of the agent
 * that is to end, which was drawn at its start. Nobody else can make one, and a claim that was recorded earlier names
 * another instance; so neither a hostile peer nor an old packet ends an agent, and one that was started again is never
 * taken for its own twin.
 *
 * Limits: clocks that are apart decide wrongly who was first; still only one ends.
 */

import { randomBytes } from 'node:crypto'
import type { PrivateKey } from '@libp2p/interface'
import { decode, encode } from 'cborg'
import { z } from 'zod'

export const CLAIM_BYTES_MAX = 256
export const INSTANCE_PATTERN = /^[0-9a-f]{32}$/
const PURPOSE = Buffer.from('elasticos twin claim 1')

const instance = z.string().regex(INSTANCE_PATTERN)
const bodySchema = z.strictObject({
  incarnation: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER),
  instance,
  sees: instance,
})
const claimSchema = z.strictObject({ body: z.instanceof(Uint8Array), signature: z.instanceof(Uint8Array) })

/** What a claim of an agent with this one's identity means for this one. */
export type Verdict = 'give-way' | 'stay' | 'no-claim'

export class Twins {
  /** Of this agent, drawn at its start. */
  readonly instance = randomBytes(16).toString('hex')
  readonly #identity: PrivateKey
  readonly #incarnation: number
  readonly #onFirst: (addresses: readonly string[]) => void
  #told = false

  /** `onFirst` is told once of an agent with this one's identity that was there first, and of its addresses. */
  constructor(identity: PrivateKey, incarnation: number, onFirst: (addresses: readonly string[]) => void) {
    this.#identity = identity
    this.#incarnation = incarnation
    this.#onFirst = onFirst
  }

  /** Says, signed, that this agent runs and has heard of the one with instance `sees`. */
  async claim(sees: string): Promise<Uint8Array<ArrayBuffer>> {
    const body = encode({ incarnation: this.#incarnation, instance: this.instance, sees })
    const signature = await this.#identity.sign(Buffer.concat([PURPOSE, body]))
    return Uint8Array.from(encode({ body, signature }))
  }

  async judge(claim: Uint8Array): Promise<Verdict> {
    const outer = parse(claimSchema, claim)
    const body = outer === undefined ? undefined : parse(bodySchema, outer.body)
    if (outer === undefined || body === undefined) return 'no-claim'
    if (body.sees !== this.instance || body.instance === this.instance) return 'no-claim'
    const signed = Buffer.concat([PURPOSE, outer.body])
    if (!(await this.#identity.publicKey.verify(signed, outer.signature))) return 'no-claim'
    const apart = body.incarnation - this.#incarnation
    return apart < 0 || (apart === 0 && body.instance < this.instance) ? 'give-way' : 'stay'
  }

  /** Takes a claim from the network, made by an agent that says to be at `addresses`. */
  async hear(claim: Uint8Array, addresses: readonly string[]): Promise<void> {
    if (this.#told || (await this.judge(claim)) !== 'give-way' || this.#told) return
    this.#told = true
    this.#onFirst(addresses)
  }
}

function parse<T>(schema: z.ZodType<T>, bytes: Uint8Array): T | undefined {
  if (bytes.length > CLAIM_BYTES_MAX) return undefined
  try {
    return schema.safeParse(decode(bytes, { strict: true, rejectDuplicateMapKeys: true })).data
  } catch {
    return undefined
  }
}
