/**
 * What agents ask each other about pagers that are not heard: the questions of this agent, the answers about its own
 * pagers, and the questions it puts to a third agent for another one, whose answers it passes on.
 *
 * A pager that lives is asked for its statistics, to tell one that stalls from one that was merely cut off from others.
 *
 * Limits: 256 questions a second of each peer are answered or passed on (64 processes, asked twice a second by two
 * ways), more are dropped. 64 a second are passed on to each peer, whoever asks: that peer counts them as this agent's,
 * which must have answers left for its own. 1024 of its own and as many of others wait for an answer, 5 s at most; the
 * ends of 1024 leases are remembered.
 */

import type { PagerState } from '../machines/failure-detector.js'
import type { PeerId, ProcessId } from '../machines/types.js'
import type { PeerMessage } from '../net/messages.js'
import type { Clock } from '../ports/clock.js'
import type { Surroundings } from '../ports/surroundings.js'
import type { PagerConnection, Pagers } from './pagers.js'

const PROBE_ID_MAX = 2 ** 47
const PROBES_PER_S = 256
const PASSED_ON_PER_S = 64
const PEERS_MAX = 1024
const WAITING_MAX = 1024
const WAIT_MS = 5_000
const ENDED_MAX = 1024
/** A pager answers within a millisecond; one that takes longer stalls, and is asked again with the next probe. */
export const PAGER_ANSWER_MS = 200

export type ProbeMessage = Extract<PeerMessage, { kind: 'probe' | 'probe-for' | 'probe-answer' }>

export interface ProbesPort extends Pick<Surroundings, 'clock' | 'rng'> {
  readonly self: PeerId
  readonly pagers: Pick<Pagers, 'isAlive'>
  send(peer: PeerId, message: PeerMessage): boolean
  /** Agents that have joined. */
  joined(): readonly PeerId[]
  /** The pager of that process which this agent has. */
  pagerOf(processId: ProcessId): PagerConnection | undefined
  /** Whether that pager does anything now; told once, soon. */
  answers(pager: PagerConnection, tell: (answers: boolean) => void): void
}

interface Waiting {
  readonly from: PeerId
  readonly until: number
  readonly onAnswer: (state: PagerState) => void
}

type Rates = Map<PeerId, { since: number; count: number }>

export interface Question {
  /** Whose pager it is about. */
  readonly peer: PeerId
  readonly processId: ProcessId
  readonly leaseId: number
  /** Who is to ask, if not this agent itself. */
  readonly through?: PeerId | undefined
}

export class Probes {
  readonly #port: ProbesPort
  readonly #waiting = new Map<number, Waiting>()
  /** Those of others. */
  readonly #passedOn = new Map<number, Waiting>()
  readonly #ended = new Set<string>()
  readonly #asking: Rates = new Map()
  readonly #passing: Rates = new Map()

  constructor(port: ProbesPort) {
    this.#port = port
  }

  /** Who might ask for this agent about a pager of `peer`. */
  helpers(peer: PeerId): PeerId[] {
    return this.#port.joined().filter(other => other !== peer && other !== this.#port.self)
  }

  /** Asks; `onAnswer` is called once or, without an answer in time, never. */
  ask(question: Question, onAnswer: (state: PagerState) => void): void {
    this.#ask(question, onAnswer, this.#waiting)
  }

  #ask(question: Question, onAnswer: (state: PagerState) => void, waiting: Map<number, Waiting>): void {
    const { peer, processId, leaseId, through } = question
    const probeId = this.#port.rng.below(PROBE_ID_MAX)
    const message: ProbeMessage =
      through === undefined
        ? { kind: 'probe', probeId, processId, leaseId }
        : { kind: 'probe-for', probeId, peer, processId, leaseId }
    const from = through ?? peer
    if (!this.#port.send(from, message)) return
    const now = this.#port.clock.now()
    for (const [id, { until }] of waiting) {
      if (until > now && waiting.size < WAITING_MAX) break
      waiting.delete(id)
    }
    waiting.set(probeId, { from, until: now + WAIT_MS, onAnswer })
  }

  /** The pager of that lease was seen to end. */
  noteEnded(processId: ProcessId, leaseId: number): void {
    this.#ended.add(`${processId} ${leaseId}`)
    const [oldest] = this.#ended
    if (this.#ended.size > ENDED_MAX && oldest !== undefined) this.#ended.delete(oldest)
  }

  onMessage(peer: PeerId, message: ProbeMessage): void {
    const { probeId } = message
    if (message.kind === 'probe-answer') {
      for (const all of [this.#waiting, this.#passedOn]) {
        const waiting = all.get(probeId)
        if (waiting?.from !== peer) continue
        all.delete(probeId)
        if (this.#port.clock.now() <= waiting.until) waiting.onAnswer(message.state)
      }
      return
    }
    if (!this.#isWithin(PROBES_PER_S, this.#asking, peer)) return
    const answer = (state: PagerState) => void this.#port.send(peer, { kind: 'probe-answer', probeId, state })
    const { processId, leaseId } = message
    if (message.kind === 'probe') this.#tellState(processId, leaseId, answer)
    else if (this.#mayPassOn(peer, message.peer))
      this.#ask({ peer: message.peer, processId, leaseId }, answer, this.#passedOn)
  }

  #mayPassOn(from: PeerId, to: PeerId): boolean {
    if (from === to || !this.#port.joined().includes(to)) return false
    return this.#isWithin(PASSED_ON_PER_S, this.#passing, to)
  }

  #isWithin(perSecond: number, rates: Rates, peer: PeerId): boolean {
    const now = this.#port.clock.now()
    const rate = rates.get(peer)
    if (rate !== undefined && now - rate.since < 1_000) return ++rate.count <= perSecond
    rates.delete(peer)
    rates.set(peer, { since: now, count: 1 })
    const [oldest] = rates.keys()
    if (rates.size > PEERS_MAX && oldest !== undefined) rates.delete(oldest)
    return true
  }

  #tellState(processId: ProcessId, leaseId: number, tell: (state: PagerState) => void): void {
    if (this.#ended.has(`${processId} ${leaseId}`)) {
      tell('ended')
      return
    }
    const pager = this.#port.pagerOf(processId)
    if (pager === undefined || !this.#port.pagers.isAlive(pager.describe.pagerPid)) tell('unknown')
    else this.#port.answers(pager, answers => tell(answers ? 'runs' : 'stalls'))
  }
}

/** Asks pagers for their statistics, each once at a time. */
export function pagerAnswers(clock: Clock): ProbesPort['answers'] {
  const asked = new WeakMap<PagerConnection, Promise<boolean>>()
  return (pager, tell) => {
    let answered = asked.get(pager)
    if (answered === undefined) {
      answered = pager.requestStats().then(
        () => true,
        () => false,
      )
      asked.set(pager, answered)
      void answered.then(() => asked.delete(pager))
    }
    let told = false
    const once = (answers: boolean) => {
      if (!told) tell(answers)
      told = true
    }
    const timer = clock.at(clock.now() + PAGER_ANSWER_MS, () => once(false))
    void answered.then(answers => {
      timer.cancel()
      once(answers)
    })
  }
}
