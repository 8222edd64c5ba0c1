/**
 * Where a run's socket and spilled pages go, and which agent it works with.
 *
 * With an agent: the agent's own directories, so that an agent that is restarted finds the pager again. Without: a
 * private directory of this run, which nobody else looks into and which is removed at the end.
 */

import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { SOCKET_PATH_BYTES_MAX } from '../../../kmod/pager-client.js'
import { homeSocketPath, spillDirectory } from '../../../kmod/pager-host.js'
import type { ControlClient } from '../../control/client.js'
import { CliFailure, EXIT_RUN_FAILED } from '../failure.js'
import { findAgent } from '../find-agent.js'
import { runLock, runPagerSocket } from '../local-pagers.js'
import { defaultDataDir, runDataDir, runRuntimeDir } from '../paths.js'
import { defaultSpillMaxBytes, hostNodeName } from '../values.js'
import type { RunPlan } from './plan.js'

/** Digits of the process id in the node name of a run that has no agent to name it. */
const NAME_DIGITS = 4

export interface RunPlace {
  /** `agent`: one that runs on its own; `inside`: one in this process; `none`: nobody else takes part. */
  readonly agent:
    | { readonly kind: 'agent'; readonly client: ControlClient }
    | { readonly kind: 'inside'; readonly runtimeDir: string; readonly dataDir: string }
    | { readonly kind: 'none' }
  readonly nodeName: string
  readonly socketPath: string
  readonly spillDir: string
  readonly spillMaxBytes: number
  /** Removes what this run alone used. */
  cleanUp(): void
}

/** Finds the agent and makes the directories. Throws CliFailure or ControlError. */
export async function placeRun(plan: RunPlan): Promise<RunPlace> {
  const asked = plan.participantsMax > 1 || plan.control !== undefined
  const client = asked ? await findAgent(plan.control) : undefined
  const place = client === undefined ? privatePlace(plan) : await sharedPlace(plan, client)
  if (Buffer.byteLength(place.socketPath) > SOCKET_PATH_BYTES_MAX) {
    const remedy =
      client === undefined
        ? 'set XDG_RUNTIME_DIR to a shorter directory'
        : 'start the agent with a shorter --data'
    const text = `socket path ${place.socketPath} is too long; ${remedy}`
    throw new CliFailure(text, EXIT_RUN_FAILED)
  }
  const directory = dirname(place.socketPath)
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  // Until its pager answers, this is how `clean` knows that the directory is in use.
  if (place.socketPath === runPagerSocket(directory)) writeFileSync(runLock(directory), `${process.pid}\n`)
  return place
}

async function sharedPlace(plan: RunPlan, client: ControlClient): Promise<RunPlace> {
  const { name, dataDir, runtimeDir, spillMaxBytes } = await client.hello()
  const shared = { nodeName: name, spillDir: spillDirectory(dataDir), spillMaxBytes }
  if (plan.participantsMax === 1) {
    client.close()
    // Not among the sockets an agent looks through when it starts: nobody is to join this one.
    const directory = join(runtimeDir, 'runs', plan.id)
    const cleanUp = () => rmSync(directory, { recursive: true, force: true })
    return { ...shared, agent: { kind: 'none' }, socketPath: runPagerSocket(directory), cleanUp }
  }
  const socketPath = homeSocketPath(runtimeDir, plan.id)
  const cleanUp = () => {
    client.close()
    rmSync(socketPath, { force: true })
  }
  return { ...shared, agent: { kind: 'agent', client }, socketPath, cleanUp }
}

function privatePlace(plan: RunPlan): RunPlace {
  const runtimeDir = runRuntimeDir(plan.id)
  const dataDir = runDataDir(plan.id)
  const spillDir = madeSpillDirectory()
  const alone = plan.participantsMax === 1
  return {
    agent: alone ? { kind: 'none' } : { kind: 'inside', runtimeDir, dataDir },
    nodeName: hostNodeName(alone ? '' : `-run-${plan.id.slice(0, NAME_DIGITS)}`),
    socketPath: runPagerSocket(runtimeDir),
    spillDir,
    spillMaxBytes: defaultSpillMaxBytes(spillDir),
    cleanUp() {
      for (const directory of [runtimeDir, dataDir]) rmSync(directory, { recursive: true, force: true })
    },
  }
}

function madeSpillDirectory(): string {
  try {
    return spillDirectory(defaultDataDir())
  } catch (error) {
    const text = `cannot make ${join(defaultDataDir(), 'spill')} for pages that find no room; set HOME or XDG_STATE_HOME`
    throw new CliFailure(text, EXIT_RUN_FAILED, { cause: error })
  }
}
