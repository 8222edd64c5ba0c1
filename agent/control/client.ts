/**
 * The command line's side of an agent's control socket.
 *
 * Adapter for unix sockets; messages are those of messages.ts. Limits: 32 requests under way, 10 s for each (longer
 * than the agent needs to ask a pager that does not answer), 20 s for `stretch` (an offer and a lane) and
 * `pages` (a walk over a large table).
 */

import { connect, type Socket } from 'node:net'
import { AGENT_GONE, ControlError } from './errors.js'
import type { CheckedAnswer, CheckedOp, ControlRequest } from './messages.js'
import {
  type AgentHello,
  type ControlReply,
  decodeReply,
  encodeLine,
  LineSplitter,
  readHello,
} from './reply.js'

const ANSWER_TIMEOUT_MS = 10_000
const SLOW_TIMEOUT_MS = 20_000
const SLOW: readonly ControlRequest['op'][] = ['stretch', 'pages']
const REQUESTS_MAX = 32
/** sun_path of unix(7) has 108 bytes, the last one for the terminator. */
export const SOCKET_PATH_BYTES_MAX = 107

type RequestOf<Op extends ControlRequest['op']> = Omit<Extract<ControlRequest, { op: Op }>, 'op'>

interface Waiting {
  readonly resolve: (answer: unknown) => void
  readonly reject: (error: ControlError) => void
  readonly timer: NodeJS.Timeout
}

export class ControlClient {
  readonly #socket: Socket
  readonly #waiting = new Map<number, Waiting>()
  readonly #watchers = new Map<string, (count: number) => void>()
  readonly #closeListeners = new Set<() => void>()
  #next = 1
  #closed = false

  private constructor(socket: Socket) {
    this.#socket = socket
    const splitter = new LineSplitter()
    socket.setEncoding('utf8')
    socket.on('data', (chunk: string) => {
      for (const line of splitter.push(chunk) ?? ['']) this.#take(decodeReply(line))
    })
    socket.on('error', () => this.#end())
    socket.on('close', () => this.#end())
  }

  /** Throws ControlError: `absent` (nobody listens there), `no-permission`, `path-too-long`. */
  static connect(path: string): Promise<ControlClient> {
    if (Buffer.byteLength(path) > SOCKET_PATH_BYTES_MAX) {
      const message = `control path ${path} has more than ${SOCKET_PATH_BYTES_MAX} bytes; give a shorter --control`
      return Promise.reject(new ControlError('path-too-long', message))
    }
    return new Promise((resolve, reject) => {
      const socket = connect(path)
      socket.once('error', (error: NodeJS.ErrnoException) => reject(connectError(path, error)))
      socket.once('connect', () => {
        socket.removeAllListeners('error')
        resolve(new ControlClient(socket))
      })
    })
  }

  /** Who the agent is. */
  async hello(): Promise<AgentHello> {
    const hello = readHello(await this.#request('hello', {}))
    if (hello === undefined) throw new ControlError('malformed', 'what answers there is no elasticos agent')
    return hello
  }

  /** Asks the agent. Throws ControlError `refused` with its reason, `timeout`, `gone`, `malformed`. */
  async ask<Op extends CheckedOp>(op: Op, fields: RequestOf<Op>): Promise<CheckedAnswer<Op>> {
    const asked = this.#request(op, fields)
    const [{ answerSchemas }, answer] = await Promise.all([import('./messages.js'), asked])
    const parsed = answerSchemas[op].safeParse(answer)
    if (!parsed.success) throw new ControlError('malformed', `the agent gave a malformed answer (${op})`)
    return parsed.data as CheckedAnswer<Op>
  }

  /** The participants of a process now, and each new count to `listener` from then on. */
  async watch(processId: string, listener: (count: number) => void): Promise<number> {
    this.#watchers.set(processId, listener)
    return (await this.ask('watch', { processId })).participants
  }

  #request(op: ControlRequest['op'], fields: object): Promise<unknown> {
    if (this.#closed) return Promise.reject(new ControlError('gone', AGENT_GONE))
    if (this.#waiting.size >= REQUESTS_MAX) {
      return Promise.reject(new ControlError('refused', 'too many requests under way'))
    }
    const n = this.#next++
    const timeoutMs = SLOW.includes(op) ? SLOW_TIMEOUT_MS : ANSWER_TIMEOUT_MS
    return new Promise<unknown>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(n)
        reject(new ControlError('timeout', `the agent does not answer (${op}); is it stopped?`))
      }, timeoutMs)
      this.#waiting.set(n, { resolve, reject, timer })
      this.#socket.write(encodeLine({ n, request: { op, ...fields } }))
    })
  }

  onClose(listener: () => void): void {
    if (this.#closed) queueMicrotask(listener)
    else this.#closeListeners.add(listener)
  }

  close(): void {
    this.#socket.destroy()
    this.#end()
  }

  #take(reply: ControlReply | undefined): void {
    if (reply === undefined) {
      this.close()
      return
    }
    if ('event' in reply) {
      this.#watchers.get(reply.processId)?.(reply.count)
      return
    }
    const waiting = this.#waiting.get(reply.n)
    if (waiting === undefined) return
    this.#waiting.delete(reply.n)
    clearTimeout(waiting.timer)
    if ('refused' in reply) waiting.reject(new ControlError('refused', reply.refused))
    else waiting.resolve(reply.answer)
  }

  #end(): void {
    if (this.#closed) return
    this.#closed = true
    for (const waiting of this.#waiting.values()) {
      clearTimeout(waiting.timer)
      waiting.reject(new ControlError('gone', AGENT_GONE))
    }
    this.#waiting.clear()
    for (const listener of this.#closeListeners) listener()
    this.#closeListeners.clear()
  }
}

function connectError(path: string, error: NodeJS.ErrnoException): ControlError {
  switch (error.code) {
    case 'ENOENT':
    case 'ECONNREFUSED':
    case 'ENOTDIR':
    case 'ENOTSOCK':
      return new ControlError('absent', `no agent listens at ${path}; start one with \`elasticos agent\``, {
        cause: error,
      })
    case 'EACCES':
    case 'EPERM':
      return new ControlError('no-permission', `the agent at ${path} belongs to another user`, {
        cause: error,
      })
    default:
      return new ControlError('gone', `the agent at ${path} cannot be reached (${error.code})`, {
        cause: error,
      })
  }
}
