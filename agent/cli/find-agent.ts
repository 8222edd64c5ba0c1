/**
 * Finds the agent the command line talks to.
 */

import { existsSync } from 'node:fs'
import type { ControlClient } from '../control/client.js'
import { CliFailure } from './failure.js'
import { controlPathCandidates, runControlPath, runRuntimeDir } from './paths.js'

/**
 * A connection to the agent at `control`, or to the first one that answers in the usual places; undefined when there
 * is none there. An explicit `control` without an agent is a failure.
 */
export async function findAgent(control: string | undefined): Promise<ControlClient | undefined> {
  const candidates =
    control === undefined ? controlPathCandidates().filter(path => existsSync(path)) : [control]
  if (candidates.length === 0) return undefined
  // Loaded only now: the schemas of the messages cost tens of milliseconds, and often there is no agent.
  const [{ ControlClient }, { ControlError }] = await Promise.all([
    import('../control/client.js'),
    import('../control/errors.js'),
  ])
  for (const path of candidates) {
    try {
      return await ControlClient.connect(path)
    } catch (error) {
      const passable =
        error instanceof ControlError && (error.code === 'absent' || error.code === 'no-permission')
      if (control !== undefined || !passable) throw error
    }
  }
  return undefined
}

/** The agent of an elastic process: the one at `control`, one inside its own run, or the usual one. */
export async function needAgentOf(id: string, control: string | undefined): Promise<ControlClient> {
  const inside = runControlPath(runRuntimeDir(id))
  return await needAgent(control ?? (existsSync(inside) ? inside : undefined))
}

/** The same where a command can do nothing without an agent. */
export async function needAgent(control: string | undefined): Promise<ControlClient> {
  const client = await findAgent(control)
  if (client !== undefined) return client
  const places = controlPathCandidates().join(' or ')
  throw new CliFailure(
    `no agent listens at ${places}; start one with \`elasticos agent\`, or give --control PATH`,
  )
}
