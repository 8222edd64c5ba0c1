/**
 * The rule by which a fault becomes a pull or a jump: a policy's wish, `--jump-every`, and the progress guards around
 * both.
 *
 * Why guards: an instruction that needs two pages on two nodes would send its thread to and fro for ever (425,964
 * jumps in 54 s were seen). So a thread that has arrived pulls k = 4 pages before it may jump by a policy's wish, and
 * jumps at the instruction of its last jump only after k pulls, whatever asks for it. Where even that made no progress
 * (equal register marks at two jumps at one instruction in a row), the number doubles each time, up to 64: the widest
 * instruction, a 16-element gather whose elements all straddle pages, needs 34 pages with its own code.
 *
 * `--jump-every N`: each thread's N-th remote fault since its last jump jumps to the page's owner, policy or no policy.
 * A jump that a lease then refuses is a pull of that same fault; nothing needs to be told here.
 *
 * A thread whose pages are scattered over two nodes goes to and fro with `--jump-every 1` and executes next to nothing
 * in between (python with a list of lists at half its footprint, 4,400 pages: 210,000 jumps, 170 s; with this guard
 * 17,000 jumps, 17 s). So a stay in which a thread executed less than 50 µs for each of its remote faults is short, and
 * after eight short ones it pulls 2, 4, 8 … 1024 pages before it jumps again. Each longer stay
 * and each system call takes one step back, no more: java makes a call every ten jumps.
 */

import type { ThreadId } from './ids.js'
import type { Decision, Observation, Policy, PullReason, RemoteFault } from './policy.js'
import { type Micros, micros } from './units.js'

/** Pulls after an arrival before the next jump (docs/architecture.md, "Ownership": minimum progress). */
export const PULLS_AFTER_ARRIVAL_MIN = 4
/** 4 << 4 = 64 pulls, more than one instruction can need. */
export const STUCK_DOUBLINGS_MAX = 4

/** Execution for each remote fault below which a stay is short: what a pull costs, a few times over. */
export const STAY_US_PER_FAULT_MIN = 50
/** Short stays in a row that cost nothing. */
export const SHORT_STAYS_FREE = 8
/** 1 << 10 = 1024 pulls: 4 MB, about what an interpreter works with. */
export const SHORT_STAY_DOUBLINGS_MAX = 10
/** The pager counts these in 16 and in 32 bits. */
const STAY_PULLS_MAX = 0xffff
const STAY_US_MAX = 0xffff_ffff

const NO_RIP = 0

interface ThreadGuards {
  pullsSinceArrival: number
  faultsSinceJump: number
  lastJumpRip: number
  /** The last jump was at the same instruction as the one before it. */
  jumpedAtSameRip: boolean
  /** A jump was decided and no arrival was seen since. */
  jumping: boolean
  /** Jumps in a row at one instruction that may have made no progress. */
  stuckJumps: number
  mark: number
  /** Execution since the arrival. */
  stayUs: number
  lastEventUs: Micros
  /** Jumps that ended a short stay, less longer stays and system calls. */
  shortStays: number
}

/** A policy inside its guards. `jumpEvery` 0 is off. */
export class PlacementRule {
  readonly #policy: Policy
  readonly #jumpEvery: number
  readonly #threads = new Map<ThreadId, ThreadGuards>()

  constructor(policy: Policy, jumpEvery: number) {
    this.#policy = policy
    this.#jumpEvery = jumpEvery
  }

  /** What the fault becomes. Counts it either way. */
  decide(fault: RemoteFault, ran: Micros): Decision {
    const guards = this.#guards(fault.thread)
    countExecution(guards, ran)
    const wish = this.#policy.decide(fault, ran)
    guards.faultsSinceJump++
    const decision = this.#guarded(fault, guards, wish)
    if (decision.kind === 'pull') {
      guards.pullsSinceArrival++
      return decision
    }
    guards.jumpedAtSameRip = fault.rip === guards.lastJumpRip
    guards.lastJumpRip = fault.rip
    guards.jumping = true
    guards.faultsSinceJump = 0
    judgeLength(guards)
    this.#policy.observe({ kind: 'jumping', thread: fault.thread }, ran)
    return decision
  }

  /** Everything else that happens to a thread. */
  observe(observation: Observation, ran: Micros): void {
    const { kind, thread } = observation
    if (kind === 'arrived') arrive(this.#guards(thread), observation.mark, ran)
    if (kind === 'exited') this.#threads.delete(thread)
    this.#policy.observe(observation, ran)
  }

  #guarded(fault: RemoteFault, guards: ThreadGuards, wish: Decision): Decision {
    const due = this.#jumpEvery > 0 && guards.faultsSinceJump >= this.#jumpEvery
    if (!due && wish.kind === 'pull') return wish
    const refusal = refuse(fault, guards, due)
    if (refusal !== undefined) return { kind: 'pull', reason: refusal }
    return due ? { kind: 'jump', to: fault.owner, reason: 'jump-every' } : wish
  }

  #guards(id: ThreadId): ThreadGuards {
    let guards = this.#threads.get(id)
    if (guards === undefined) {
      guards = {
        // A thread that has never moved has nothing to make up for.
        pullsSinceArrival: PULLS_AFTER_ARRIVAL_MIN,
        faultsSinceJump: 0,
        lastJumpRip: NO_RIP,
        jumpedAtSameRip: false,
        jumping: false,
        stuckJumps: 0,
        mark: 0,
        stayUs: 0,
        lastEventUs: micros(0),
        shortStays: 0,
      }
      this.#threads.set(id, guards)
    }
    return guards
  }
}

function refuse(fault: RemoteFault, guards: ThreadGuards, due: boolean): PullReason | undefined {
  if (fault.rip === guards.lastJumpRip) {
    const needed = PULLS_AFTER_ARRIVAL_MIN << guards.stuckJumps
    return guards.pullsSinceArrival < needed ? 'same-instruction' : undefined
  }
  if (due) return guards.pullsSinceArrival < pullsBeforeDue(guards) ? 'to-and-fro' : undefined
  return guards.pullsSinceArrival < PULLS_AFTER_ARRIVAL_MIN ? 'just-arrived' : undefined
}

function pullsBeforeDue({ shortStays }: ThreadGuards): number {
  return shortStays <= SHORT_STAYS_FREE ? 0 : 1 << (shortStays - SHORT_STAYS_FREE)
}

/** A clock that went back counts as no time. */
function countExecution(guards: ThreadGuards, ran: Micros): void {
  guards.stayUs = Math.min(guards.stayUs + Math.max(0, ran - guards.lastEventUs), STAY_US_MAX)
  guards.lastEventUs = ran
}

/** The fault that ends the stay is one of its faults here. */
function judgeLength(guards: ThreadGuards): void {
  const faults = Math.min(guards.pullsSinceArrival, STAY_PULLS_MAX) + 1
  const short = guards.stayUs < STAY_US_PER_FAULT_MIN * faults
  const most = SHORT_STAYS_FREE + SHORT_STAY_DOUBLINGS_MAX
  if (short) guards.shortStays = Math.min(guards.shortStays + 1, most)
  else countProgress(guards)
}

function countProgress(guards: ThreadGuards): void {
  guards.shortStays = Math.max(guards.shortStays - 1, 0)
}

function arrive(guards: ThreadGuards, mark: number, ran: Micros): void {
  const progressed = mark !== 0 && mark !== guards.mark
  const stuck = guards.jumping && guards.jumpedAtSameRip && !progressed
  guards.stuckJumps = stuck ? Math.min(guards.stuckJumps + 1, STUCK_DOUBLINGS_MAX) : 0
  // Home for a system call: the instruction of the last jump was completed long ago.
  if (!guards.jumping) {
    guards.lastJumpRip = NO_RIP
    countProgress(guards)
  }
  guards.jumping = false
  guards.mark = mark
  guards.pullsSinceArrival = 0
  guards.stayUs = 0
  guards.lastEventUs = ran
}
