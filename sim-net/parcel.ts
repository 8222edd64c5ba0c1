/** A message on its way: its bytes, and what the receiver's codec makes of them, worked out once however many get it. */

import { type Decoded, decodeMessage, encodeMessage, type PeerMessage } from '../agent/net/messages.js'

export class Parcel {
  #decoded: Decoded<PeerMessage> | undefined

  constructor(readonly bytes: Uint8Array) {}

  /** Throws RangeError when it is too large, which is a bug. */
  static of(message: PeerMessage): Parcel {
    return new Parcel(encodeMessage(message))
  }

  open(): Decoded<PeerMessage> {
    this.#decoded ??= decodeMessage(this.bytes)
    return this.#decoded
  }
}
