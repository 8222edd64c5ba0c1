/**
 * How a command fails: one line on stderr that says what is wrong and what to do, and an exit status.
 */

import { PagerError } from '../../kmod/pager-client.js'
import { codeOf } from '../key.js'
import { printable, writeStderr } from './output.js'

export const EXIT_FAILURE = 1
export const EXIT_USAGE = 2
/** `run`: elasticos failed, not the program (the number docker, env and timeout use). */
export const EXIT_RUN_FAILED = 125
export const EXIT_CANNOT_EXECUTE = 126
export const EXIT_NOT_FOUND = 127

/** A failure whose message is fit for the user as it stands. */
export class CliFailure extends Error {
  constructor(
    message: string,
    readonly status: number = EXIT_FAILURE,
    options?: { cause?: unknown },
  ) {
    super(message, options)
    this.name = 'CliFailure'
  }
}

/** One line about any error. */
export function failureLine(error: unknown): string {
  if (!(error instanceof Error)) return oneLine(String(error))
  if (error instanceof CliFailure || error instanceof PagerError) return oneLine(error.message)
  const remedy = errnoRemedy(codeOf(error))
  return oneLine(remedy === undefined ? error.message : `${error.message}; ${remedy}`)
}

function errnoRemedy(code: string | undefined): string | undefined {
  switch (code) {
    case 'ENOSPC':
    case 'EDQUOT':
      return 'make room on that file system or give another --data'
    case 'EROFS':
      return 'that file system is read-only'
    case 'EMFILE':
    case 'ENFILE':
      return 'raise the limit of open files (ulimit -n)'
    default:
      return undefined
  }
}

function oneLine(text: string): string {
  return printable(text.trim().replace(/\s*\n\s*/g, '; '))
}

/** Writes `elasticos: LINE` to stderr, and the stack and its causes below it when `verbose`. */
export function reportFailure(error: unknown, verbose: boolean): void {
  writeStderr(`elasticos: ${failureLine(error)}\n`)
  for (let cause = error; verbose && cause instanceof Error; cause = cause.cause) {
    writeStderr(`${cause.stack ?? cause.message}\n`)
  }
}
