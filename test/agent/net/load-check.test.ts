/** What is believed of gossip: old loads that somebody says again cost their origin and whoever passes them on nothing. */

import { type Message, TopicValidatorResult as Verdict } from '@chainsafe/libp2p-gossipsub'
import test from 'ava'
import fc from 'fast-check'
import type { Load } from '../../../agent/machines/membership.js'
import type { PeerId } from '../../../agent/machines/types.js'
import { Conduct } from '../../../agent/net/conduct.js'
import { LoadCheck } from '../../../agent/net/load-check.js'
import { encodeLoad } from '../../../agent/net/messages.js'
import { loadOf } from '../../conformance/peer-network-agent.js'
import { check } from '../../helpers/seed.js'

const [SELF, B, C] = ['self', 'b', 'c'] as PeerId[] as [PeerId, PeerId, PeerId]

class Bench {
  readonly offences: string[] = []
  readonly said = new Map<PeerId, Load>()
  readonly #check = new LoadCheck({
    self: SELF,
    conduct: new Conduct(),
    isAllowed: () => true,
    saidBy: peer => this.said.get(peer),
    onOffence: (source, offence) => this.offences.push(`${source} ${offence}`),
  })

  hears(source: PeerId, origin: PeerId, load: Load, now: number): Verdict {
    const message = { type: 'signed', from: origin, data: encodeLoad(load) } as unknown as Message
    const verdict = this.#check.check(source, message, now)
    // As the agent does with what is accepted.
    const said = this.said.get(origin)
    if (verdict === Verdict.Accept && said?.incarnation === load.incarnation) this.said.set(origin, load)
    return verdict
  }
}

for (const hasStream of [true, false])
  test(`loads said again displace no newer ones and are nobody's flood, ${hasStream ? 'of a joined agent' : 'of another one'}`, async t => {
    const replays = fc.array(fc.array(fc.nat({ max: 1_000 }), { maxLength: 40 }), {
      minLength: 20,
      maxLength: 150,
    })
    await check(
      t,
      fc.property(replays, rounds => {
        const bench = new Bench()
        if (hasStream) bench.said.set(B, loadOf('b', 7, 0))
        const taken: number[] = []
        for (const [i, round] of rounds.entries()) {
          const sequence = i + 1
          const own = loadOf('b', 7, sequence)
          if (bench.hears(B, B, own, i * 1_000) === Verdict.Accept) taken.push(sequence)
          for (const [j, old] of round.entries()) {
            const again = old < sequence ? loadOf('b', 7, old) : loadOf('b', 6, old)
            if (bench.hears(C, B, again, i * 1_000 + j) === Verdict.Accept) taken.push(-1)
          }
        }
        return bench.offences.length === 0 && taken.length === rounds.length && !taken.includes(-1)
      }),
      100,
    )
  })

test('an agent whose clock was set back is heard once it has said which of its starts it is', t => {
  const bench = new Bench()
  t.is(bench.hears(B, B, loadOf('b', 9, 5), 0), Verdict.Accept)
  t.is(bench.hears(C, B, loadOf('b', 3, 1), 1), Verdict.Ignore)
  bench.said.set(B, loadOf('b', 3, 1))
  t.is(bench.hears(C, B, loadOf('b', 9, 6), 2), Verdict.Ignore)
  t.is(bench.hears(B, B, loadOf('b', 3, 2), 3), Verdict.Accept)
})

test('who passes on more than is taken is not blamed, and its own messages have room', t => {
  const conduct = new Conduct()
  const offences: string[] = []
  const check = new LoadCheck({
    self: SELF,
    conduct,
    isAllowed: () => true,
    saidBy: () => undefined,
    onOffence: (source, offence) => offences.push(`${source} ${offence}`),
  })
  const verdicts = new Map<Verdict, number>()
  for (let i = 0; i < 10_000; i++) {
    const data = encodeLoad(loadOf('x', 1, i))
    const message = { type: 'signed', from: `x${i % 900}`, data } as unknown as Message
    const verdict = check.check(B, message, 0)
    verdicts.set(verdict, (verdicts.get(verdict) ?? 0) + 1)
  }
  t.deepEqual(
    verdicts,
    new Map([
      [Verdict.Accept, 2_000],
      [Verdict.Ignore, 8_000],
    ]),
  )
  t.true(conduct.takes('messages', B, 0))
  t.true(conduct.takes('loads', B, 0))
  t.deepEqual(offences, [])
})

test('too many of its own count against an agent, as do bytes that are no load', t => {
  const bench = new Bench()
  for (let i = 0; i < 103; i++) bench.hears(C, C, loadOf('c', 1, i), 0)
  t.deepEqual(bench.offences, ['c flood', 'c flood', 'c flood'])
  for (let i = 0; i < 103; i++) bench.hears(B, C, loadOf('c', 1, 200 + i), 0)
  t.is(bench.offences.length, 3, 'passed on')
  t.is(bench.hears(B, SELF, loadOf('self', 1, 1), 0), Verdict.Ignore)
})
