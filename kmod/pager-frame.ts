/**
 * The form of a frame on a pager's unix socket, below the messages of pager-messages.ts.
 *
 * u32le bodyBytes, then u16le type, u16le numCount, u16le strCount, u16le zero, numCount x i64le,
 * strCount x (u32le length, bytes). It is this plain so that both sides can check every byte of it.
 *
 * Limits: a body is at most 1 MiB and has at most 16 numbers and 16 strings; integers beyond 2^53 - 1 are refused
 * (JavaScript cannot hold them exactly; no field needs them).
 */

/** Largest frame body in bytes, fixed by the protocol. */
export const FRAME_BODY_BYTES_MAX = 1 << 20
const HEADER_BYTES = 8
const LENGTH_BYTES = 4
/** No message has more fields than this; larger counts are refused before anything is allocated. */
const FIELDS_MAX = 16

export type Decoded<T> =
  | { readonly kind: 'ok'; readonly message: T }
  | { readonly kind: 'malformed'; readonly reason: string }

const encoder = new TextEncoder()
const strictDecoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
/** For text that people read and that the system does not promise to be UTF-8 (program paths, log lines). */
const lossyDecoder = new TextDecoder('utf-8', { ignoreBOM: true })

/** Raised only to leave a decoder; never escapes `readBody`. */
export class Malformed extends Error {}

/** A whole frame. Throws RangeError on values that no frame can carry (a bug of the caller). */
export function encodeFrame(
  type: number,
  nums: readonly number[],
  strs: readonly (string | Uint8Array)[],
): Uint8Array {
  const parts = strs.map(text => (typeof text === 'string' ? encoder.encode(text) : text))
  const bodyBytes =
    HEADER_BYTES + 8 * nums.length + parts.reduce((sum, part) => sum + LENGTH_BYTES + part.length, 0)
  if (bodyBytes > FRAME_BODY_BYTES_MAX)
    throw new RangeError(`pager message of ${bodyBytes} bytes is too large`)
  const frame = new Uint8Array(LENGTH_BYTES + bodyBytes)
  const view = new DataView(frame.buffer)
  view.setUint32(0, bodyBytes, true)
  view.setUint16(4, type, true)
  view.setUint16(6, nums.length, true)
  view.setUint16(8, parts.length, true)
  let at = LENGTH_BYTES + HEADER_BYTES
  for (const num of nums) {
    if (!Number.isSafeInteger(num)) throw new RangeError(`pager message field ${num} is no safe integer`)
    view.setBigInt64(at, BigInt(num), true)
    at += 8
  }
  for (const part of parts) {
    view.setUint32(at, part.length, true)
    frame.set(part, at + LENGTH_BYTES)
    at += LENGTH_BYTES + part.length
  }
  return frame
}

/** The fields of one body, taken in order; every taker checks range and form. */
export class Fields {
  readonly type: number
  readonly #nums: number[] = []
  readonly #strs: Uint8Array[] = []
  #num = 0
  #str = 0

  constructor(body: Uint8Array) {
    if (body.length < HEADER_BYTES) throw new Malformed('shorter than its header')
    if (body.length > FRAME_BODY_BYTES_MAX) throw new Malformed('longer than 1 MiB')
    const view = new DataView(body.buffer, body.byteOffset, body.length)
    this.type = view.getUint16(0, true)
    const numCount = view.getUint16(2, true)
    const strCount = view.getUint16(4, true)
    if (view.getUint16(6, true) !== 0) throw new Malformed('reserved field is not zero')
    if (numCount > FIELDS_MAX || strCount > FIELDS_MAX) throw new Malformed('too many fields')
    let at = HEADER_BYTES
    if (at + 8 * numCount > body.length) throw new Malformed('numbers are cut short')
    for (let i = 0; i < numCount; i++, at += 8) {
      const num = Number(view.getBigInt64(at, true))
      if (!Number.isSafeInteger(num)) throw new Malformed('number out of range')
      this.#nums.push(num)
    }
    for (let i = 0; i < strCount; i++) {
      if (at + LENGTH_BYTES > body.length) throw new Malformed('string length is cut short')
      const bytes = view.getUint32(at, true)
      at += LENGTH_BYTES
      if (bytes > body.length - at) throw new Malformed('string is cut short')
      this.#strs.push(body.subarray(at, at + bytes))
      at += bytes
    }
    if (at !== body.length) throw new Malformed('bytes after the last field')
  }

  count(least = 0): number {
    const num = this.#nums[this.#num++]
    if (num === undefined) throw new Malformed('a number is missing')
    if (num < least) throw new Malformed(`number ${num} below ${least}`)
    return num
  }

  integer(): number {
    return this.count(Number.MIN_SAFE_INTEGER)
  }

  port(): number {
    const port = this.count()
    if (port > 65535) throw new Malformed(`port ${port}`)
    return port
  }

  choice<T>(choices: readonly T[]): T {
    const choice = choices[this.count()]
    if (choice === undefined) throw new Malformed('number names no known choice')
    return choice
  }

  bytes(): Uint8Array {
    const bytes = this.#strs[this.#str++]
    if (bytes === undefined) throw new Malformed('a string is missing')
    return bytes
  }

  /** Text that others are compared with: must be valid UTF-8. */
  name(): string {
    try {
      return strictDecoder.decode(this.bytes())
    } catch (error) {
      if (error instanceof Malformed) throw error
      throw new Malformed('a name is not UTF-8')
    }
  }

  text(): string {
    return lossyDecoder.decode(this.bytes())
  }

  end<T>(message: T): T {
    if (this.#num !== this.#nums.length || this.#str !== this.#strs.length)
      throw new Malformed('fields left over')
    return message
  }
}

/** Runs `read` over a body (a frame without its length); all fields have to be taken. */
export function readBody<T>(body: Uint8Array, read: (fields: Fields) => T): Decoded<T> {
  try {
    const fields = new Fields(body)
    return { kind: 'ok', message: fields.end(read(fields)) }
  } catch (error) {
    if (error instanceof Malformed) return { kind: 'malformed', reason: error.message }
    throw error
  }
}

/** Cuts a byte stream into frame bodies. Holds at most one unfinished frame. */
export class FrameSplitter {
  #pending: Uint8Array[] = []
  #pendingBytes = 0

  /** The bodies completed by `chunk`, or why the stream is unusable from here on. */
  push(chunk: Uint8Array): Decoded<Uint8Array[]> {
    this.#pending.push(chunk)
    this.#pendingBytes += chunk.length
    const bodies: Uint8Array[] = []
    for (;;) {
      if (this.#pendingBytes < LENGTH_BYTES) break
      const bodyBytes = this.#peekLength()
      if (bodyBytes > FRAME_BODY_BYTES_MAX || bodyBytes < HEADER_BYTES) {
        return { kind: 'malformed', reason: `frame body of ${bodyBytes} bytes` }
      }
      if (this.#pendingBytes < LENGTH_BYTES + bodyBytes) break
      const joined = this.#join()
      bodies.push(joined.subarray(LENGTH_BYTES, LENGTH_BYTES + bodyBytes))
      const rest = joined.subarray(LENGTH_BYTES + bodyBytes)
      this.#pending = rest.length > 0 ? [rest] : []
      this.#pendingBytes = rest.length
    }
    return { kind: 'ok', message: bodies }
  }

  #peekLength(): number {
    const first = this.#pending[0]
    const head = first !== undefined && first.length >= LENGTH_BYTES ? first : this.#join()
    return new DataView(head.buffer, head.byteOffset, LENGTH_BYTES).getUint32(0, true)
  }

  #join(): Uint8Array {
    const [first] = this.#pending
    if (this.#pending.length === 1 && first !== undefined) return first
    const joined = new Uint8Array(this.#pendingBytes)
    let at = 0
    for (const part of this.#pending) {
      joined.set(part, at)
      at += part.length
    }
    this.#pending = [joined]
    return joined
  }
}
