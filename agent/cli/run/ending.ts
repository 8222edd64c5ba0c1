/**
 * How a run ended, as one value: exit status, the line on stderr, and the statistics file all follow from it.
 */

import { closeSync, ftruncateSync, openSync, writeFileSync } from 'node:fs'
import type { EndKind, PagerStats } from '../../../kmod/pager-messages.js'
import { PAGE_BYTES } from '../../../placement/units.js'
import { CliFailure, EXIT_CANNOT_EXECUTE, EXIT_NOT_FOUND, EXIT_RUN_FAILED } from '../failure.js'
import { notice } from '../output.js'
import type { RunPlan } from './plan.js'

const SIGNAL_STATUS_BASE = 128

export interface RunEnding {
  readonly how: EndKind
  /** Exit status or signal number of the program. */
  readonly code: number
  /** One line; for the ends that are elasticos's or nobody's doing. */
  readonly message: string
  /** The program's first instruction was let go. */
  readonly started: boolean
  readonly stats?: PagerStats | undefined
  /** It ran beside elasticos, not under it, for this reason. */
  readonly unstretched?: string
}

export function failed(message: string, started: boolean): RunEnding {
  return { how: 'failed', code: EXIT_RUN_FAILED, message, started }
}

/** What `run` itself exits with. */
export function exitStatus(ending: RunEnding): number {
  switch (ending.how) {
    case 'exit':
      return ending.code
    case 'signal':
      return SIGNAL_STATUS_BASE + ending.code
    case 'failed':
      return EXIT_RUN_FAILED
    case 'cannot-execute':
      return EXIT_CANNOT_EXECUTE
    case 'not-found':
      return EXIT_NOT_FOUND
  }
}

/** The file of `--stats`, opened before the program starts so that a bad path costs nothing but a line. */
export class StatsFile {
  readonly #descriptor: number

  constructor(path: string) {
    try {
      this.#descriptor = openSync(path, 'w', 0o644)
    } catch (error) {
      const text = `cannot write statistics to ${path}; give another --stats FILE`
      throw new CliFailure(text, EXIT_RUN_FAILED, { cause: error })
    }
  }

  write(statistics: object): void {
    try {
      ftruncateSync(this.#descriptor)
    } catch {
      // A pipe or a terminal cannot be truncated and need not be.
    }
    try {
      writeFileSync(this.#descriptor, `${JSON.stringify(statistics, null, 2)}\n`)
      closeSync(this.#descriptor)
    } catch (error) {
      // The program has ended as it has, and its status is what counts.
      notice(`cannot write the statistics: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
}

/** The statistics of a run; without a `plan` the flags themselves were wrong. */
export function statistics(id: string, plan: RunPlan | undefined, ending: RunEnding, wallMs: number): object {
  const { running: _running, residentPages: _resident, ...reported } = ending.stats ?? {}
  const planned =
    plan === undefined
      ? {}
      : { policy: plan.policy, backend: 'userfaultfd', memoryLimitBytes: plan.memoryPages * PAGE_BYTES }
  return {
    elasticProcessId: id,
    ...modeOf(ending),
    ...planned,
    ...reported,
    ...(ending.unstretched === undefined ? {} : { mode: 'unstretched', reason: ending.unstretched }),
    exitStatus: exitStatus(ending),
    ...(ending.message === '' ? {} : { message: ending.message }),
    wallMs: Math.round(wallMs),
  }
}

function modeOf(ending: RunEnding): { mode: string; reason: string } {
  if (ending.started) return { mode: 'stretched', reason: 'memory is limited here' }
  return { mode: 'unstretched', reason: ending.message === '' ? 'it did not start' : ending.message }
}
