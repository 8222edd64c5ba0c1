/** The codec of the messages between agents: what it writes it reads, anything else is refused and never throws. */

import test from 'ava'
import { encode } from 'cborg'
import fc from 'fast-check'
import type { ProcessId } from '../../../agent/machines/types.js'
import { decodeLoad, decodeMessage, encodeMessage, MESSAGE_BYTES_MAX } from '../../../agent/net/messages.js'
import { LOAD, MESSAGES } from './samples.js'

const processId = '0123456789abcdef' as ProcessId
const terms = { pages: 5, threads: 1, ttlMs: 10_000 }
const laneKey = new Uint8Array(32)

const range = (first: number, pages: number) => ({ first, pages, birth: 0, moves: 1 })
const owned = (ranges: readonly unknown[]) => ({ kind: 'owned', summaries: [{ processId, ranges }] })

for (const message of MESSAGES) {
  test(`${message.kind} survives`, t => {
    t.deepEqual(decodeMessage(encodeMessage(message)), { kind: 'ok', message })
  })

  test(`${message.kind} with a field too many or too few is refused`, t => {
    t.is(decodeMessage(encode({ ...message, extra: 1 })).kind, 'malformed')
    for (const field of Object.keys(message)) {
      const fewer = Object.fromEntries(Object.entries(message).filter(([name]) => name !== field))
      t.is(decodeMessage(encode(fewer)).kind, 'malformed', field)
    }
  })
}

test('values out of range are refused', t => {
  const wrong: unknown[] = [
    { kind: 'release', processId: 'x', leaseId: 1, homeEnded: true },
    { kind: 'release', processId, leaseId: -1, homeEnded: true },
    owned([range(9, 0)]),
    owned([range(2 ** 35 - 2, 2)]),
    owned([{ ...range(9, 1), moves: 2 ** 32 }]),
    owned([range(9, 3), range(11, 1)]),
    owned([range(9, 3), range(4, 1)]),
    owned(Array.from({ length: 65 }, (_, i) => range(2 * i, 1))),
    { kind: 'owned', summaries: Array(9).fill({ processId, ranges: [] }) },
    { kind: 'release', processId, leaseId: 1.5, homeEnded: true },
    { kind: 'release', processId, leaseId: 1, homeEnded: 1 },
    { kind: 'lane-ask', processId, leaseId: 1, fromNode: 64, laneKey },
    { kind: 'lane-ask', processId, leaseId: 1, fromNode: 1, laneKey: new Uint8Array(31) },
    { kind: 'grant', processId, leaseId: 1, terms, host: 'evil.example', port: 1 },
    { kind: 'grant', processId, leaseId: 1, terms, host: '', port: 0 },
    { kind: 'refuse', processId, leaseId: 1, refusal: { code: 'why not', detail: '' } },
    { kind: 'refuse', processId, leaseId: 1, refusal: { code: 'full', detail: '\u001b[2J' } },
    { kind: 'hello', instance: '0'.repeat(32), load: { ...LOAD, name: 'a b' } },
    {
      kind: 'hello',
      instance: '0'.repeat(32),
      load: { ...LOAD, addresses: Array(9).fill('/ip4/1.2.3.4/tcp/5') },
    },
    null,
    [],
    'hello',
  ]
  for (const value of wrong) t.is(decodeMessage(encode(value)).kind, 'malformed', JSON.stringify(value))
  t.is(decodeMessage(new Uint8Array(MESSAGE_BYTES_MAX + 1)).kind, 'malformed')
})

/** `value`, and each object in it, with one field replaced by `other`. */
function* withOneReplaced(value: object, other: unknown): Generator<object> {
  for (const [field, old] of Object.entries(value)) {
    yield { ...value, [field]: other }
    if (old !== null && typeof old === 'object' && !Array.isArray(old) && !(old instanceof Uint8Array))
      for (const inner of withOneReplaced(old, other)) yield { ...value, [field]: inner }
  }
}

test('a value of any type in the place of any other never throws', t => {
  const values = [new Uint8Array([1]), 'text', 7, { a: 1 }, [1], [], null, true]
  for (const message of MESSAGES)
    for (const value of values)
      for (const wrong of withOneReplaced(message, value)) t.notThrows(() => decodeMessage(encode(wrong)))
  for (const value of values)
    for (const wrong of withOneReplaced(LOAD, value)) t.notThrows(() => decodeLoad(encode(wrong)))
})

test('random and changed bytes never throw and never pass unnoticed as another kind', t => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), bytes => {
      decodeLoad(bytes)
      return decodeMessage(bytes).kind === 'malformed'
    }),
    { numRuns: 500 },
  )
  fc.assert(
    fc.property(
      fc.constantFrom(...MESSAGES),
      fc.nat(),
      fc.integer({ min: 0, max: 255 }),
      (message, at, value) => {
        const bytes = Uint8Array.from(encodeMessage(message))
        bytes[at % bytes.length] = value
        const decoded = decodeMessage(bytes)
        return decoded.kind === 'malformed' || decoded.message.kind === message.kind
      },
    ),
    { numRuns: 1000 },
  )
  t.pass()
})
