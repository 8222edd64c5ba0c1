/**
 * What `run` was asked to do, checked: flags into amounts. No I/O but reading how much memory the machine has.
 */

import { randomBytes } from 'node:crypto'
import { type ElasticProcessId, elasticProcessIdOf, NODE_INDEX_MAX } from '../../../placement/ids.js'
import { DEFAULT_POLICY, parsePolicy } from '../../../placement/registry.js'
import { bytes, PAGE_BYTES, pagesIn } from '../../../placement/units.js'
import { CliFailure, EXIT_RUN_FAILED } from '../failure.js'
import type { RunFlags } from '../run.js'
import { countFlag, defaultMemoryPages, durationFlag, MEMORY_BYTES_MIN, need, sizeFlag } from '../values.js'

const WAIT_MS = 5000
const PARTICIPANTS_MAX = NODE_INDEX_MAX + 1

export interface RunPlan {
  readonly id: ElasticProcessId
  readonly command: readonly string[]
  readonly memoryPages: number
  /** `memoryPages` is only where the limit begins: an agent moves it with the machine's memory. */
  readonly memoryFollows: boolean
  readonly policy: string
  /** 0: the policy decides. */
  readonly jumpEvery: number
  /** Home included. */
  readonly participantsMax: number
  readonly participantsMin: number
  readonly waitMs: number
  readonly control: string | undefined
  readonly allowUnstretched: boolean
  readonly verbose: boolean
}

/** A new id; two runs never share one. */
export function newProcessId(): ElasticProcessId {
  return elasticProcessIdOf(randomBytes(8))
}

/** Throws CliFailure with one line about the first flag that will not do. */
export function planRun(id: ElasticProcessId, flags: RunFlags, command: readonly string[]): RunPlan {
  const participantsMax = count('--participants', flags.participants, PARTICIPANTS_MAX)
  const participantsMin = count('--participants-min', flags.participantsMin, 1)
  if (participantsMin > participantsMax) {
    const text = `--participants-min ${participantsMin} is more than --participants ${participantsMax}; lower it`
    throw new CliFailure(text, EXIT_RUN_FAILED)
  }
  return {
    id,
    command,
    memoryPages: flags.memory === undefined ? defaultMemoryPages() : memoryPages(flags.memory),
    memoryFollows: flags.memory === undefined,
    policy: need('--policy', parsePolicy(flags.policy ?? DEFAULT_POLICY)).spec,
    jumpEvery: flags.jumpEvery === undefined ? 0 : countFlag('--jump-every', flags.jumpEvery, 1, 2 ** 31 - 1),
    participantsMax,
    participantsMin,
    waitMs: flags.wait === undefined ? WAIT_MS : durationFlag('--wait', flags.wait),
    control: flags.control,
    allowUnstretched: flags.allowUnstretched === true,
    verbose: flags.verbose === true,
  }
}

function count(flag: string, text: string | undefined, fallback: number): number {
  return text === undefined ? fallback : countFlag(flag, text, 1, PARTICIPANTS_MAX)
}

function memoryPages(text: string): number {
  const size = sizeFlag('--memory', text)
  if (size < MEMORY_BYTES_MIN) {
    throw new CliFailure(`--memory ${text} is below the minimum; give 4M or more`, EXIT_RUN_FAILED)
  }
  return pagesIn(bytes(size - (size % PAGE_BYTES)))
}
