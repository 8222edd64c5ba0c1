/** The machine's own clock and chance keep the contracts of their ports. */

import test from 'ava'
import { every, sleep, systemClock } from '../../agent/ports/clock.js'
import { systemRng, systemSecrets } from '../../agent/ports/rng.js'

/** Timers of the clock keep no process alive; a test has to. */
const alive = setInterval(() => {}, 1_000)
test.after.always(() => clearInterval(alive))

test('timers act once, never early, and not when cancelled', async t => {
  const acted: string[] = []
  const start = systemClock.now()
  const timers = [12, 3, 7].map(ms =>
    systemClock.at(start + ms, () => acted.push(systemClock.now() >= start + ms ? `${ms}` : 'early')),
  )
  const cancelled = systemClock.at(start + 5, () => acted.push('cancelled'))
  systemClock.at(start - 5, () => acted.push('past'))
  t.deepEqual(acted, [])
  cancelled.cancel()
  while (acted.length < 4) await sleep(systemClock, 2)
  t.deepEqual(acted.sort(), ['12', '3', '7', 'past'])
  for (const timer of timers) timer.cancel()
})

test('what acts again and again stops when cancelled, from within as well', async t => {
  let count = 0
  await new Promise<void>(resolve => {
    const timer = every(systemClock, 1, () => {
      count++
      if (count < 5) return
      timer.cancel()
      resolve()
    })
  })
  await sleep(systemClock, 10)
  t.is(count, 5)
})

test('what is drawn is in range', t => {
  for (let i = 0; i < 1_000; i++) {
    const a = systemRng.between(-1, 1)
    t.true(a >= -1 && a < 1)
    t.true(systemRng.below(2) < 2)
    t.true(Number.isSafeInteger(systemRng.below(2 ** 47)))
    t.true([1, 2].includes(systemRng.pick([1, 2])))
  }
  t.false(systemRng.chance(0))
  t.true(systemRng.chance(1))
  t.throws(() => systemRng.pick([]), { instanceOf: RangeError })
  t.is(systemSecrets(32).length, 32)
  t.notDeepEqual(systemSecrets(32), systemSecrets(32))
})
