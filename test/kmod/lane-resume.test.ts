/**
 * Builds and runs the native tests of lanes that are cut (kmod/pager/test/lanes_resume_test.cpp): at every byte, in
 * both directions, on either connection or on both, again and again.
 */

import test from 'ava'
import { buildNative, runNative } from '../helpers/native-tests.js'

/** Between two places where the scripted exchange is cut: each byte is tried, and takes half a minute. */
const STEP_BYTES = 1
const SEEDS = 60

test.serial('native tests of lanes that are cut', t => {
  t.timeout(360_000)
  const built = buildNative('engine.mk', '../build/resume-test')
  t.is(built.status, 0, built.text)
  const tested = runNative('resume-test', [String(STEP_BYTES), String(SEEDS)])
  t.is(tested.status, 0, tested.text)
  t.true(tested.text.endsWith('all lane resume tests passed\n'), tested.text)
})
