/** Test applications of test/programs, compiled with the system's compiler where a test wants them. */

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT } from './native.js'
import { runCommand } from './native-tests.js'

/** Compiles test/programs/NAME.c, or NAME.cpp, into `directory`; the path of the program. Throws with the compiler's words. */
export function buildProgram(name: string, directory: string, flags: readonly string[] = []): string {
  const stem = join(ROOT, 'test', 'programs', name)
  const isC = existsSync(`${stem}.c`)
  const source = isC ? `${stem}.c` : `${stem}.cpp`
  const target = join(directory, name)
  const built = runCommand(isC ? 'gcc' : 'g++', [
    ...(isC ? [] : ['-std=c++20']),
    '-O2',
    '-Wall',
    '-Wextra',
    '-Werror',
    '-o',
    target,
    source,
    ...flags,
    '-pthread',
  ])
  if (built.status !== 0) throw new Error(`compiling ${source}: ${built.text}`)
  return target
}
