/**
 * What a program of the matrix is, and how one is prepared.
 */

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { which as find, interpreter } from '../../agent/cli/demo/programs.js'
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
  const path = find(name)
  if (path === undefined) throw new Error(`${name} is not installed: apt-get install -y ${debianPackage}`)
  return path
}

export function python(): string {
  return interpreter(which('python3'))
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
