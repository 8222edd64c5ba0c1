/**
 * The port of a placement policy: what happens when a thread faults in user mode on a page that another node owns.
 * Either the page comes to the thread (pull) or the thread goes to the page (jump).
 *
 * A policy states its wish; `rule.ts` puts the progress guards around it, so that no policy can make a thread go to
 * and fro for ever, and adds `--jump-every`. Time is an argument: `ran`, the processor time that the thread has used on
 * its node. What it waits for (a page, a processor, another thread) is no execution. An arrival starts afresh.
 *
 * The pager decides by the C++ twin (kmod/pager/src/policy.cpp); a lock-step test demands identical answers.
 */

import type { NodeIndex, Parsed, ThreadId } from './ids.js'
import type { Micros } from './units.js'

/** A user-mode fault on a page that `owner`, another node than the thread's, owns. */
export interface RemoteFault {
  readonly thread: ThreadId
  readonly owner: NodeIndex
  /** Address of the faulting instruction. */
  readonly rip: number
}

/** What else a policy learns about a thread. */
export type Observation =
  /** A fault that needed no other node: a first touch, or an unspill. */
  | { readonly kind: 'local'; readonly thread: ThreadId }
  /**
   * The thread has come to another node: by a jump, or home for a system call. `mark` is a digest of its general
   * registers, 0 if unknown: two jumps at one instruction with equal marks made no progress in between.
   */
  | { readonly kind: 'arrived'; readonly thread: ThreadId; readonly mark: number }
  /** A jump was decided for the thread (by whatever rule). */
  | { readonly kind: 'jumping'; readonly thread: ThreadId }
  | { readonly kind: 'exited'; readonly thread: ThreadId }

export type PullReason =
  /** The policy never jumps. */
  | 'always-pull'
  /** The window holds too few pulls from that node. */
  | 'below-threshold'
  /** The last jumps were not worth it: more pulls first. */
  | 'restless'
  /** A jump was wished, but the thread has not pulled enough pages since it arrived. */
  | 'just-arrived'
  /** A jump was wished, but at the instruction of the last jump, which may not have made progress. */
  | 'same-instruction'
  /** `--jump-every`, but the last jumps made next to no progress. */
  | 'to-and-fro'

export type JumpReason = 'threshold' | 'jump-every'

export type Decision =
  | { readonly kind: 'pull'; readonly reason: PullReason }
  | { readonly kind: 'jump'; readonly to: NodeIndex; readonly reason: JumpReason }

/** One policy with its state. Both operations are deterministic and neither fails. */
export interface Policy {
  readonly name: string
  decide(fault: RemoteFault, ran: Micros): Decision
  observe(observation: Observation, ran: Micros): void
}

/** What the registry needs to know about a policy: one of these per file. */
export interface PolicyDefinition {
  readonly name: string
  /** One line for `--help` and for error messages. */
  readonly summary: string
  readonly keys: readonly PolicyKey[]
  /** `values` has a checked value for each key. */
  create(values: ReadonlyMap<string, number>): Policy
}

/** A parameter of a policy in `NAME:key=value`. */
export interface PolicyKey {
  readonly key: string
  readonly fallback: number
  readonly meaning: string
  parse(text: string): Parsed<number>
}
