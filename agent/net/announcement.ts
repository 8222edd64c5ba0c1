/**
 * The packet by which agents find each other on a LAN, and its only codec.
 *
 * 8 bytes of magic, CBOR {key, peer, instance, claim, name, addresses}, 32 bytes of HMAC-SHA256 over all before. The HMAC's key is
 * derived from the network key: who has another one can announce itself but not be mistaken for one of us. `key` is
 * the public name of the sender's network key (it tells nothing about the key); packets with another name are from
 * agents of another network, which is worth telling people, and nothing in them is believed beyond that.
 * A replayed packet only makes us dial an address whose peer id is then checked by TLS.
 *
 * `claim` is empty, or meant for another agent with the sender's identity (twins.ts).
 *
 * Anybody on the LAN can send one with another name, and what it says is shown to people: addresses are printable
 * ASCII and IP addresses, never host names.
 *
 * Limits: 1200 bytes (one Ethernet frame); 8 addresses of 100 characters.
 */

import { createHmac, timingSafeEqual } from 'node:crypto'
import { isIP } from 'node:net'
import { decode, encode } from 'cborg'
import { z } from 'zod'
import { keyFingerprint, type NetworkKey } from '../key.js'
import { NODE_NAME_PATTERN, PEER_ID_PATTERN, type PeerId } from '../machines/types.js'
import { toEndpoint } from './address.js'
import { CLAIM_BYTES_MAX, INSTANCE_PATTERN } from './twins.js'

export const ANNOUNCEMENT_BYTES_MAX = 1200
const MAGIC = Buffer.from('elastic1')
const MAC_BYTES = 32

const schema = z.strictObject({
  key: z.string().regex(/^[0-9a-f]{16}$/),
  peer: z
    .string()
    .regex(PEER_ID_PATTERN)
    .transform(text => text as PeerId),
  instance: z.string().regex(INSTANCE_PATTERN),
  claim: z.instanceof(Uint8Array).refine(bytes => bytes.length <= CLAIM_BYTES_MAX),
  name: z.string().regex(NODE_NAME_PATTERN),
  addresses: z
    .array(
      z
        .string()
        .max(100)
        .regex(/^\/ip[46]\/[\x21-\x7e]+$/)
        .refine(address => isIP(toEndpoint(address)?.host ?? '') !== 0),
    )
    .min(1)
    .max(8),
})

export interface Announcement {
  readonly peer: PeerId
  readonly instance: string
  readonly claim: Uint8Array
  readonly name: string
  readonly addresses: readonly string[]
}

export type Heard =
  | { readonly kind: 'ours'; readonly announcement: Announcement }
  /** From an agent with another network key; unauthenticated. */
  | { readonly kind: 'other-network'; readonly announcement: Announcement }
  | { readonly kind: 'ignored'; readonly reason: 'foreign' | 'malformed' | 'forged' }

export class AnnouncementCodec {
  readonly #macKey: Buffer
  readonly #keyName: string

  constructor(key: NetworkKey) {
    this.#macKey = createHmac('sha256', key.bytes).update('elasticos announcement 1').digest()
    this.#keyName = keyFingerprint(key)
  }

  encode({ addresses, ...rest }: Announcement): Uint8Array {
    const body = Buffer.concat([MAGIC, encode({ key: this.#keyName, ...rest, addresses: [...addresses] })])
    return Buffer.concat([body, this.#mac(body)])
  }

  decode(packet: Uint8Array): Heard {
    if (packet.length > ANNOUNCEMENT_BYTES_MAX || packet.length < MAGIC.length + MAC_BYTES)
      return ignored('foreign')
    const bytes = Buffer.from(packet.buffer, packet.byteOffset, packet.length)
    if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) return ignored('foreign')
    const body = bytes.subarray(0, -MAC_BYTES)
    let value: unknown
    try {
      value = decode(body.subarray(MAGIC.length), { strict: true, rejectDuplicateMapKeys: true })
    } catch {
      return ignored('malformed')
    }
    const parsed = schema.safeParse(value)
    if (!parsed.success) return ignored('malformed')
    const { key, ...announcement } = parsed.data
    if (key !== this.#keyName) return { kind: 'other-network', announcement }
    const authentic = timingSafeEqual(this.#mac(body), bytes.subarray(-MAC_BYTES))
    return authentic ? { kind: 'ours', announcement } : ignored('forged')
  }

  #mac(body: Uint8Array): Buffer {
    return createHmac('sha256', this.#macKey).update(body).digest()
  }
}

function ignored(reason: 'foreign' | 'malformed' | 'forged'): Heard {
  return { kind: 'ignored', reason }
}
