/**
 * Which participants of a run are of no use to it at present: for half a minute they have held no page and run no thread,
 * and home has not been short of room. Pure; one for each run that is at home here.
 */

/** Long against a phase of a program, short against what a lease keeps from others. */
export const IDLE_MS = 30_000
/** Beyond this share of its limit a home pager says that room is wanted (kmod/pager/src/home.cpp). */
const ROOM_WANTED_SHARE = 0.8

export interface IdleSample {
  /** The program has started and not ended. */
  readonly isRunning: boolean
  readonly residentPages: number
  readonly limitPages: number
  readonly participants: readonly {
    readonly name: string
    readonly pages: number
    readonly threads: number
  }[]
}

export class IdleParticipants {
  #since = new Map<string, number>()

  /** Names of those that may go. */
  onSample({ isRunning, residentPages, limitPages, participants }: IdleSample, now: number): string[] {
    const wantsRoom = residentPages > limitPages * ROOM_WANTED_SHARE
    const idle = participants.filter(({ pages, threads }) => pages === 0 && threads === 0)
    const names = isRunning && !wantsRoom ? idle.map(({ name }) => name) : []
    this.#since = new Map(names.map(name => [name, this.#since.get(name) ?? now]))
    return names.filter(name => now - (this.#since.get(name) ?? now) >= IDLE_MS)
  }
}
