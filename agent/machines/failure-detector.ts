/**
 * What the silence of other nodes of one elastic process means. Pure; one per pager of this agent.
 *
 * The pager hears every node by two frames each 100 ms and tells of a node that is silent, from half a second on, every
 * 100 ms. Such a node is *suspected*: its agent is asked what its pager does, directly, and, as long as no answer
 * comes, also through up to three other agents (as in SWIM, Das et al. 2002, section 4.1). A pager that only stalls is
 * waited for; so is one that runs and whose agent is reached from here, since its connections can be made anew. A node is *dead* when its own agent says so, or when for long enough neither its pager was heard nor its
 * agent reached by anybody.
 *
 * Fixed limits, not phi-accrual: what may pass without an alarm is given (a stall of two seconds), and a limit that
 * learns from regular heartbeats comes out below it; see the trials in the test.
 *
 * What only this side's stall explains is nobody's silence: the pager's reports come every 100 ms, so that a gap between
 * them shows it, and the answers that are missing may lie unread here.
 *
 * Limits: one suspect a node (64); one round of at most four probes each 500 ms. Without an answer that says more,
 * the pager's own limits hold (kmod/pager/src/silence.cpp).
 */

import type { PeerId } from './types.js'

/** A stall of two seconds, and what may be late after it: jitter, a retransmission, a report. */
export const CONFIRM_MS = 2_800
/** No answer from its agent for so long from the suspicion on: longer than a stall of its event loop. */
export const UNREACHABLE_MS = 2_200
/** The same after an answer: such a stall, the pause between probes, an answer about a pager that stalls, jitter. */
export const SILENT_AGAIN_MS = 4_000
export const PROBE_MS = 500
export const HELPERS_MAX = 3
/** Waiting has an end, though its agent lives. */
export const STALL_MS_MAX = 30_000
const OWN_STALL_MS = 400

/** A node of the process, on this very lane. */
export interface Watched {
  readonly node: number
  readonly leaseId: number
  readonly peer: PeerId
}

/**
 * Of a pager, as its own agent sees it: it answers there; it lives and does not; it was seen to end; nothing is known.
 * Of one that answers there and is not heard here the connections have failed, or, when others alone reach its agent,
 * the way.
 */
export type PagerState = 'runs' | 'stalls' | 'ended' | 'unknown'

export type DetectorEvent =
  /** As the pager says; 0: it is heard again. `others`: agents that may help. */
  | {
      readonly kind: 'silent'
      readonly watched: Watched
      readonly silentMs: number
      readonly others: readonly PeerId[]
    }
  /** To a probe of that lane. `direct`: from its own agent, not through another one. */
  | {
      readonly kind: 'answer'
      readonly leaseId: number
      readonly state: PagerState
      readonly direct: boolean
    }
  /** Its own agent has seen the end of its pager. */
  | { readonly kind: 'attested'; readonly watched: Watched }
  | { readonly kind: 'lane-down'; readonly node: number }

export type DetectorEffect =
  /** Asks the node's agent, or another one to ask it. */
  | { readonly kind: 'probe'; readonly watched: Watched; readonly through: PeerId | undefined }
  | { readonly kind: 'suspected'; readonly watched: Watched; readonly silentMs: number }
  | { readonly kind: 'heard'; readonly watched: Watched }
  | {
      readonly kind: 'verdict'
      readonly watched: Watched
      readonly verdict: 'dead' | 'stalls' | 'runs'
      readonly reason: string
    }

interface Suspect {
  readonly watched: Watched
  reportedAt: number
  /** Until then a missing answer may be on its way. */
  undecidedUntil: number
  answered: boolean
  askedAt: number
  helpersAsked: number
}

export class FailureDetector {
  readonly #suspects = new Map<number, Suspect>()

  suspects(): Watched[] {
    return [...this.#suspects.values()].map(suspect => suspect.watched)
  }

  onEvent(event: DetectorEvent, now: number): DetectorEffect[] {
    switch (event.kind) {
      case 'silent':
        return event.silentMs === 0 ? this.#onHeard(event.watched) : this.#onSilent(event, now)
      case 'answer':
        return this.#onAnswer(event, now)
      case 'attested':
        return this.#dead(event.watched, 'its agent has seen its pager end')
      case 'lane-down':
        this.#suspects.delete(event.node)
        return []
    }
  }

  #onHeard(watched: Watched): DetectorEffect[] {
    return this.#suspects.delete(watched.node) ? [{ kind: 'heard', watched }] : []
  }

  #onSilent(event: DetectorEvent & { kind: 'silent' }, now: number): DetectorEffect[] {
    const { watched, silentMs, others } = event
    const known = this.#suspects.get(watched.node)
    const isNew = known?.watched.leaseId !== watched.leaseId
    const suspect = isNew ? newSuspect(watched, now) : known
    this.#suspects.set(watched.node, suspect)
    if (now - suspect.reportedAt > OWN_STALL_MS)
      suspect.undecidedUntil = Math.max(suspect.undecidedUntil, now + UNREACHABLE_MS)
    suspect.reportedAt = now
    const seconds = (silentMs / 1000).toFixed(1)
    if (silentMs >= STALL_MS_MAX)
      return this.#dead(watched, `silent for ${seconds} s, though its agent lives`)
    if (silentMs >= CONFIRM_MS && now >= suspect.undecidedUntil)
      return this.#dead(watched, `silent for ${seconds} s, and nobody reaches its agent`)
    const probes = now - suspect.askedAt < PROBE_MS ? [] : this.#probes(suspect, others, now)
    return isNew ? [{ kind: 'suspected', watched, silentMs }, ...probes] : probes
  }

  /** Others are asked, too, when there was no answer to the round before; each time the next few. */
  #probes(suspect: Suspect, others: readonly PeerId[], now: number): DetectorEffect[] {
    const { watched } = suspect
    const direct: DetectorEffect = { kind: 'probe', watched, through: undefined }
    const { answered } = suspect
    Object.assign(suspect, { askedAt: now, answered: false })
    if (answered) return [direct]
    const first = others.length === 0 ? 0 : suspect.helpersAsked % others.length
    const helpers = [...others.slice(first), ...others.slice(0, first)].slice(0, HELPERS_MAX)
    suspect.helpersAsked += helpers.length
    return [direct, ...helpers.map(through => ({ kind: 'probe', watched, through }) as const)]
  }

  #onAnswer(event: DetectorEvent & { kind: 'answer' }, now: number): DetectorEffect[] {
    const suspect = [...this.#suspects.values()].find(one => one.watched.leaseId === event.leaseId)
    if (suspect === undefined) return []
    Object.assign(suspect, { answered: true, undecidedUntil: now + SILENT_AGAIN_MS })
    const { watched } = suspect
    // Others may be mistaken about an end, and the node's own agent will be asked again.
    if (event.state === 'ended' && event.direct)
      return this.#dead(watched, 'its agent has seen its pager end')
    const { state, direct } = event
    if (state !== 'stalls' && !(state === 'runs' && direct)) return []
    return [{ kind: 'verdict', watched, verdict: state, reason: '' }]
  }

  #dead(watched: Watched, reason: string): DetectorEffect[] {
    this.#suspects.delete(watched.node)
    return [{ kind: 'verdict', watched, verdict: 'dead', reason }]
  }
}

function newSuspect(watched: Watched, now: number): Suspect {
  const askedAt = Number.NEGATIVE_INFINITY
  const undecidedUntil = now + UNREACHABLE_MS
  // Nothing was asked yet, so that no answer is missing.
  return { watched, reportedAt: now, undecidedUntil, answered: true, askedAt, helpersAsked: 0 }
}
