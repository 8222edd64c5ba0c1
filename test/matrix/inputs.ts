/**
 * Inputs of the matrix's programs, made by arithmetic: every run on every machine sees the same bytes.
 */

import { closeSync, openSync, writeSync } from 'node:fs'

const LINES_PER_WRITE = 5000

/** Numerical Recipes' 32-bit linear congruential generator (a = 1664525, c = 1013904223). */
export function* numbers(seed: number): Generator<number, never> {
  let state = seed >>> 0
  for (;;) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    yield state
  }
}

/** Writes `count` lines of about `bytes` each, in random order by their first seven characters. */
export function writeLines(path: string, count: number, bytes: number): void {
  const random = numbers(1)
  const fill = '.'.repeat(Math.max(0, bytes - 24))
  const file = openSync(path, 'w', 0o600)
  for (let at = 0; at < count; at += LINES_PER_WRITE) {
    const lines: string[] = []
    for (let i = at; i < Math.min(count, at + LINES_PER_WRITE); i++)
      lines.push(`${random.next().value.toString(36).padStart(7, '0')} line ${i} ${fill}\n`)
    writeSync(file, lines.join(''))
  }
  closeSync(file)
}
