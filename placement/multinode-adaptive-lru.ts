/**
 * `multinode-adaptive-lru`, the policy of "Towards Elastic Operating Systems" (Gupta, Ababneh, Han, Keller, HotCloud
 * 2013, section 4): pull on a remote reference, and jump to a node once pulls from it make up a threshold share of a
 * thread's last W events. Eviction is by least recent use, which is the pager's and not part of this rule.
 *
 * The paper counts references. The pager does not see references that hit, so here an event is a remote pull, or a local
 * one: a first touch, an unspill, or each `localUs` microseconds that the thread executed since its last event.
 * Without the last one a thread that works locally for a second between two pulls would look like one that does
 * nothing but pull.
 *
 * Restlessness, which the paper does not have: a program whose hot pages are many (an interpreter's) leaves a node
 * again as soon as it may, and takes next to nothing along: python at half its footprint made 115,000 jumps without an
 * end in 100 s, where pulling took 4 s. So a stay that had fewer than four local events for each pull was not worth
 * its jump, and after each of these in a row a thread pulls twice as many pages before it leaves again: 8, 16, 32 …
 * 4 × 2^patience. One stay that was worth it ends that. patience=0 is the paper's own rule.
 *
 * Limits: W is at most 64, so that a thread's state is a small plain struct in the pager; the remainder of an
 * interval shorter than `localUs` is dropped.
 */

import { invariant, type NodeIndex, type ThreadId } from './ids.js'
import type { Decision, Observation, Policy, PolicyDefinition, PolicyKey, RemoteFault } from './policy.js'
import { type Micros, micros, parseCount } from './units.js'

const WINDOW_MAX = 64
/** One virtual hour: no thread is away longer without an event. */
const LOCAL_US_MAX = 3_600_000_000
/** 0.07 × 100 is 7.000000000000001 in binary floating point; a share is not meant to differ by that. */
const SHARE_SLACK = 1e-9
/** Pulls of a stay before its thread may leave, to be doubled for each stay in a row that was not worth it. */
const RESTLESS_PULLS = 4
const LOCALS_PER_PULL_MIN = 4
const PATIENCE_MAX = 12
/** The pager counts in 16 bits. */
const STAY_COUNT_MAX = 0xffff

/** A window entry: the node a page was pulled from, or this. */
const LOCAL = -1

interface ThreadWindow {
  /** Oldest first, at most W. */
  readonly events: number[]
  lastEventUs: Micros
  /** Since the thread arrived here: its faults on other nodes' pages, and its local events. */
  stayPulls: number
  stayLocals: number
  /** Jumps in a row that ended a stay which was not worth its own. */
  restless: number
}

/** Pulls from one node that a full window must hold for a jump. */
export function pullsNeeded(window: number, threshold: number): number {
  return Math.max(1, Math.ceil(threshold * window - SHARE_SLACK))
}

class MultinodeAdaptiveLru implements Policy {
  readonly name = 'multinode-adaptive-lru'
  readonly #window: number
  readonly #needed: number
  readonly #localUs: number
  readonly #patience: number
  readonly #threads = new Map<ThreadId, ThreadWindow>()

  constructor(window: number, threshold: number, localUs: number, patience: number) {
    this.#window = window
    this.#needed = pullsNeeded(window, threshold)
    this.#localUs = localUs
    this.#patience = patience
  }

  decide(fault: RemoteFault, ran: Micros): Decision {
    const thread = this.#thread(fault.thread)
    this.#enterExecution(thread, ran)
    this.#enter(thread, fault.owner)
    const pulls = thread.stayPulls
    thread.stayPulls = Math.min(pulls + 1, STAY_COUNT_MAX)
    if (count(thread.events, fault.owner) < this.#needed) return { kind: 'pull', reason: 'below-threshold' }
    if (thread.restless > 0 && pulls < RESTLESS_PULLS << thread.restless)
      return { kind: 'pull', reason: 'restless' }
    return { kind: 'jump', to: fault.owner, reason: 'threshold' }
  }

  observe(observation: Observation, ran: Micros): void {
    if (observation.kind === 'exited') {
      this.#threads.delete(observation.thread)
      return
    }
    const thread = this.#thread(observation.thread)
    switch (observation.kind) {
      case 'local':
        this.#enter(thread, LOCAL)
        thread.stayLocals = Math.min(thread.stayLocals + 1, STAY_COUNT_MAX)
        break
      case 'arrived':
        thread.lastEventUs = ran
        thread.stayPulls = 0
        thread.stayLocals = 0
        break
      case 'jumping':
        thread.events.length = 0
        this.#judgeStay(thread)
        break
    }
  }

  /** The fault that ends the stay is none of its pulls. */
  #judgeStay(thread: ThreadWindow): void {
    const worthIt = thread.stayLocals >= LOCALS_PER_PULL_MIN * (thread.stayPulls - 1)
    thread.restless = worthIt ? 0 : Math.min(thread.restless + 1, this.#patience)
  }

  #thread(id: ThreadId): ThreadWindow {
    let thread = this.#threads.get(id)
    if (thread === undefined) {
      thread = { events: [], lastEventUs: micros(0), stayPulls: 0, stayLocals: 0, restless: 0 }
      this.#threads.set(id, thread)
    }
    return thread
  }

  /** Enters what the thread executed since its last event; a clock that went back counts as no time. */
  #enterExecution(thread: ThreadWindow, ran: Micros): void {
    const elapsedUs = Math.max(0, ran - thread.lastEventUs)
    const locals = Math.floor(elapsedUs / this.#localUs)
    for (let i = 0; i < Math.min(this.#window, locals); i++) this.#enter(thread, LOCAL)
    thread.stayLocals = Math.min(thread.stayLocals + locals, STAY_COUNT_MAX)
    thread.lastEventUs = ran
  }

  #enter(thread: ThreadWindow, event: NodeIndex | typeof LOCAL): void {
    thread.events.push(event)
    if (thread.events.length > this.#window) thread.events.shift()
  }
}

function count(events: readonly number[], owner: NodeIndex): number {
  let found = 0
  for (const event of events) if (event === owner) found++
  return found
}

const windowKey: PolicyKey = {
  key: 'window',
  fallback: 10,
  meaning: `events that are remembered per thread, 1 to ${WINDOW_MAX}`,
  parse: text => parseCount('window', text, 1, WINDOW_MAX),
}

const thresholdKey: PolicyKey = {
  key: 'threshold',
  fallback: 0.2,
  meaning: 'share of the window that pulls from one node must reach, above 0, at most 1',
  parse: text => {
    const value = /^(\d+(\.\d*)?|\.\d+)(e-?\d+)?$/.test(text) ? Number(text) : Number.NaN
    if (value > 0 && value <= 1) return { kind: 'ok', value }
    return {
      kind: 'refused',
      reason: `threshold must be a number above 0 and at most 1, not ${JSON.stringify(text)}`,
    }
  },
}

const localUsKey: PolicyKey = {
  key: 'localUs',
  fallback: 50,
  meaning: 'microseconds of execution that count as one local event',
  parse: text => parseCount('localUs', text, 1, LOCAL_US_MAX),
}

const patienceKey: PolicyKey = {
  key: 'patience',
  fallback: 10,
  meaning: `doublings of the pulls before the next jump while jumps do not pay, 0 (never) to ${PATIENCE_MAX}`,
  parse: text => parseCount('patience', text, 0, PATIENCE_MAX),
}

export const multinodeAdaptiveLru: PolicyDefinition = {
  name: 'multinode-adaptive-lru',
  summary: "the paper's: jump to a node when pulls from it make up a share of the last events",
  keys: [windowKey, thresholdKey, localUsKey, patienceKey],
  create: values => {
    const value = (key: PolicyKey) => {
      const found = values.get(key.key)
      invariant(found !== undefined, 'a key has no value')
      return found
    }
    return new MultinodeAdaptiveLru(
      value(windowKey),
      value(thresholdKey),
      value(localUsKey),
      value(patienceKey),
    )
  },
}
