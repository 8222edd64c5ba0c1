/**
 * Builds and runs the native tests of the ownership engine (kmod/pager/test/engine_test.cpp): frames in orders that
 * two connections allow and no run can be made to show; of the page table (table_test.cpp): the order in which
 * pages leave, and what it takes of memory; and of contexts (context_test.cpp): what is sent of a thread's processor
 * state, and what is written of it to a task that has most of it already.
 */

import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'

import test from 'ava'
import { ROOT } from '../helpers/native.js'
import { buildNative, runNative } from '../helpers/native-tests.js'

test.serial('native engine tests', t => {
  t.timeout(240_000)
  const built = buildNative('engine.mk', '../build/engine-test')
  t.is(built.status, 0, built.text)
  // Not in /tmp, which may be memory: the spill refuses that.
  const directory = mkdtempSync(join(ROOT, 'kmod', 'pager', 'build', 'engine-'))
  try {
    const tested = runNative('engine-test', [directory])
    t.is(tested.status, 0, tested.text)
    t.true(tested.text.endsWith('all engine tests passed\n'), tested.text)
  } finally {
    rmSync(directory, { recursive: true })
  }
})

test.serial('native table tests', t => {
  t.timeout(240_000)
  const built = buildNative('engine.mk', '../build/table-test')
  t.is(built.status, 0, built.text)
  const tested = runNative('table-test', [])
  t.is(tested.status, 0, tested.text)
  t.is(tested.text, 'all table tests passed\n')
})

for (const build of ['', 'san/'])
  test.serial(`native context tests${build === '' ? '' : ' with sanitizers'}`, t => {
    t.timeout(240_000)
    const built = buildNative('engine.mk', `../build/${build}context-test`)
    t.is(built.status, 0, built.text)
    const tested = runNative(`${build}context-test`, [])
    t.is(tested.status, 0, tested.text)
    t.is(tested.text, 'all context tests passed\n')
  })
