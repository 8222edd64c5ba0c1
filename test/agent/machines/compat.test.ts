/** Compatibility of two machines, with forged facts: each mismatch that matters is refused by name. */

import test from 'ava'
import { checkCompatibility } from '../../../agent/machines/compat.js'
import type { CompatibilityFacts } from '../../../agent/machines/types.js'
import { FACTS } from '../fake-pagers.js'

const refused: readonly [string, Partial<CompatibilityFacts>, string][] = [
  ['protocol', { protocolVersion: 2 }, 'protocol version 2 here, 1 at home'],
  ['architecture', { arch: 'aarch64' }, 'architecture aarch64 here, x86_64 at home'],
  ['page size', { pageSize: 16384 }, 'page size 16384 here, 4096 at home'],
  ['old kernel', { kernel: '5.10.0-26-amd64' }, 'kernel 5.10.0-26-amd64 here, 6.1 needed'],
  ['unreadable kernel', { kernel: 'six' }, 'kernel six here, 6.1 needed'],
  ['one feature', { cpuFeatures: ['fpu', 'sse', 'sse2', 'avx'] }, 'CPU features missing here: avx2'],
  ['register state', { xcr0: '0x3' }, 'register state 0x4 (XCR0) is off here'],
  ['unreadable register state', { xcr0: 'all' }, 'register state 0x7 (XCR0) is off here'],
]

for (const [name, forged, detail] of refused) {
  test(`refused: ${name}`, t => {
    const result = checkCompatibility(FACTS, { ...FACTS, ...forged })
    t.deepEqual(result, { kind: 'refused', refusal: { code: 'incompatible', detail } })
  })
}

test('many missing features are summed up', t => {
  const home = { ...FACTS, cpuFeatures: ['a1', 'a2', 'a3', 'a4', 'a5', 'a6'] }
  const result = checkCompatibility(home, FACTS)
  t.like(result, { refusal: { detail: 'CPU features missing here: a1 a2 a3 a4 and 2 more' } })
})

test('an old kernel at home is refused too', t => {
  const result = checkCompatibility({ ...FACTS, kernel: '5.4' }, FACTS)
  t.like(result, { refusal: { detail: 'kernel 5.4 at home, 6.1 needed' } })
})

test('more on the peer, other topology and other kernels do no harm; differences are told', t => {
  const home = { ...FACTS, cpuFeatures: [...FACTS.cpuFeatures, 'ht', 'vmx', 'hypervisor'] }
  const more = { cpuFeatures: [...FACTS.cpuFeatures, 'avx512f'], xcr0: '0xe7' }
  const peer = { ...FACTS, ...more, kernel: '6.12.1', cpuVendor: 'AuthenticAMD' }
  const warnings = [
    'CPU vendors differ: GenuineIntel, AuthenticAMD',
    'kernels differ: 6.1.0-13-amd64, 6.12.1',
  ]
  t.deepEqual(checkCompatibility(home, peer), { kind: 'fits', warnings })
  t.deepEqual(checkCompatibility(FACTS, FACTS), { kind: 'fits', warnings: [] })
})
