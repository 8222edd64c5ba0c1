/**
 * The simulated guest threads of the reference page table: each carries out one action in micro-steps (one load or
 * store each), so that an operation of the table can fall between a load and its store as on a real machine.
 *
 * Limits: no caches, no reordering; a step happens wholly or blocks.
 */

import { invariant, type PageNumber, type ThreadId } from '../placement/ids.js'
import type { GuestAction, GuestResult } from './guest-port.js'
import type { Context, Fault } from './port.js'

/** What a load or store met. */
export type Touch =
  | { readonly kind: 'hit'; readonly bytes: DataView }
  | { readonly kind: 'fault'; readonly cause: Fault['cause'] }
  | { readonly kind: 'segv' }

export type TouchPage = (page: PageNumber, access: 'read' | 'write') => Touch

type Status = 'idle' | 'running' | 'waiting' | 'parked' | 'finished'

/** Registers: what must be kept to continue an action elsewhere. */
interface Registers {
  readonly action: GuestAction
  /** Repetitions that are left of `count`. */
  left: number
  /** The word that was loaded and not yet stored. */
  loaded: number | undefined
}

const IDLE: GuestResult = { kind: 'done', value: 0 }
const COUNT_MAX = 2 ** 32

export class SimulatedThread {
  readonly id: ThreadId
  status: Status = 'idle'
  /** Valid while `waiting`. */
  wanted: { readonly page: PageNumber; readonly access: 'read' | 'write' } | undefined
  #registers: Registers | undefined
  #result: GuestResult = IDLE

  constructor(id: ThreadId) {
    this.id = id
  }

  start(action: GuestAction): void {
    invariant(this.status === 'idle', `thread ${this.id} is busy`)
    this.#registers = { action, left: action.kind === 'count' ? action.times : 1, loaded: undefined }
    this.status = 'running'
  }

  takeResult(): GuestResult {
    if (this.status !== 'finished') return { kind: 'running' }
    this.status = 'idle'
    return this.#result
  }

  get userMode(): boolean {
    return this.#registers?.action.kind !== 'system-call-read'
  }

  /** One load or store. Does nothing unless running. */
  step(touch: TouchPage): void {
    if (this.status !== 'running') return
    const registers = this.#registers
    invariant(registers !== undefined, 'a running thread has registers')
    if (registers.left === 0) {
      this.#finish(IDLE)
      return
    }
    const access = wantedAccess(registers)
    const met = touch(registers.action.page, access)
    if (met.kind === 'segv') this.#finish({ kind: 'segv' })
    else if (met.kind === 'hit') this.#execute(registers, met.bytes)
    else {
      this.status = 'waiting'
      this.wanted = { page: registers.action.page, access }
    }
  }

  /** The page may be there now: the thread tries again. */
  wake(): void {
    invariant(this.status === 'waiting', 'only a waiting thread is woken')
    this.status = 'running'
    this.wanted = undefined
  }

  park(): Context {
    invariant(this.status === 'waiting', 'only a waiting thread is parked')
    this.status = 'parked'
    this.wanted = undefined
    return new TextEncoder().encode(JSON.stringify(this.#registers))
  }

  /** False when the context is not one of ours. */
  resume(context: Context): boolean {
    const registers = decodeRegisters(context)
    if (registers === undefined) return false
    this.#registers = registers
    this.status = 'running'
    return true
  }

  #execute(registers: Registers, bytes: DataView): void {
    const { action } = registers
    switch (action.kind) {
      case 'read':
      case 'system-call-read':
        this.#finish({ kind: 'done', value: bytes.getUint8(0) })
        return
      case 'write':
        bytes.setUint8(0, action.value)
        this.#finish(IDLE)
        return
      case 'count':
        if (registers.loaded === undefined) {
          registers.loaded = Number(bytes.getBigUint64(0, true))
          return
        }
        bytes.setBigUint64(0, BigInt(registers.loaded + 1), true)
        registers.loaded = undefined
        registers.left--
        if (registers.left === 0) this.#finish(IDLE)
    }
  }

  #finish(result: GuestResult): void {
    this.status = 'finished'
    this.#result = result
  }
}

function wantedAccess(registers: Registers): 'read' | 'write' {
  const { kind } = registers.action
  return kind === 'write' || (kind === 'count' && registers.loaded !== undefined) ? 'write' : 'read'
}

function decodeRegisters(context: Context): Registers | undefined {
  try {
    const { action, left, loaded } = JSON.parse(new TextDecoder().decode(context)) as Partial<Registers>
    const known = ['read', 'write', 'system-call-read', 'count'].includes(action?.kind ?? '')
    if (action === undefined || !known || !Number.isSafeInteger(action.page)) return undefined
    if (typeof left !== 'number' || !(left >= 0 && left <= COUNT_MAX)) return undefined
    if (loaded !== undefined && !Number.isSafeInteger(loaded)) return undefined
    return { action, left, loaded }
  } catch {
    return undefined
  }
}
