import test from 'ava'
import fc from 'fast-check'

import { elasticProcessIdOf, parseElasticProcessId } from '../../placement/ids.js'
import {
  bytes,
  formatSize,
  pagesCovering,
  pagesIn,
  parseCount,
  parseDuration,
  parseSize,
} from '../../placement/units.js'
import { check } from '../helpers/seed.js'

test('sizes take K, M and G, binary, either case', t => {
  const sizes: [string, number][] = [
    ['0', 0],
    ['4096', 4096],
    ['64K', 65_536],
    ['64k', 65_536],
    ['512M', 536_870_912],
    ['3G', 3_221_225_472],
  ]
  for (const [text, value] of sizes) t.deepEqual(parseSize(text), { kind: 'ok', value: bytes(value) })
})

test('what is no size is refused by one line that quotes it', t => {
  for (const text of [
    '',
    'M',
    '-1',
    '1.5G',
    '64MB',
    '64 M',
    '1e3',
    '0x10',
    '９',
    '64M\n',
    'ſ',
    `${2 ** 53}`,
    '99999999999G',
  ]) {
    const parsed = parseSize(text)
    t.is(parsed.kind, 'refused', text)
    if (parsed.kind === 'refused') t.false(parsed.reason.includes('\n'))
  }
})

test('durations take ms, s and m, and a bare number is refused', t => {
  for (const [text, ms] of [
    ['250ms', 250],
    ['5s', 5000],
    ['2m', 120_000],
    ['0s', 0],
  ] as const) {
    const parsed = parseDuration(text)
    t.is(parsed.kind === 'ok' ? parsed.value : -1, ms)
  }
  for (const text of ['', '5', '5h', '-5s', '1.5s', '5 s', '5S', 's', '1s\n'])
    t.is(parseDuration(text).kind, 'refused', text)
})

test('counts are whole and within bounds', t => {
  t.deepEqual(parseCount('--participants', '3', 1, 255), { kind: 'ok', value: 3 })
  for (const text of ['0', '256', '', '1.0', '-1', 'x']) {
    const parsed = parseCount('--participants', text, 1, 255)
    t.true(parsed.kind === 'refused' && parsed.reason.startsWith('--participants must be'))
  }
})

test('a printed whole number of units is read back', async t => {
  const units = fc.tuple(fc.integer({ min: 1, max: 1023 }), fc.constantFrom('K', 'M', 'G'))
  await check(
    t,
    fc.property(units, ([amount, unit]) => {
      const parsed = parseSize(`${amount}${unit}`)
      return parsed.kind === 'ok' && formatSize(parsed.value) === `${amount}${unit}`
    }),
  )
})

test('pages in and pages covering bracket a size', async t => {
  await check(
    t,
    fc.property(fc.integer({ min: 0, max: 2 ** 50 }), size => {
      const [inside, covering] = [pagesIn(bytes(size)), pagesCovering(bytes(size))]
      return inside * 4096 <= size && size <= covering * 4096 && covering - inside <= 1
    }),
  )
})

test('process ids are 16 hexadecimal digits', t => {
  t.is(elasticProcessIdOf(Uint8Array.of(0, 1, 2, 3, 0xfc, 0xfd, 0xfe, 0xff)) as string, '00010203fcfdfeff')
  t.is(parseElasticProcessId('00010203fcfdfeff').kind, 'ok')
  for (const text of ['', '00010203FCFDFEFF', '00010203fcfdfeff0', '../../etc/passwd', '00010203fcfdfef\n']) {
    t.is(parseElasticProcessId(text).kind, 'refused', text)
  }
})
