/**
 * The pager's rule (C++) and its TypeScript twin get the same random steps and must give the same answers, every
 * one of them. 12 rules × 10,000 steps, seeded; steps are drawn so that windows fill, guards bite and clocks jump.
 */

import { spawnSync } from 'node:child_process'

import test from 'ava'
import { uniformInt } from 'pure-rand/distribution/uniformInt'
import { xoroshiro128plus } from 'pure-rand/generator/xoroshiro128plus'

import { nodeIndex, threadId } from '../../placement/ids.js'
import { parsePolicy } from '../../placement/registry.js'
import { PlacementRule } from '../../placement/rule.js'
import { micros } from '../../placement/units.js'
import { PAGER } from '../helpers/native.js'
import { SEED } from '../helpers/seed.js'

const STEPS = 10_000
const RULES: [string, number][] = [
  ['always-pull', 0],
  ['always-pull', 1],
  ['always-pull', 7],
  ['multinode-adaptive-lru', 0],
  ['multinode-adaptive-lru', 5],
  ['multinode-adaptive-lru:window=1,threshold=1', 0],
  ['multinode-adaptive-lru:window=2,threshold=0.01,localUs=1', 0],
  ['multinode-adaptive-lru:window=64,threshold=0.07', 0],
  ['multinode-adaptive-lru:window=3,threshold=0.3,localUs=5,patience=2', 0],
  ['multinode-adaptive-lru:window=33,threshold=0.3,localUs=20', 0],
  ['multinode-adaptive-lru:window=50,threshold=0.14,localUs=1000,patience=0', 0],
  ['multinode-adaptive-lru:window=10,threshold=1e-9', 3],
  ['multinode-adaptive-lru:window=7,threshold=.99999,localUs=3600000000', 500],
]

/** Draws steps in the pager's line format and answers them by the TypeScript rule. */
class Walk {
  readonly steps: string[] = []
  readonly answers: string[] = []
  readonly #rule: PlacementRule
  readonly #random: ReturnType<typeof xoroshiro128plus>
  #ran = 1
  /** For a while one thread faults at one instruction and never makes progress. */
  #stuckSteps = 0

  constructor(spec: string, jumpEvery: number, seed: number) {
    const parsed = parsePolicy(spec)
    if (parsed.kind === 'refused') throw new Error(parsed.reason)
    this.#rule = new PlacementRule(parsed.value.create(), jumpEvery)
    this.#random = xoroshiro128plus(seed)
    for (let i = 0; i < STEPS; i++) this.#step()
  }

  #draw(max: number): number {
    return uniformInt(this.#random, 0, max)
  }

  #step(): void {
    if (this.#stuckSteps > 0) {
      this.#stuckSteps--
      this.#ran += this.#draw(3)
      this.#fault(threadId(0))
      return
    }
    if (this.#draw(999) === 0) this.#stuckSteps = 400
    const thread = threadId(this.#draw(2))
    this.#advance()
    const kind = this.#draw(99)
    if (kind < 80) this.#fault(thread)
    else if (kind < 92) this.#observe('local', `l ${thread}`, thread)
    else if (kind < 99) this.#arrive(thread)
    else this.#observe('exited', `x ${thread}`, thread)
  }

  #advance(): void {
    const kind = this.#draw(19)
    if (kind === 0) this.#ran += this.#draw(5000)
    else if (kind === 1) this.#ran = Math.max(1, this.#ran - this.#draw(500))
    else this.#ran += this.#draw(30)
  }

  #fault(thread: ReturnType<typeof threadId>): void {
    // Streaks of one owner and of one instruction, as loops make them.
    const owner = nodeIndex(this.#draw(5) === 0 ? this.#draw(254) : 1 + this.#draw(1))
    const rip = this.#stuckSteps === 0 && this.#draw(3) === 0 ? this.#draw(5) : 0x401000
    this.steps.push(`f ${thread} ${owner} ${this.#ran} ${rip}`)
    const decision = this.#rule.decide({ thread, owner, rip }, micros(this.#ran))
    const answer =
      decision.kind === 'jump' ? `jump ${decision.to} ${decision.reason}` : `pull ${decision.reason}`
    this.answers.push(answer)
    if (decision.kind === 'jump' && this.#draw(9) > 0) this.#arrive(thread)
  }

  #arrive(thread: ReturnType<typeof threadId>): void {
    const mark = this.#stuckSteps > 0 ? 9 : this.#draw(3)
    this.steps.push(`a ${thread} ${this.#ran} ${mark}`)
    this.#rule.observe({ kind: 'arrived', thread, mark }, micros(this.#ran))
  }

  #observe(kind: 'local' | 'exited', step: string, thread: ReturnType<typeof threadId>): void {
    this.steps.push(step)
    this.#rule.observe({ kind, thread }, micros(this.#ran))
  }
}

for (const [spec, jumpEvery] of RULES) {
  test(`the pager decides as the twin: ${spec} jump-every ${jumpEvery}`, t => {
    const walk = new Walk(spec, jumpEvery, SEED)
    const pager = spawnSync(PAGER, ['policy-lockstep', spec, String(jumpEvery)], {
      input: `${walk.steps.join('\n')}\n`,
      encoding: 'utf8',
      timeout: 60_000,
    })
    t.is(pager.status, 0, `${pager.error ?? ''}${pager.stderr}`)
    const answers = pager.stdout.trimEnd().split('\n')
    const at = walk.answers.findIndex((answer, i) => answer !== answers[i])
    t.is(at, -1, `seed ${SEED}, answer ${at}: pager "${answers[at]}", twin "${walk.answers[at]}"`)
    t.is(answers.length, walk.answers.length)
  })
}

test('the pager refuses a spec it does not understand with one line', t => {
  for (const spec of [
    'lru',
    'always-pull:x=1',
    'multinode-adaptive-lru:window=0',
    'multinode-adaptive-lru:window=9x',
  ]) {
    const pager = spawnSync(PAGER, ['policy-lockstep', spec, '0'], {
      input: '',
      encoding: 'utf8',
      timeout: 10_000,
    })
    t.is(pager.status, 2, spec)
    t.is(pager.stderr.trimEnd().split('\n').length, 1)
  }
})
