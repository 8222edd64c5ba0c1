/**
 * What a program of the matrix is, and how one is prepared.
 */

import { execFileSync } from 'node:child_process'
import { accessSync, constants, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { buildProgram } from '../helpers/programs.js'
import { writeLines } from './inputs.js'

export type Scale = 'small' | 'full'

/** What to run, in this order, each command stretched; `files` are compared afterwards and removed before. */
export interface Prepared {
  readonly commands: readonly (readonly string[])[]
  readonly files: readonly string[]
  /** Runs beside the one command, not stretched: its client. It must end well, and its output is compared as well. */
  readonly client?: readonly string[]
}

export interface MatrixProgram {
  readonly name: string
  /** Its threads must have run on two nodes at once. */
  readonly threads?: boolean
  /** Throws an Error whose message says what is missing. */
  prepare(directory: string, scale: Scale): Prepared
}

/** Full path of a program on PATH. Throws with what to install. */
export function which(name: string, debianPackage = name): string {
  for (const directory of (process.env.PATH ?? '/usr/bin:/bin').split(':')) {
    const path = join(directory, name)
    try {
      accessSync(path, constants.X_OK)
      return path
    } catch {
      // Not in this directory.
    }
  }
  throw new Error(`${name} is not installed: apt-get install -y ${debianPackage}`)
}

/** The interpreter itself: what PATH finds may be a shell script of a version manager. */
export function python(): string {
  const code = 'import sys; print(sys.executable)'
  return execFileSync(which('python3'), ['-c', code], { encoding: 'utf8' }).trim()
}

export function script(directory: string, name: string, text: string): string {
  const path = join(directory, name)
  writeFileSync(path, text, { mode: 0o755 })
  return path
}

export function only(...command: string[]): Prepared {
  return { commands: [command], files: [] }
}

/** A file of lines; a page holds few of them, so sorting touches each page few times. */
export function lines(directory: string, scale: Scale): string {
  const path = join(directory, `lines-${scale}.txt`)
  const bytes = 3000
  writeLines(path, scale === 'full' ? 8000 : 4000, bytes)
  return path
}

/** A program of test/programs; `flags` are the compiler's, and one built with other flags lies elsewhere. */
export function compiled(
  directory: string,
  name: string,
  args: readonly (string | number)[],
  flags: readonly string[] = [],
): Prepared {
  const folder = join(directory, flags.join(''))
  mkdirSync(folder, { recursive: true })
  return only(buildProgram(name, folder, flags), ...args.map(String))
}
