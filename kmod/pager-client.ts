/**
 * A connection to one pager: says HELLO, checks everything the pager says, hands events on.
 *
 * Adapter for unix sockets; the messages are those of pager-messages.ts. Events that arrive before the first
 * listener are kept (at most 1024) and given to it, so nothing between DESCRIBE and the caller's `on` is lost.
 * Limits: a pager that reads nothing while 4 MiB wait for it, or that sends a malformed frame, is disconnected.
 */

import { connect as connectSocket, type Socket } from 'node:net'
import { FrameSplitter } from './pager-frame.js'
import {
  type ClientRole,
  type Describe,
  decodePagerEvent,
  encodePagerCommand,
  type PageMap,
  type PagerCommand,
  type PagerEvent,
  type PagerStats,
} from './pager-messages.js'

/** A pager answers HELLO from its event loop, microseconds after accept; only a hung one needs longer. */
const HELLO_TIMEOUT_MS = 5000
const STATS_TIMEOUT_MS = 5000
/** A walk over 256 GiB of pages takes 4 s of a pager that does nothing else. */
const PAGES_TIMEOUT_MS = 15_000
const QUEUED_BYTES_MAX = 4 << 20
const EARLY_EVENTS_MAX = 1024
/** sun_path of unix(7) has 108 bytes, the last one for the terminator. */
export const SOCKET_PATH_BYTES_MAX = 107

export type PagerErrorCode =
  | 'gone'
  | 'timeout'
  | 'malformed'
  | 'path-too-long'
  | 'no-permission'
  | 'not-built'
  | 'failed'

export type ExitedEvent = Extract<PagerEvent, { kind: 'exited' }>

/** The pager, or the way to it, does not work. */
export class PagerError extends Error {
  constructor(
    readonly code: PagerErrorCode,
    message: string,
    options?: { cause?: unknown },
    /** How it ended, where the pager still said so before it introduced itself. */
    readonly exited?: ExitedEvent,
  ) {
    super(message, options)
    this.name = 'PagerError'
  }
}

type EventListener = (event: PagerEvent) => void
type CloseListener = (reason: string) => void

const ROLE_BY_NUMBER: readonly ClientRole[] = ['run', 'agent', 'observer']

/** Who waits for the same kind of answer: one that comes is for all of them. */
class Waiters<T> {
  #waiting: { resolve(answer: T): void; reject(error: PagerError): void; timer: NodeJS.Timeout }[] = []

  next(timeoutMs: number, late: string): Promise<T> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting = this.#waiting.filter(other => other !== waiter)
        reject(new PagerError('timeout', late))
      }, timeoutMs)
      const waiter = { resolve, reject, timer }
      this.#waiting.push(waiter)
    })
  }

  resolve(answer: T): void {
    for (const waiter of this.#take()) waiter.resolve(answer)
  }

  reject(error: PagerError): void {
    for (const waiter of this.#take()) waiter.reject(error)
  }

  #take() {
    const waiting = this.#waiting
    this.#waiting = []
    for (const { timer } of waiting) clearTimeout(timer)
    return waiting
  }
}

export class PagerClient {
  readonly describe: Describe
  readonly #socket: Socket
  readonly #listeners = new Set<EventListener>()
  readonly #closeListeners = new Set<CloseListener>()
  readonly #statsWaiters = new Waiters<PagerStats>()
  readonly #pagesWaiters = new Waiters<PageMap>()
  #early: PagerEvent[] | undefined = []
  #closed: string | undefined

  private constructor(socket: Socket, describe: Describe, early: PagerEvent[]) {
    this.#socket = socket
    this.describe = describe
    this.#early = early
  }

  /**
   * Connects to the pager that listens at `path`. Roles: 0 run, 1 agent, 2 observer. Throws PagerError:
   * `gone` (nobody listens there), `no-permission`, `timeout`, `malformed`.
   */
  static async connect(path: string, role: 0 | 1 | 2 | ClientRole): Promise<PagerClient> {
    if (Buffer.byteLength(path) > SOCKET_PATH_BYTES_MAX) {
      throw new PagerError(
        'path-too-long',
        `socket path ${path} has more than ${SOCKET_PATH_BYTES_MAX} bytes`,
      )
    }
    return PagerClient.over(connectSocket(path), role)
  }

  /** The same over a socket that exists already (`run` and its descriptor 3). Takes the socket over. */
  static over(socket: Socket, role: 0 | 1 | 2 | ClientRole): Promise<PagerClient> {
    const named = typeof role === 'number' ? ROLE_BY_NUMBER[role] : role
    return new Promise((resolve, reject) => {
      const splitter = new FrameSplitter()
      const early: PagerEvent[] = []
      let client: PagerClient | undefined
      const timer = setTimeout(
        () => fail(new PagerError('timeout', 'the pager does not answer')),
        HELLO_TIMEOUT_MS,
      )
      const fail = (error: PagerError) => {
        clearTimeout(timer)
        socket.destroy()
        if (client === undefined) reject(error)
        else client.#end(error.message)
      }
      socket.on('data', (chunk: Buffer) => {
        for (const event of readEvents(splitter, chunk, fail)) {
          if (client !== undefined) client.#take(event)
          else if (event.kind === 'describe') {
            clearTimeout(timer)
            client = new PagerClient(socket, event.describe, early)
            resolve(client)
          } else if (event.kind === 'exited') {
            return fail(new PagerError('failed', event.message, {}, event))
          } else if (early.length < EARLY_EVENTS_MAX) early.push(event)
        }
      })
      socket.on('error', (error: NodeJS.ErrnoException) => fail(connectionError(error)))
      socket.on('close', () => fail(new PagerError('gone', 'the pager has closed the connection')))
      socket.write(encodePagerCommand({ kind: 'hello', role: named ?? 'observer' }))
    })
  }

  /** Queues a command; silently nothing after the connection has closed (the close listeners were told). */
  send(command: PagerCommand): void {
    if (this.#closed !== undefined) return
    this.#socket.write(encodePagerCommand(command))
    if (this.#socket.writableLength > QUEUED_BYTES_MAX) {
      this.#socket.destroy()
      this.#end('the pager no longer reads')
    }
  }

  /** Calls `listener` with each event from now on. Returns a function that ends this. */
  on(listener: EventListener): () => void {
    this.#listeners.add(listener)
    const early = this.#early ?? []
    this.#early = undefined
    for (const event of early) listener(event)
    return () => this.#listeners.delete(listener)
  }

  /** Calls `listener` once, when the connection ends from whatever side (at once if it has ended already). */
  onClose(listener: CloseListener): void {
    if (this.#closed !== undefined) queueMicrotask(() => listener(this.#closed ?? ''))
    else this.#closeListeners.add(listener)
  }

  get closed(): boolean {
    return this.#closed !== undefined
  }

  /** Fresh statistics. Throws PagerError `timeout` after 5 s, `gone` when the connection ends first. */
  requestStats(): Promise<PagerStats> {
    if (this.#closed !== undefined) return Promise.reject(new PagerError('gone', this.#closed))
    this.send({ kind: 'stats-request' })
    return this.#statsWaiters.next(STATS_TIMEOUT_MS, 'the pager gives no statistics')
  }

  /** Where the pages are, from a home pager. Throws PagerError `timeout` after 15 s, `gone`. */
  requestPages(): Promise<PageMap> {
    if (this.#closed !== undefined) return Promise.reject(new PagerError('gone', this.#closed))
    this.send({ kind: 'pages-request' })
    return this.#pagesWaiters.next(PAGES_TIMEOUT_MS, 'the pager does not say where its pages are')
  }

  close(): void {
    this.#socket.destroy()
    this.#end('closed')
  }

  #take(event: PagerEvent): void {
    if (event.kind === 'stats') this.#statsWaiters.resolve(event.stats)
    if (event.kind === 'pages') this.#pagesWaiters.resolve(event.map)
    if (this.#early !== undefined) {
      if (this.#early.length < EARLY_EVENTS_MAX) this.#early.push(event)
      return
    }
    for (const listener of [...this.#listeners]) listener(event)
  }

  #end(reason: string): void {
    if (this.#closed !== undefined) return
    this.#closed = reason
    const gone = new PagerError('gone', reason)
    this.#statsWaiters.reject(gone)
    this.#pagesWaiters.reject(gone)
    for (const listener of this.#closeListeners) listener(reason)
    this.#closeListeners.clear()
  }
}

function readEvents(splitter: FrameSplitter, chunk: Buffer, fail: (error: PagerError) => void): PagerEvent[] {
  const bodies = splitter.push(chunk)
  const events: PagerEvent[] = []
  if (bodies.kind === 'malformed') {
    fail(new PagerError('malformed', `the pager sent nonsense: ${bodies.reason}`))
    return events
  }
  for (const body of bodies.message) {
    const event = decodePagerEvent(body)
    if (event.kind === 'ok') {
      events.push(event.message)
      continue
    }
    if (event.kind === 'unusable') continue
    fail(new PagerError('malformed', `the pager sent nonsense: ${event.reason}`))
    break
  }
  return events
}

function connectionError(error: NodeJS.ErrnoException): PagerError {
  switch (error.code) {
    case 'EACCES':
    case 'EPERM':
      return new PagerError('no-permission', 'the pager belongs to another user', { cause: error })
    case 'EAGAIN': // as many wait to be accepted as may: it is there
      return new PagerError('timeout', 'the pager is busy', { cause: error })
    default:
      return new PagerError('gone', `the pager is gone (${error.code ?? error.message})`, { cause: error })
  }
}
