import test from 'ava'

import { nodeIndex, threadId } from '../../placement/ids.js'
import { parsePolicy } from '../../placement/registry.js'
import { PlacementRule } from '../../placement/rule.js'
import { micros } from '../../placement/units.js'

const THREAD = threadId(1)

/** A rule and one thread of it, driven with as few words as a test needs. */
class Driver {
  readonly rule: PlacementRule
  ran = 0

  constructor(spec: string, jumpEvery = 0) {
    const parsed = parsePolicy(spec)
    if (parsed.kind === 'refused') throw new Error(parsed.reason)
    this.rule = new PlacementRule(parsed.value.create(), jumpEvery)
  }

  /** The answers to faults on pages of these nodes, all at different instructions unless one is given. */
  faults(owners: number[], rip?: number): string {
    return owners.map((owner, i) => this.fault(owner, rip ?? this.ran * 100 + i)).join(' ')
  }

  fault(owner: number, rip: number): string {
    this.ran += 1
    const decision = this.rule.decide({ thread: THREAD, owner: nodeIndex(owner), rip }, micros(this.ran))
    return decision.kind === 'jump' ? `jump${decision.to}` : decision.reason
  }

  arrive(mark = 0): void {
    this.ran += 1
    this.rule.observe({ kind: 'arrived', thread: THREAD, mark }, micros(this.ran))
  }

  local(): void {
    this.rule.observe({ kind: 'local', thread: THREAD }, micros(this.ran))
  }
}

test('always-pull pulls', t => {
  t.is(new Driver('always-pull').faults([1, 1, 1, 1]), 'always-pull always-pull always-pull always-pull')
})

test('the window fills from one node: jump there, and the window is empty again', t => {
  const driver = new Driver('multinode-adaptive-lru:window=10,threshold=0.3,patience=0')
  t.is(
    driver.faults([1, 2, 1, 2, 1]),
    'below-threshold below-threshold below-threshold below-threshold jump1',
  )
  t.is(driver.faults([2, 2, 2]), 'below-threshold below-threshold jump2')
})

test('local events push pulls out of the window', t => {
  const driver = new Driver('multinode-adaptive-lru:window=4,threshold=0.5')
  t.is(driver.faults([1]), 'below-threshold')
  for (let i = 0; i < 4; i++) driver.local()
  t.is(driver.faults([1]), 'below-threshold')
  t.is(driver.faults([1]), 'jump1')
})

test('execution counts as local events', t => {
  const spec = 'multinode-adaptive-lru:window=4,threshold=0.5,localUs=50'
  const busy = new Driver(spec)
  busy.faults([1])
  busy.ran += 200
  t.is(busy.faults([1]), 'below-threshold')
  const idle = new Driver(spec)
  idle.faults([1])
  t.is(idle.faults([1]), 'jump1')
})

test('after an arrival four pages are pulled before the next jump', t => {
  const driver = new Driver('multinode-adaptive-lru:window=2,threshold=0.5')
  t.is(driver.faults([1]), 'jump1')
  driver.arrive()
  t.is(driver.faults([2, 2, 2, 2, 2]), 'just-arrived just-arrived just-arrived just-arrived jump2')
})

test('stays that are not worth their jumps get longer, twice each time, and one that is ends that', t => {
  const driver = new Driver('multinode-adaptive-lru:window=2,threshold=0.5,localUs=50,patience=3')
  const pullsBeforeJump = () => {
    driver.arrive()
    let pulls = 0
    while (!driver.faults([1]).startsWith('jump')) pulls++
    return pulls
  }
  t.is(driver.faults([1]), 'jump1')
  t.deepEqual([1, 2, 3, 4, 5, 6].map(pullsBeforeJump), [4, 8, 16, 32, 32, 32])
  driver.arrive()
  driver.ran += 50 * 4 * 32
  for (let i = 0; i < 32; i++) t.regex(driver.faults([1]), /below-threshold|just-arrived|restless/)
  t.is(driver.faults([1]), 'jump1')
  t.is(pullsBeforeJump(), 4, 'four local events for each pull: it was worth it')
})

test('patience 0 is the plain rule', t => {
  const driver = new Driver('multinode-adaptive-lru:window=2,threshold=0.5,patience=0')
  driver.faults([1])
  for (let jump = 0; jump < 6; jump++) {
    driver.arrive()
    t.is(driver.faults([2, 2, 2, 2, 2]), 'just-arrived just-arrived just-arrived just-arrived jump2')
  }
})

test('jump-every counts faults since the last jump', t => {
  const driver = new Driver('always-pull', 3)
  t.is(driver.faults([1, 1, 2]), 'always-pull always-pull jump2')
  driver.arrive()
  t.is(driver.faults([1, 1, 3]), 'always-pull always-pull jump3')
})

test('one instruction does not jump twice in a row without k pulls', t => {
  const driver = new Driver('always-pull', 1)
  t.is(driver.faults([1], 7), 'jump1')
  driver.arrive(11)
  const four = 'same-instruction same-instruction same-instruction same-instruction'
  t.is(driver.faults([2, 2, 2, 2, 2], 7), `${four} jump2`)
  driver.arrive(12)
  t.is(driver.faults([1, 1, 1, 1, 1], 7), `${four} jump1`, 'other registers: it made progress, no doubling')
})

test('an instruction that makes no progress needs twice as many pulls each time, up to 64', t => {
  const driver = new Driver('always-pull', 1)
  driver.faults([1], 7)
  driver.arrive(11)
  const pulls: number[] = []
  for (let jump = 0; jump < 7; jump++) {
    let pulled = 0
    while (driver.fault(2, 7) === 'same-instruction') pulled++
    pulls.push(pulled)
    driver.arrive(11)
  }
  t.deepEqual(pulls, [4, 8, 16, 32, 64, 64, 64])
})

/** Pulls before each of so many jumps with `--jump-every 1`; each fault comes `executionUs` after the last event. */
function pullsBeforeJumps(driver: Driver, jumps: number, executionUs: number): number[] {
  return Array.from({ length: jumps }, (_, jump) => {
    let pulls = 0
    for (;;) {
      driver.ran += executionUs
      if (driver.fault(1 + (jump % 2), driver.ran) !== 'to-and-fro') break
      pulls++
    }
    driver.arrive(jump + 1)
    return pulls
  })
}

test('jump-every: a thread that goes to and fro without executing anything pulls more and more between jumps', t => {
  const free = Array(9).fill(0)
  const driver = new Driver('always-pull', 1)
  const doublings = [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
  t.deepEqual(pullsBeforeJumps(driver, 20, 10), [...free, ...doublings, 1024])
  driver.arrive(99)
  t.deepEqual(pullsBeforeJumps(driver, 2, 10), [512, 1024], 'a system call takes one step back')
  t.deepEqual(pullsBeforeJumps(driver, 4, 60), [1024, 512, 256, 128], 'so does a stay with enough execution')
})

test('jump-every: a thread that executes between its faults jumps at every one', t => {
  t.deepEqual(pullsBeforeJumps(new Driver('always-pull', 1), 50, 60), Array(50).fill(0))
})

test('jump-every: a thread that makes a system call at each stop keeps jumping', t => {
  const driver = new Driver('always-pull', 1)
  for (let jump = 0; jump < 100; jump++) {
    t.deepEqual(pullsBeforeJumps(driver, 1, 10), [0])
    driver.arrive(99)
  }
})

test('coming home for a system call frees the instruction of the last jump', t => {
  const driver = new Driver('always-pull', 1)
  driver.faults([1], 7)
  driver.arrive(11)
  driver.arrive(12)
  t.is(driver.fault(1, 7), 'jump1')
})

test('policy specs: defaults are filled in, and the full form is stable', t => {
  const parsed = parsePolicy('multinode-adaptive-lru:threshold=.5')
  t.is(parsed.kind, 'ok')
  if (parsed.kind !== 'ok') return
  t.is(parsed.value.spec, 'multinode-adaptive-lru:window=10,threshold=0.5,localUs=50,patience=10')
  const again = parsePolicy(parsed.value.spec)
  t.is(again.kind === 'ok' ? again.value.spec : '', parsed.value.spec)
})

test('a bad policy spec is refused by a line that helps', t => {
  const cases: [string, RegExp][] = [
    ['', /unknown policy ""/],
    ['lru', /unknown policy "lru": there are always-pull, multinode-adaptive-lru/],
    ['always-pull:', /no key ""; it has no keys/],
    ['always-pull:x=1', /no key "x"/],
    ['multinode-adaptive-lru:windows=3', /has no key "windows"; it has window \(/],
    ['multinode-adaptive-lru:window', /write window=VALUE/],
    ['multinode-adaptive-lru:window=3=4', /write window=VALUE/],
    ['multinode-adaptive-lru:window=3,window=4', /twice/],
    ['multinode-adaptive-lru:window=65', /window must be a whole number from 1 to 64/],
    ['multinode-adaptive-lru:threshold=0', /threshold must be/],
    ['multinode-adaptive-lru:threshold=1.01', /threshold must be/],
    ['multinode-adaptive-lru:localUs=0', /localUs must be/],
  ]
  for (const [spec, reason] of cases) {
    const parsed = parsePolicy(spec)
    t.regex(parsed.kind === 'refused' ? parsed.reason : 'accepted', reason)
  }
})
