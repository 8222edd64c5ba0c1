/** Building and running the native test programs of kmod/pager/test. Every call has a time limit. */

import { spawnSync } from 'node:child_process'
import { join } from 'node:path'

import { ROOT } from './native.js'

export interface NativeOutcome {
  readonly status: number | null
  readonly text: string // standard output, then standard error
}

const PAGER_DIR = join(ROOT, 'kmod', 'pager')
const TIMEOUT_MS = 170_000

/** Runs any command. */
export function runCommand(command: string, args: string[]): NativeOutcome {
  const done = spawnSync(command, args, { encoding: 'utf8', timeout: TIMEOUT_MS, maxBuffer: 1 << 24 })
  return { status: done.status, text: `${done.stdout}${done.stderr}${done.error?.message ?? ''}` }
}

/** Makes one target of a makefile in kmod/pager/test. */
export function buildNative(makefile: string, target: string): NativeOutcome {
  return runCommand('make', ['-s', '-C', join(PAGER_DIR, 'test'), '-f', makefile, target])
}

/** Runs a program of kmod/pager/build. */
export function runNative(program: string, args: string[]): NativeOutcome {
  return runCommand(join(PAGER_DIR, 'build', program), args)
}
