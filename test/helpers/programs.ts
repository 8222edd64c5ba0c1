/** Test applications of test/programs, compiled with the system's compiler where a test wants them. */

import { join } from 'node:path'
import { ROOT } from './native.js'
import { runCommand } from './native-tests.js'

/** Compiles test/programs/NAME.c into `directory`; the path of the program. Throws with the compiler's words. */
export function buildProgram(name: string, directory: string, flags: readonly string[] = []): string {
  const source = join(ROOT, 'test', 'programs', `${name}.c`)
  const target = join(directory, name)
  const built = runCommand('gcc', [
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
  if (built.status !== 0) throw new Error(`gcc ${source}: ${built.text}`)
  return target
}
