/**
 * Reading source files for the style test: which there are, their functions, their imports, and their code without
 * comments and strings.
 *
 * Functions are found by layout, not by parsing: the formatters put a function's closing brace alone at the
 * indentation of its first line. Limit: code that no formatter has seen may be measured wrongly.
 */

import { readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'

import { ROOT } from '../helpers/native.js'

export interface Source {
  /** From the checkout's root. */
  readonly path: string
  readonly text: string
  readonly lines: readonly string[]
}

export interface FunctionSpan {
  /** Counted from 1. */
  readonly line: number
  readonly lines: number
}

const FOLDERS = ['agent', 'placement', 'kmod', 'checkpoint', 'sim-net', 'test']
const SKIPPED = new Set(['node_modules', 'dist', 'build', 'coverage'])

/** All source files whose name ends in one of these, e.g. `.ts`. */
export function sources(...endings: string[]): Source[] {
  const found: Source[] = []
  for (const folder of FOLDERS) collect(join(ROOT, folder), endings, found)
  return found
}

function collect(folder: string, endings: readonly string[], found: Source[]): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    if (entry.isDirectory() && !SKIPPED.has(entry.name)) collect(path, endings, found)
    if (!entry.isFile() || !endings.some(ending => entry.name.endsWith(ending))) continue
    const text = readFileSync(path, 'utf8')
    found.push({ path: relative(ROOT, path), text, lines: text.split('\n') })
  }
}

/** Modules that a TypeScript file imports: package names, `node:…`, or paths from the checkout's root. */
export function importsOf(source: Source): string[] {
  const folder = join(ROOT, source.path, '..')
  const found = [
    ...source.text.matchAll(/^(?:import|export)\b[^'"`;]*?from '([^']+)'|\bimport\('([^']+)'\)/gm),
  ]
  return found.map(match => {
    const name = match[1] ?? match[2] ?? ''
    return name.startsWith('.') ? relative(ROOT, join(folder, name)) : name
  })
}

/** The text with comments and the insides of quoted strings blanked out; lines stay lines. */
export function codeOf(source: Source): string {
  return source.text.replace(/\/\*[\s\S]*?\*\/|\/\/[^\n]*|'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"/g, match =>
    match.replace(/[^\n]/g, ' '),
  )
}

const CONTROL = /^\s*(\} )?(if|else|for|while|do|switch|catch|try|return if)\b/
const OPENS_TYPESCRIPT =
  /^\s*(export )?(default )?((async|static|get|set|override|private|protected|public) )*(function\b|\*?#?[\w[\].]+(<.*>)?\(|constructor\()|=> \{$/

/** The functions of a file. */
export function functionsOf(source: Source): FunctionSpan[] {
  const native = /\.(c|h|cpp|hpp)$/.test(source.path)
  const lines = codeOf(source).split('\n')
  const found: FunctionSpan[] = []
  for (const [i, line] of lines.entries()) {
    if (!line.trimEnd().endsWith('{')) continue
    const start = headLine(lines, i, native)
    const first = lines[start] ?? ''
    const opens = native
      ? line.includes(')')
      : OPENS_TYPESCRIPT.test(first) || line.trimEnd().endsWith('=> {')
    if (CONTROL.test(first) || !opens) continue
    const end = closingLine(lines, i, first.length - first.trimStart().length)
    if (end !== undefined) found.push({ line: start + 1, lines: end - start + 1 })
  }
  return found
}

/** The first line of what line `at` opens: over parameters, and in C++ over a constructor's initialisers. */
function headLine(lines: readonly string[], at: number, native: boolean): number {
  let start = openingLine(lines, at)
  const continues = (i: number) => /^\s*:/.test(lines[i] ?? '') || /,\s*$/.test(lines[i - 1] ?? '')
  while (native && start > 0 && continues(start)) start = openingLine(lines, start - 1)
  return start
}

/** Where the parentheses that are closed on line `at` were opened. */
function openingLine(lines: readonly string[], at: number): number {
  let depth = 0
  for (let i = at; i >= 0; i--) {
    for (const character of [...(lines[i] ?? '')].reverse()) {
      if (character === ')') depth++
      if (character === '(') depth--
    }
    if (depth <= 0) return i
  }
  return at
}

function closingLine(lines: readonly string[], from: number, indent: number): number | undefined {
  const closing = `${' '.repeat(indent)}}`
  for (let i = from + 1; i < lines.length; i++) if (lines[i]?.startsWith(closing)) return i
  return undefined
}
