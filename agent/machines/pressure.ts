/**
 * How much memory a run without `--memory` may have here: what the machine has to spare, looked at once a second. Pure;
 * one for each such run.
 *
 * What the run has and what is available besides make up what it could have; that sum stays the same while the run
 * itself grows, so that it is not driven by its own doing. Of it a part is left to others: a large part when the limit
 * grows, a smaller one when it is lowered, and in between nothing changes. So it cannot swing: under input that stays
 * the same it moves in one direction only, and stops.
 *
 * What is left to others is never more than half of what the run could have, which is what it began with: it is not
 * squeezed away on a machine that is merely full, nor while others are waited for.
 *
 * Lowered, it falls at once to what the run could have, and then, page by page out of memory, by an eighth of what is
 * here at most; it grows by a quarter at most, once it is in use and the machine has been calm for ten seconds. Of what
 * there is to grow into it takes half at a time: runs of other agents, of which nothing is known, look at the same.
 */

/** `run` takes no less with --memory. */
export const LIMIT_PAGES_MIN = 1024
/**
 * Between two changes: the pager needs a while to carry one out, and the machine to show what came of it. Less than from
 * one look to the next, so that none is lost to a timer that is early.
 */
export const CHANGE_MS = 900
/** The kernel's averages are of ten seconds: what a burst has left in them must not be taken for a new one. */
export const CALM_MS = 10_000
/** Of the machine's memory: left alone by a limit that grows. */
export const GROW_RESERVE_SHARE = 1 / 8
/** The same when it is lowered. */
const LOWER_RESERVE_SHARE = 1 / 16
/** Of what the run could have: the most that is left alone. It begins with the other half (cli/values.ts). */
const OTHERS_SHARE_MAX = 1 / 2
/** Of what there is to grow into. */
const GROW_STEP_SHARE = 1 / 2
const LOWER_SHARE_MAX = 1 / 8
const GROW_SHARE_MAX = 1 / 4
/** A change of less is not worth its while. */
const CHANGE_SHARE_MIN = 1 / 32
const IN_USE_SHARE = 1 / 2
/**
 * Percent of ten seconds. Who waits for memory at all waits because of too little of it, unless there is plenty: then a
 * group of processes has reached a limit of its own.
 */
const SOME_STALL_MAX = 10
const FULL_STALL_MAX = 5
const PLENTY_SHARE = 1 / 4

export interface Memory {
  readonly availablePages: number
  readonly totalPages: number
}

/**
 * Percent of the last ten seconds in which some task, or all that had something to do, waited for memory
 * (Documentation/accounting/psi.rst).
 */
export interface Stalls {
  readonly some: number
  readonly full: number
}

/** What there is for a process: on its machine, and in its control groups. */
export interface MemoryState extends Memory {
  /** Tasks wait because there is too little. */
  readonly isStalling: boolean
}

export interface PressureSample extends MemoryState {
  /** Of the run, here. */
  readonly residentPages: number
  readonly limitPages: number
}

export class PressureLimit {
  #changedAt = Number.NEGATIVE_INFINITY
  #shortAt = Number.NEGATIVE_INFINITY

  /** The limit that there is to be; undefined while it is to stay. */
  onSample(sample: PressureSample, now: number): number | undefined {
    const { limitPages } = sample
    const lower = lowered(sample)
    if (sample.isStalling || lower < limitPages) this.#shortAt = now
    if (now - this.#changedAt < CHANGE_MS) return undefined
    const isCalm = now - this.#shortAt >= CALM_MS
    const wanted = lower < limitPages ? lower : isCalm ? grown(sample) : limitPages
    if (Math.abs(wanted - limitPages) < limitPages * CHANGE_SHARE_MIN) return undefined
    this.#changedAt = now
    return Math.max(LIMIT_PAGES_MIN, wanted)
  }
}

export function isStalling({ availablePages, totalPages, some, full }: Memory & Stalls): boolean {
  const hasPlenty = availablePages >= totalPages * PLENTY_SHARE
  return !hasPlenty && (some >= SOME_STALL_MAX || full >= FULL_STALL_MAX)
}

/** What the run could have if `share` of the machine were left alone, as far as that is no more than the most. */
function couldHave({ availablePages, totalPages, residentPages }: PressureSample, share: number): number {
  const all = residentPages + availablePages
  return Math.floor(all - Math.min(totalPages * share, all * OTHERS_SHARE_MAX))
}

function lowered(sample: PressureSample): number {
  const least = Math.ceil(sample.residentPages * (1 - LOWER_SHARE_MAX))
  const most = couldHave(sample, sample.isStalling ? 1 : LOWER_RESERVE_SHARE)
  return Math.min(sample.limitPages, Math.max(LIMIT_PAGES_MIN, least, most))
}

function grown(sample: PressureSample): number {
  const { limitPages, residentPages } = sample
  if (residentPages < limitPages * IN_USE_SHARE) return limitPages
  const left = couldHave(sample, GROW_RESERVE_SHARE) - limitPages
  const step = Math.max(left * GROW_STEP_SHARE, Math.min(left, limitPages * CHANGE_SHARE_MIN))
  return limitPages + Math.max(0, Math.ceil(Math.min(limitPages * GROW_SHARE_MAX, step)))
}
