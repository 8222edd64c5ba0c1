/**
 * Builds and runs the native tests of the spill (kmod/pager/test/spill_test.cpp): slots, buffers, slots freed while
 * under way, injected failures, blocks given back, nothing left in the page cache, and 100,000 random steps against a
 * model, with direct and with buffered I/O; then, with fewer steps, the same under the sanitizers.
 */

import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'

import test, { type ExecutionContext } from 'ava'
import { ROOT } from '../helpers/native.js'
import { buildNative, runNative } from '../helpers/native-tests.js'
import { SEED } from '../helpers/seed.js'

function testSpill(t: ExecutionContext, target: string, program: string, steps: number): void {
  t.timeout(240_000)
  const built = buildNative('spillfacts.mk', target)
  t.is(built.status, 0, built.text)
  // Not in /tmp, which may be memory: the spill refuses that.
  const directory = mkdtempSync(join(ROOT, 'kmod', 'pager', 'build', 'spill-'))
  try {
    const tested = runNative(program, [directory, String(SEED), String(steps)])
    t.is(tested.status, 0, tested.text)
    t.regex(tested.text, /^PASS model$/m)
    t.regex(tested.text, /^PASS threads, buffered$/m)
    t.notRegex(tested.text, /^FAIL/m)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

test.serial('native spill tests', t => testSpill(t, '../build/spill-test', 'spill-test', 100_000))

test.serial('native spill tests under the sanitizers', t =>
  testSpill(t, '../build/san/spill-test', join('san', 'spill-test'), 20_000),
)
