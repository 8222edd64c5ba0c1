/**
 * The one long-lived stream between two agents, as messages. A new stream costs milliseconds and an open one a tenth
 * of that, so everything between two agents goes over this one, in order.
 *
 * Limits: messages of 64 KiB; at most 256 unsent ones, then the stream is given up (the other side does not read);
 * the first message must be a hello and come within 5 s.
 */

import './with-resolvers.js'
import type { Stream } from '@libp2p/interface'
import { type LengthPrefixedStream, lpStream } from '@libp2p/utils'
import { UNSENT_MAX } from './limits.js'
import { decodeMessage, encodeMessage, MESSAGE_BYTES_MAX, type PeerMessage } from './messages.js'

const HELLO_TIMEOUT_MS = 5_000
/** What may pile up between two reads: a burst of full messages. */
const READ_BUFFER_BYTES_MAX = 16 * MESSAGE_BYTES_MAX

export interface PeerStreamEvents {
  onMessage(message: PeerMessage): void
  /** Exactly once. `reason` is for the log. `refused`: for what the peer has sent. */
  onClose(reason: string, refused: boolean): void
}

export class PeerStream {
  readonly #stream: Stream
  readonly #frames: LengthPrefixedStream<Stream>
  readonly #events: PeerStreamEvents
  readonly #ended: Promise<void>
  #unsent = 0
  #closed = false

  constructor(stream: Stream, events: PeerStreamEvents) {
    this.#stream = stream
    this.#events = events
    this.#frames = lpStream(stream, {
      maxDataLength: MESSAGE_BYTES_MAX,
      maxBufferSize: READ_BUFFER_BYTES_MAX,
    })
    this.#ended = this.#readAll()
  }

  /** Queues a message; false when the stream is closed or was given up. */
  send(message: PeerMessage): boolean {
    if (this.#closed) return false
    if (this.#unsent >= UNSENT_MAX) {
      // Not from within: who sends is not told of anything meanwhile.
      queueMicrotask(() => this.#finish('the peer does not read'))
      return false
    }
    this.#unsent++
    this.#frames
      .write(encodeMessage(message))
      .then(() => {
        this.#unsent--
      })
      .catch((error: unknown) => this.#finish(textOf(error)))
    return true
  }

  /**
   * Closes in good order: the peer has read what is queued when it closes its end. What waits in the layers below is
   * lost with the connection. Waits at most `timeoutMs`.
   */
  async close(timeoutMs: number): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    const signal = AbortSignal.timeout(timeoutMs)
    const late = new Promise<void>(resolve => signal.addEventListener('abort', () => resolve()))
    await this.#stream.close({ signal }).catch((error: unknown) => {
      this.#stream.abort(error instanceof Error ? error : new Error(String(error)))
    })
    await Promise.race([this.#ended, late])
    this.#events.onClose('closed here', false)
  }

  /** Drops the stream at once. */
  abort(reason: string): void {
    this.#finish(reason)
  }

  /** Drops the stream for what the peer has sent. */
  refuse(reason: string): void {
    this.#finish(reason, true)
  }

  async #readAll(): Promise<void> {
    let greeted = false
    try {
      for (;;) {
        const signal = greeted ? {} : { signal: AbortSignal.timeout(HELLO_TIMEOUT_MS) }
        const frame = await this.#frames.read(signal)
        if (this.#closed) continue
        const decoded = decodeMessage(frame.subarray())
        if (decoded.kind === 'malformed') return this.#finish(`malformed message: ${decoded.reason}`, true)
        if (!greeted && decoded.message.kind !== 'hello') return this.#finish('no hello', true)
        greeted = true
        this.#events.onMessage(decoded.message)
      }
    } catch (error) {
      this.#finish(textOf(error), error instanceof Error && error.name.startsWith('InvalidDataLength'))
    }
  }

  #finish(reason: string, refused = false): void {
    if (this.#closed) return
    this.#closed = true
    this.#stream.abort(new Error(reason))
    this.#events.onClose(reason, refused)
  }
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
