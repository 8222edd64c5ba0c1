/**
 * Flag values: text as typed into checked amounts, and the defaults that depend on the machine.
 */

import { readFileSync, statfsSync } from 'node:fs'
import { availableParallelism, hostname } from 'node:os'
import type { Parsed } from '../../placement/ids.js'
import { PAGE_BYTES, parseCount, parseDuration, parseSize } from '../../placement/units.js'
import { CliFailure, EXIT_USAGE } from './failure.js'

/** Below this a program's own code paths do not fit; fixed by the command-line contract. */
export const MEMORY_BYTES_MIN = 4 << 20

/** A pager's page table has 26 bits for a page in the spill file (kmod/pager/src/table.hpp). */
const SPILL_BYTES_MAX = 2 ** 38

/** A timer of Node.js takes no more, and fires at once when it is given more. */
const DURATION_MS_MAX = 2 ** 31 - 1

/** As `--name` allows. */
const NODE_NAME_MAX = 63

/** The value, or a usage failure that names the flag. */
export function need<T>(flag: string, parsed: Parsed<T>): T {
  if (parsed.kind === 'ok') return parsed.value
  throw new CliFailure(`${flag}: ${parsed.reason}`, EXIT_USAGE)
}

export function sizeFlag(flag: string, text: string): number {
  return need(flag, parseSize(text))
}

export function spillMaxFlag(flag: string, text: string): number {
  const bytes = sizeFlag(flag, text)
  if (bytes <= SPILL_BYTES_MAX) return bytes
  throw new CliFailure(`${flag} ${text} is too much; give at most 256G`, EXIT_USAGE)
}

export function durationFlag(flag: string, text: string): number {
  const ms = need(flag, parseDuration(text))
  if (ms <= DURATION_MS_MAX) return ms
  throw new CliFailure(`${flag} ${text} is too long; give at most ${DURATION_MS_MAX}ms (24 days)`, EXIT_USAGE)
}

export function countFlag(flag: string, text: string, min: number, max: number): number {
  return need(flag, parseCount('the number', text, min, max))
}

/** A number of processors, in thousandths. */
export function processorsFlag(flag: string, text: string): number {
  const thousandths = /^\d{1,4}(\.\d{1,3})?$/.test(text) ? Math.round(Number(text) * 1000) : 0
  if (thousandths > 0) return thousandths
  throw new CliFailure(
    `${flag} ${JSON.stringify(text)}: give a number of processors, as 2 or 0.5`,
    EXIT_USAGE,
  )
}

/** Half of the processors, and one at least. */
export function defaultProcessorThousandths(): number {
  return Math.max(1000, availableParallelism() * 500)
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

/** The host's name as a node name (letters, digits, dot, dash, underscore), with `suffix` 63 characters at most. */
export function hostNodeName(suffix = '', host = hostname()): string {
  const name = host.replace(/[^A-Za-z0-9._-]/g, '-').slice(0, NODE_NAME_MAX - suffix.length)
  return `${name === '' ? 'node' : name}${suffix}`
}

/** Half of what is free now on the file system of `directory`, which exists, as far as a pager can use it. */
export function defaultSpillMaxBytes(directory: string): number {
  const { bavail, bsize } = statfsSync(directory)
  return Math.min(Math.floor((bavail * bsize) / 2), SPILL_BYTES_MAX)
}
