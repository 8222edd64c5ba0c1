/**
 * The page table port on the stock kernel: drives the production pager's own classes, on a real traced program,
 * through `elasticos-pager conformance`. For tests; in a real stretch the pager uses those classes itself and nothing
 * of it passes through here.
 *
 * Protocol: frames of pager-frame.ts over standard input and output, one request at a time, one answer each.
 * First the pager sends READY 200 [thread id…]. Requests (numbers; strings):
 *   201 MAP [first, count, access 0 none 1 read 2 read-write]       202 UNMAP [first, count]
 *   203 PROTECT [first, count, access]                              204 STATE [page] → [0 unmapped 1 untouched 2 resident 3 away]
 *   205 NEXT_FAULT [waitMs] → [] or [page, write?, thread, user mode?, cause 0 untouched 1 away 2 protected]
 *   206 PLACE [first, count, write-protected?; contents or nothing = zero]   207 ALLOW_WRITE [first, count]
 *   208 EVICT [first, count] → [; contents]
 *   209 SCAN_ACCESSED, 210 SCAN_WRITTEN [first, count] → [; page numbers, u64le each]
 *   211 PARK [thread] → [; context]                                 212 RESUME [thread; context]
 *   213 STATISTICS → [resident, faults, placed, evicted]
 *   214 GUEST_START [thread, kind 0 read 1 write 2 system-call-read 3 count, page, value or times]
 *   215 GUEST_RESULT [thread, waitMs] → [0 running 1 done 2 segv, value]
 * Answers: 300 OK as above, or 301 REFUSED [index into REFUSALS].
 *
 * Limits: a batch is at most 255 pages (a frame holds 1 MiB).
 */

import { type ChildProcessByStdio, spawn } from 'node:child_process'
import type { Readable, Writable } from 'node:stream'

import { invariant, type PageNumber, pageNumber, type ThreadId, threadId } from '../placement/ids.js'
import { type Millis, PAGE_BYTES } from '../placement/units.js'
import type { Guest, GuestAction, GuestResult } from './guest-port.js'
import { encodeFrame, Fields, FrameSplitter } from './pager-frame.js'
import type {
  Access,
  Context,
  Done,
  Fault,
  Outcome,
  PageRange,
  PageState,
  PageTable,
  Refusal,
  Statistics,
} from './port.js'

const READY = 200
const OK = 300
const REQUESTS = {
  map: 201,
  unmap: 202,
  protect: 203,
  state: 204,
  nextFault: 205,
  place: 206,
  allowWrite: 207,
  evict: 208,
  scanAccessed: 209,
  scanWritten: 210,
  park: 211,
  resume: 212,
  statistics: 213,
  guestStart: 214,
  guestResult: 215,
} as const

/** In the order of the pager's enumeration. */
const REFUSALS: readonly Refusal[] = [
  'bad-range',
  'unmapped',
  'already-mapped',
  'already-resident',
  'not-resident',
  'no-such-thread',
  'not-in-user-mode',
  'not-parked',
  'bad-context',
  'gone',
]
const ACCESSES: readonly Access[] = ['none', 'read', 'read-write']
const STATES: readonly PageState[] = ['unmapped', 'untouched', 'resident', 'away']
const CAUSES: readonly Fault['cause'][] = ['untouched', 'away', 'protected']
const ACTIONS: readonly GuestAction['kind'][] = ['read', 'write', 'system-call-read', 'count']
const FAULT_FIELDS = 5

type Pager = ChildProcessByStdio<Writable, Readable, null>

/** One pager in conformance mode, and its guest. */
export class UserfaultfdPageTable implements PageTable, Guest {
  readonly threads: readonly ThreadId[]
  readonly #channel: Channel

  private constructor(channel: Channel, threads: readonly ThreadId[]) {
    this.#channel = channel
    this.threads = threads
  }

  /**
   * Starts the pager at `path`; `guest` is the pager that runs as its guest (a sanitizer build cannot).
   * Rejects with its exit status when it does not come up; its words are on stderr.
   */
  static async start(
    path: string,
    guest: string,
    environment: Readonly<Record<string, string>> = {},
  ): Promise<UserfaultfdPageTable> {
    const pager = spawn(path, ['conformance', guest], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, ...environment },
    })
    const channel = new Channel(pager)
    const ready = await channel.next()
    invariant(ready.type === READY, `the pager's first message has type ${ready.type}`)
    const threads: ThreadId[] = []
    for (let i = 0; i < ready.numbers; i++) threads.push(threadId(ready.fields.count()))
    return new UserfaultfdPageTable(channel, threads)
  }

  async map(range: PageRange, access: Access): Promise<Done> {
    return await this.#done('map', [range.first, range.count, ACCESSES.indexOf(access)])
  }

  async unmap(range: PageRange): Promise<Done> {
    return await this.#done('unmap', [range.first, range.count])
  }

  async protect(range: PageRange, access: Access): Promise<Done> {
    return await this.#done('protect', [range.first, range.count, ACCESSES.indexOf(access)])
  }

  async state(page: PageNumber): Promise<PageState> {
    return (await this.#answer('state', [page])).fields.choice(STATES)
  }

  async nextFault(waitMs: Millis): Promise<Fault | undefined> {
    const { fields, numbers } = await this.#answer('nextFault', [waitMs])
    if (numbers < FAULT_FIELDS) return undefined
    return {
      page: pageNumber(fields.count()),
      access: fields.choice(['read', 'write'] as const),
      thread: threadId(fields.count()),
      userMode: fields.choice([false, true]),
      cause: fields.choice(CAUSES),
    }
  }

  async place(range: PageRange, contents: Uint8Array | 'zero', writeProtected: boolean): Promise<Done> {
    const nums = [range.first, range.count, Number(writeProtected)]
    return await this.#done('place', nums, contents === 'zero' ? [] : [contents])
  }

  async allowWrite(range: PageRange): Promise<Done> {
    return await this.#done('allowWrite', [range.first, range.count])
  }

  async evict(range: PageRange): Promise<Outcome<Uint8Array>> {
    return await this.#bytes('evict', [range.first, range.count])
  }

  async scanAccessed(range: PageRange): Promise<Outcome<PageNumber[]>> {
    return pagesOf(await this.#bytes('scanAccessed', [range.first, range.count]))
  }

  async scanWritten(range: PageRange): Promise<Outcome<PageNumber[]>> {
    return pagesOf(await this.#bytes('scanWritten', [range.first, range.count]))
  }

  async park(thread: ThreadId): Promise<Outcome<Context>> {
    return await this.#bytes('park', [thread])
  }

  async resume(thread: ThreadId, context: Context): Promise<Done> {
    return await this.#done('resume', [thread], [context])
  }

  async statistics(): Promise<Statistics> {
    const { fields } = await this.#answer('statistics', [])
    return {
      residentPages: fields.count(),
      faults: fields.count(),
      pagesPlaced: fields.count(),
      pagesEvicted: fields.count(),
    }
  }

  async close(): Promise<void> {
    await this.#channel.close()
  }

  async start(thread: ThreadId, action: GuestAction): Promise<void> {
    const argument = action.kind === 'write' ? action.value : action.kind === 'count' ? action.times : 0
    await this.#answer('guestStart', [thread, ACTIONS.indexOf(action.kind), action.page, argument])
  }

  async result(thread: ThreadId, waitMs: Millis): Promise<GuestResult> {
    const { fields } = await this.#answer('guestResult', [thread, waitMs])
    const kind = fields.choice(['running', 'done', 'segv'] as const)
    return kind === 'done' ? { kind, value: fields.count() } : { kind }
  }

  async #ask(request: keyof typeof REQUESTS, nums: readonly number[], strs: readonly Uint8Array[]) {
    return await this.#channel.ask(encodeFrame(REQUESTS[request], nums, strs))
  }

  /** For requests that are never refused. */
  async #answer(request: keyof typeof REQUESTS, nums: readonly number[]): Promise<Answer> {
    const answer = await this.#ask(request, nums, [])
    invariant(answer.type === OK, `the pager refused ${request}`)
    return answer
  }

  async #done(
    request: keyof typeof REQUESTS,
    nums: readonly number[],
    strs: readonly Uint8Array[] = [],
  ): Promise<Done> {
    const answer = await this.#ask(request, nums, strs)
    if (answer.type === OK) return { kind: 'ok', value: undefined }
    return { kind: 'refused', reason: answer.fields.choice(REFUSALS) }
  }

  async #bytes(request: keyof typeof REQUESTS, nums: readonly number[]): Promise<Outcome<Uint8Array>> {
    const answer = await this.#ask(request, nums, [])
    if (answer.type === OK) return { kind: 'ok', value: answer.fields.bytes() }
    return { kind: 'refused', reason: answer.fields.choice(REFUSALS) }
  }
}

function pagesOf(outcome: Outcome<Uint8Array>): Outcome<PageNumber[]> {
  if (outcome.kind === 'refused') return outcome
  const view = new DataView(outcome.value.buffer, outcome.value.byteOffset, outcome.value.length)
  const found: PageNumber[] = []
  for (let at = 0; at < view.byteLength; at += 8) found.push(pageNumber(Number(view.getBigUint64(at, true))))
  return { kind: 'ok', value: found }
}

interface Answer {
  readonly type: number
  /** How many numbers there are to take. */
  readonly numbers: number
  readonly fields: Fields
}

/** One request, one answer. Rejects once the pager has ended. */
class Channel {
  readonly #pager: Pager
  readonly #splitter = new FrameSplitter()
  readonly #answers: Answer[] = []
  #waiter: PromiseWithReject | undefined
  #ended: Error | undefined

  constructor(pager: Pager) {
    this.#pager = pager
    pager.stdout.on('data', (chunk: Buffer) => this.#take(chunk))
    pager.stdin.on('error', error => this.#end(error))
    pager.on('error', error => this.#end(error))
    pager.on('close', (code, signal) => this.#end(new Error(`the pager ended with ${signal ?? code}`)))
  }

  async ask(frame: Uint8Array): Promise<Answer> {
    this.#pager.stdin.write(frame)
    return await this.next()
  }

  async next(): Promise<Answer> {
    const answer = this.#answers.shift()
    if (answer !== undefined) return answer
    if (this.#ended !== undefined) throw this.#ended
    invariant(this.#waiter === undefined, 'one request at a time')
    return await new Promise((resolve, reject) => {
      this.#waiter = { resolve, reject }
    })
  }

  async close(): Promise<void> {
    if (this.#ended !== undefined) return
    const closed = new Promise(resolve => this.#pager.once('close', resolve))
    this.#pager.stdin.end()
    await closed
  }

  #take(chunk: Uint8Array): void {
    const split = this.#splitter.push(chunk)
    if (split.kind === 'malformed') {
      this.#end(new Error(split.reason))
      return
    }
    for (const body of split.message) {
      const numbers = new DataView(body.buffer, body.byteOffset).getUint16(2, true)
      const fields = new Fields(body)
      this.#answers.push({ type: fields.type, numbers, fields })
    }
    const answer = this.#waiter === undefined ? undefined : this.#answers.shift()
    if (answer === undefined) return
    this.#waiter?.resolve(answer)
    this.#waiter = undefined
  }

  #end(error: Error): void {
    this.#ended ??= error
    this.#waiter?.reject(this.#ended)
    this.#waiter = undefined
  }
}

interface PromiseWithReject {
  resolve(answer: Answer): void
  reject(error: Error): void
}

/** Pages that one call can carry. */
export const BATCH_PAGES_MAX = Math.floor((2 ** 20 - 64) / PAGE_BYTES)
