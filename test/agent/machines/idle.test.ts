/** Participants that are of no use: when they are let go, and that they are not asked again before room is wanted. */

import test from 'ava'
import { IDLE_MS, IdleParticipants, type IdleSample } from '../../../agent/machines/idle.js'
import { type HomeEffect, LeaseHome } from '../../../agent/machines/lease-home.js'
import type { PeerId } from '../../../agent/machines/types.js'

const b = { name: 'b', pages: 0, threads: 0 }
const sample: IdleSample = { isRunning: true, residentPages: 100, limitPages: 1000, participants: [b] }

/** Shows `busy` once, in the middle, to a machine that else sees nothing done; what it says at the end. */
function afterBusy(busy: IdleSample): string[] {
  const machine = new IdleParticipants()
  machine.onSample(sample, 0)
  machine.onSample(busy, IDLE_MS / 2)
  machine.onSample(sample, IDLE_MS / 2 + 1000)
  return machine.onSample(sample, IDLE_MS)
}

test('who holds nothing and runs nothing for half a minute may go', t => {
  t.deepEqual(afterBusy(sample), ['b'])
  t.deepEqual(afterBusy({ ...sample, participants: [{ ...b, pages: 1 }] }), [])
  t.deepEqual(afterBusy({ ...sample, participants: [{ ...b, threads: 1 }] }), [])
  t.deepEqual(afterBusy({ ...sample, participants: [] }), [])
  t.deepEqual(afterBusy({ ...sample, isRunning: false }), [])
  t.deepEqual(afterBusy({ ...sample, residentPages: 801 }), [])
})

const peer = 'peer-b' as PeerId
const lender = { peer, name: 'b', incarnation: 1, freePages: 1000 }
const TERMS = { pages: 1000, threads: 1, ttlMs: 1000 }

/** A run of which `peer` is a participant. */
function withParticipant(): LeaseHome {
  const machine = new LeaseHome({ participantsMax: 4, leaseIdBase: 1 })
  take(machine, machine.onEvent({ kind: 'available', lenders: [lender] }, 0), 0)
  return machine
}

function take(machine: LeaseHome, effects: readonly HomeEffect[], now: number): void {
  const offer = effects.find(effect => effect.kind === 'offer')
  if (offer?.kind !== 'offer') throw new Error('no offer')
  const { leaseId, node } = offer
  machine.onEvent({ kind: 'granted', peer, leaseId, terms: TERMS, host: 'h', port: 1 }, now)
  machine.onEvent({ kind: 'lane-up', node }, now)
}

test('it is let go, and asked again when room is wanted', t => {
  const machine = withParticipant()
  const node = 1
  t.deepEqual(machine.onEvent({ kind: 'rest', peer }, 1000), [{ kind: 'drop', node }])
  t.deepEqual(machine.onEvent({ kind: 'rest', peer }, 2000), [])
  machine.onEvent({ kind: 'lane-down', node, reason: 'contracted' }, 3000)
  t.deepEqual(machine.onEvent({ kind: 'available', lenders: [{ ...lender, incarnation: 2 }] }, 50_000), [])
  t.deepEqual(machine.onEvent({ kind: 'tick' }, 60_000), [])
  take(machine, machine.onEvent({ kind: 'rest', peer: undefined }, 70_000), 70_000)
  t.is(machine.up().length, 1)
})

test('whom a person has named stays, until a person lets it go', t => {
  const machine = withParticipant()
  t.deepEqual(machine.onEvent({ kind: 'stretch', peer }, 0), [])
  t.deepEqual(machine.onEvent({ kind: 'rest', peer }, 1000), [])
  t.deepEqual(machine.onEvent({ kind: 'contract', peer }, 2000), [{ kind: 'drop', node: 1 }])
  machine.onEvent({ kind: 'lane-down', node: 1, reason: 'contracted' }, 3000)
  t.deepEqual(machine.onEvent({ kind: 'rest', peer: undefined }, 60_000), [])
})
