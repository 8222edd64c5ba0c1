/**
 * A small model of two nodes and their helpers for trials of the failure detector: pager B sends a frame every 100 ms
 * on each of two connections, pager A looks every 100 ms and tells its agent of silence as kmod/pager/src/silence.cpp
 * does, and agents probe each other.
 *
 * Connections are TCP as far as it matters: in order, and a lost packet comes after a retransmission timeout that
 * doubles from 200 ms (RFC 6298; Linux' least), which holds up what is behind it.
 */

import { FailureDetector, type PagerState } from '../../../agent/machines/failure-detector.js'
import type { PeerId } from '../../../agent/machines/types.js'

export const HEARTBEAT_MS = 100
const TELL_MS = 500
const LATENCY_MS = 1
const RTO_MS = 200
const PAGER_ANSWER_MS = 200
const PHI_WINDOW = 100
/** Scheduling alone varies by so much; without it the first late frame would be an alarm. */
const PHI_DEVIATION_MS_MIN = 20

export type Random = () => number

/** mulberry32. */
export function randomOf(seed: number): Random {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

export interface Span {
  readonly from: number
  readonly to: number
}

export interface Trial {
  readonly seed: number
  readonly lossRate: number
  readonly jitterMs: number
  readonly pagerStall?: Span
  readonly agentStall?: Span
  /** Of agent A, which judges. */
  readonly ownStall?: Span
  /** From then on nothing leaves host B. */
  readonly deadAt?: number
  /** The way between hosts A and B alone is cut. */
  readonly cutAt?: number
  readonly helpers: number
  readonly untilMs: number
}

export interface Outcome {
  readonly suspectedAt: number | undefined
  readonly confirmedAt: number | undefined
  readonly waitedFor: boolean
  readonly suspicions: number
  readonly lastHeardAt: number
  /** The first time that phi was above 8. */
  readonly phiAt: number | undefined
}

const B = 'peer-b' as PeerId
const WATCHED = { node: 1, leaseId: 7, peer: B }

export function runTrial(trial: Trial): Outcome {
  return new Model(trial).run()
}

class Model {
  readonly #trial: Trial
  readonly #random: Random
  readonly #detector = new FailureDetector()
  /** What is to be done, by its millisecond. */
  readonly #queue: (() => void)[][]
  readonly #others: PeerId[]
  readonly #lastArrival = new Map<string, number>()
  readonly #gaps: number[] = []
  #now = 0
  #heardAt = 0
  #told = false
  #suspectedAt: number | undefined
  #confirmedAt: number | undefined
  #waitedFor = false
  #suspicions = 0
  #phiAt: number | undefined

  constructor(trial: Trial) {
    this.#trial = trial
    this.#random = randomOf(trial.seed)
    this.#queue = Array.from({ length: trial.untilMs + 1 }, () => [])
    this.#others = Array.from({ length: trial.helpers }, (_, i) => `peer-h${i}` as PeerId)
  }

  run(): Outcome {
    const { untilMs } = this.#trial
    const phase = Math.floor(this.#random() * HEARTBEAT_MS)
    for (let at = 0; at <= untilMs; at += HEARTBEAT_MS) {
      for (const connection of ['urgent', 'bulk'])
        this.#at(at, () => {
          if (!within(this.#trial.pagerStall, at)) this.#send(connection, 'b', 'a', () => this.#onHeartbeat())
        })
      this.#at(at + phase, () => this.#look())
    }
    for (this.#now = 0; this.#now <= untilMs && this.#confirmedAt === undefined; this.#now++) {
      for (const work of this.#queue[this.#now] ?? []) work()
    }
    return {
      suspectedAt: this.#suspectedAt,
      confirmedAt: this.#confirmedAt,
      waitedFor: this.#waitedFor,
      suspicions: this.#suspicions,
      lastHeardAt: this.#heardAt,
      phiAt: this.#phiAt,
    }
  }

  #at(time: number, work: () => void): void {
    const at = Math.max(Math.ceil(time), this.#now)
    this.#queue[at]?.push(work)
  }

  /** In order on each connection and way; nothing leaves a dead host or passes a cut. */
  #send(connection: string, from: string, to: string, deliver: () => void): void {
    const { lossRate, jitterMs, deadAt = Infinity, cutAt = Infinity } = this.#trial
    const isDirect = (from === 'a' && to === 'b') || (from === 'b' && to === 'a')
    if ((from === 'b' || to === 'b') && this.#now >= deadAt) return
    if (isDirect && this.#now >= cutAt) return
    let delay = LATENCY_MS + this.#random() * jitterMs
    let sentAt = this.#now
    for (let timeout = RTO_MS; this.#random() < lossRate; timeout *= 2) {
      delay += timeout
      sentAt += timeout
    }
    if (from === 'b' && sentAt >= deadAt) return
    const way = `${connection} ${from} ${to}`
    const arrival = Math.max(this.#lastArrival.get(way) ?? 0, this.#now + delay)
    this.#lastArrival.set(way, arrival)
    this.#at(arrival, deliver)
  }

  #onHeartbeat(): void {
    const gap = this.#now - this.#heardAt
    this.#heardAt = this.#now
    if (gap === 0) return
    this.#gaps.push(gap)
    if (this.#gaps.length > PHI_WINDOW) this.#gaps.shift()
  }

  #look(): void {
    const silentMs = this.#now - this.#heardAt
    if (phi(this.#gaps, silentMs) > 8) this.#phiAt ??= this.#now
    const isSilent = silentMs >= TELL_MS
    if (!isSilent && !this.#told) return
    this.#told = isSilent
    this.#whenAwake(this.#trial.ownStall, () =>
      this.#feed({
        kind: 'silent',
        watched: WATCHED,
        silentMs: isSilent ? silentMs : 0,
        others: this.#others,
      }),
    )
  }

  #whenAwake(stall: Span | undefined, work: () => void): void {
    if (stall !== undefined && within(stall, this.#now)) this.#at(stall.to, work)
    else work()
  }

  #feed(event: Parameters<FailureDetector['onEvent']>[0]): void {
    for (const effect of this.#detector.onEvent(event, this.#now)) {
      if (effect.kind === 'suspected') {
        this.#suspicions++
        this.#suspectedAt = this.#now
      }
      if (effect.kind === 'probe') this.#probe(effect.through)
      if (effect.kind !== 'verdict') continue
      if (effect.verdict === 'dead') this.#confirmedAt ??= this.#now
      else this.#waitedFor = true
    }
  }

  #probe(through: PeerId | undefined): void {
    const answer = (state: PagerState) =>
      this.#whenAwake(this.#trial.ownStall, () =>
        this.#feed({ kind: 'answer', leaseId: WATCHED.leaseId, state, direct: through === undefined }),
      )
    const route = through === undefined ? ['a', 'b'] : ['a', through, 'b']
    const back = [...route].reverse()
    this.#relay(route, () => this.#answerOfB(state => this.#relay(back, () => answer(state))))
  }

  #relay(route: readonly string[], deliver: () => void): void {
    const [from = '', to = ''] = route
    const further = route.slice(1)
    this.#send('stream', from, to, () => (further.length < 2 ? deliver() : this.#relay(further, deliver)))
  }

  #answerOfB(answer: (state: PagerState) => void): void {
    this.#whenAwake(this.#trial.agentStall, () => {
      if (!within(this.#trial.pagerStall, this.#now)) answer('runs')
      else this.#at(this.#now + PAGER_ANSWER_MS, () => answer('stalls'))
    })
  }
}

function within(span: Span | undefined, at: number): boolean {
  return span !== undefined && at >= span.from && at < span.to
}

/**
 * How unlikely such a silence is after those gaps, as -log10 (Hayashibara et al., The phi accrual failure detector,
 * 2004), by the logistic approximation of the normal distribution.
 */
function phi(gaps: readonly number[], silentMs: number): number {
  if (gaps.length < 10) return 0
  const mean = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length
  const variance = gaps.reduce((sum, gap) => sum + (gap - mean) ** 2, 0) / gaps.length
  const y = (silentMs - mean) / Math.max(PHI_DEVIATION_MS_MIN, Math.sqrt(variance))
  return Math.log10(1 + Math.exp(y * (1.5976 + 0.070566 * y * y)))
}
