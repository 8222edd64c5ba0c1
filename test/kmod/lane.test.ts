/**
 * Builds and runs the native lane tests (kmod/pager/test/lane_test.cpp): handshakes and refusals, hostile frames,
 * slow readers, ends at awkward moments, 100,000 random frames each way; then, with fewer frames, the same under
 * the address and undefined-behaviour sanitizers.
 */

import { spawnSync } from 'node:child_process'
import { join } from 'node:path'

import test, { type ExecutionContext } from 'ava'

import { ROOT } from '../helpers/native.js'

const PAGER_DIR = join(ROOT, 'kmod', 'pager')

function run(command: string, args: string[]): { status: number | null; text: string } {
  const done = spawnSync(command, args, { encoding: 'utf8', timeout: 170_000, maxBuffer: 1 << 24 })
  return { status: done.status, text: `${done.stdout}${done.stderr}${done.error?.message ?? ''}` }
}

function testLane(t: ExecutionContext, target: string, program: string, frames: number): void {
  t.timeout(180_000)
  const built = run('make', ['-s', '-C', join(PAGER_DIR, 'test'), target])
  t.is(built.status, 0, built.text)
  const tested = run(join(PAGER_DIR, 'build', program), [String(frames)])
  t.is(tested.status, 0, tested.text)
  t.true(tested.text.endsWith('all lane tests passed\n'), tested.text)
}

test.serial('native lane tests', t => testLane(t, 'lane-test', 'lane-test', 100_000))

test.serial('native lane tests under the sanitizers', t =>
  testLane(t, 'san', join('san', 'lane-test'), 20_000),
)
