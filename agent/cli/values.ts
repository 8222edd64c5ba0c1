/**
 * Flag values: text as typed into checked amounts, and the defaults that depend on the machine.
 */

import { readFileSync, statfsSync } from 'node:fs'
import type { Parsed } from '../../placement/ids.js'
import { PAGE_BYTES, parseCount, parseDuration, parseSize } from '../../placement/units.js'
import { CliFailure, EXIT_USAGE } from './failure.js'

/** Below this a program's own code paths do not fit; fixed by the command-line contract. */
export const MEMORY_BYTES_MIN = 4 << 20

/** The value, or a usage failure that names the flag. */
export function need<T>(flag: string, parsed: Parsed<T>): T {
  if (parsed.kind === 'ok') return parsed.value
  throw new CliFailure(`${flag}: ${parsed.reason}`, EXIT_USAGE)
}

export function sizeFlag(flag: string, text: string): number {
  return need(flag, parseSize(text))
}

export function durationFlag(flag: string, text: string): number {
  return need(flag, parseDuration(text))
}

export function countFlag(flag: string, text: string, min: number, max: number): number {
  return need(flag, parseCount('the number', text, min, max))
}

/** MemAvailable in bytes. */
export function memoryAvailableBytes(): number {
  const match = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'utf8'))
  return Number(match?.[1] ?? 0) * 1024
}

/** Half of MemAvailable in whole pages, not below the minimum. */
export function defaultMemoryPages(): number {
  return Math.floor(Math.max(memoryAvailableBytes() / 2, MEMORY_BYTES_MIN) / PAGE_BYTES)
}

/** Half of what is free now on the file system of `directory`, which exists. */
export function defaultSpillMaxBytes(directory: string): number {
  const { bavail, bsize } = statfsSync(directory)
  return Math.floor((bavail * bsize) / 2)
}
