/**
 * Carries out failure detection for one pager of this agent: what it says of silent nodes goes to the machine, the
 * machine's questions to other agents, its verdicts to the pager.
 */

import {
  type DetectorEffect,
  type DetectorEvent,
  FailureDetector,
  type Watched,
} from '../machines/failure-detector.js'
import type { PeerId, ProcessId } from '../machines/types.js'
import { type Context, EventLoop } from './context.js'
import type { PagerConnection, PagerEvent } from './pagers.js'

export interface DetectionOptions {
  readonly processId: ProcessId
  /** Changes with each reconnection. */
  readonly client: () => PagerConnection
  /** Lanes of that pager. */
  readonly lanes: () => readonly Watched[]
}

export class Detection {
  readonly #context: Context
  readonly #options: DetectionOptions
  readonly #loop: EventLoop<DetectorEvent, DetectorEffect>

  constructor(context: Context, options: DetectionOptions) {
    const machine = new FailureDetector()
    this.#context = context
    this.#options = options
    this.#loop = new EventLoop(
      (event, now) => machine.onEvent(event, now),
      effect => this.#carryOut(effect),
      () => context.clock.now(),
    )
  }

  onPagerEvent(event: PagerEvent): void {
    if (event.kind === 'lane-down') this.#loop.feed({ kind: 'lane-down', node: event.node })
    if (event.kind !== 'node-silent') return
    const { node, leaseId, silentMs } = event
    const lane = this.#options.lanes().find(one => one.node === node && one.leaseId === leaseId)
    if (lane === undefined) return
    const watched = { node, leaseId, peer: lane.peer }
    const others = this.#context.probes.helpers(lane.peer)
    this.#loop.feed({ kind: 'silent', watched, silentMs, others })
  }

  /** `peer` says that its pager of that lease has ended. */
  onPagerEnded(peer: PeerId, leaseId: number): void {
    const lane = this.#options.lanes().find(one => one.peer === peer && one.leaseId === leaseId)
    if (lane !== undefined) this.#loop.feed({ kind: 'attested', watched: { ...lane } })
  }

  #carryOut(effect: DetectorEffect): void {
    const { node, leaseId, peer } = effect.watched
    const { processId } = this.#options
    const { log, probes } = this.#context
    const name = this.#context.nameOf(peer)
    switch (effect.kind) {
      case 'probe': {
        const { through } = effect
        probes.ask({ peer, processId, leaseId, through }, state =>
          this.#loop.feed({ kind: 'answer', leaseId, state, direct: through === undefined }),
        )
        return
      }
      case 'suspected':
        log.info(`${processId}: ${name} is suspected: silent for ${(effect.silentMs / 1000).toFixed(1)} s`)
        return
      case 'heard':
        log.info(`${processId}: ${name} is heard again`)
        return
      case 'verdict': {
        const { verdict, reason } = effect
        if (verdict === 'dead') log.info(`${processId}: ${name} is given up: ${reason}`)
        this.#options.client().send({ kind: 'node-verdict', node, leaseId, verdict, reason })
        return
      }
    }
  }
}
