/**
 * Carries ownership summaries (agent/machines/ownership-gossip.ts) between the pagers of this agent and the agents of the
 * other participants. They go on the streams between agents, not in the gossip that all agents hear: only members of a
 * process have a use for them (docs/architecture.md, "Decisions").
 */

import type { OwnedRange } from '../../kmod/ownership/hints.js'
import {
  type OwnedSummary,
  type OwnershipEffect,
  type OwnershipEvent,
  OwnershipGossip,
  type Stretched,
} from '../machines/ownership-gossip.js'
import type { PeerId, ProcessId } from '../machines/types.js'
import type { Context } from './context.js'
import type { PagerConnection } from './pagers.js'

export interface StretchedHere extends Stretched {
  readonly client: Pick<PagerConnection, 'send'>
}

export class OwnershipNews {
  readonly #machine = new OwnershipGossip()
  readonly #context: Pick<Context, 'clock' | 'rng' | 'send'>
  readonly #here: () => readonly StretchedHere[]

  constructor(context: Pick<Context, 'clock' | 'rng' | 'send'>, here: () => readonly StretchedHere[]) {
    this.#context = context
    this.#here = here
  }

  /** To be called several times a second. */
  onTick(): void {
    this.#feed({ kind: 'tick', here: this.#here(), chance: this.#context.rng.between(0.75, 1.25) })
  }

  /** What a pager here has answered. */
  onOwned(processId: ProcessId, ranges: readonly OwnedRange[]): void {
    this.#feed({ kind: 'owned', processId, ranges })
  }

  onHeard(peer: PeerId, summaries: readonly OwnedSummary[]): void {
    this.#feed({ kind: 'heard', peer, summaries })
  }

  #feed(event: OwnershipEvent): void {
    for (const effect of this.#machine.onEvent(event, this.#context.clock.now())) this.#carryOut(effect)
  }

  #carryOut(effect: OwnershipEffect): void {
    switch (effect.kind) {
      case 'ask':
        this.#pagerOf(effect.processId)?.send({ kind: 'owned-request' })
        return
      case 'tell':
        this.#context.send(effect.peer, { kind: 'owned', summaries: effect.summaries })
        return
      case 'hint':
        this.#pagerOf(effect.processId)?.send({ kind: 'hints', node: effect.node, ranges: effect.ranges })
        return
    }
  }

  #pagerOf(processId: ProcessId): StretchedHere['client'] | undefined {
    return this.#here().find(each => each.processId === processId)?.client
  }
}
