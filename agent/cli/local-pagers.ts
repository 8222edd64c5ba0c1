/**
 * The pagers of this user on this machine, found by their sockets alone: for `ps`, `stop` and `clean` where no agent
 * is there to ask.
 *
 * Limits: only the usual runtime directory (an agent with its own --data is asked through --control).
 */

import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { PagerClient, PagerError } from '../../kmod/pager-client.js'
import { listPagerSockets } from '../../kmod/pager-host.js'
import type { ProcessInfo } from '../service.js'
import { runtimeDirFor } from './paths.js'

const RUN_DIRECTORY = /^[0-9a-f]{16}$/

/** Private directories of runs, live or not, below a runtime directory. */
export function listRunDirectories(runtimeDir: string): string[] {
  const parent = join(runtimeDir, 'runs')
  if (!existsSync(parent)) return []
  return readdirSync(parent)
    .filter(name => RUN_DIRECTORY.test(name))
    .map(name => join(parent, name))
}

/** The home pager's socket in a run's private directory. */
export function runPagerSocket(runDirectory: string): string {
  return join(runDirectory, 'home.sock')
}

/** Names the process whose private directory this is. */
export function runLock(runDirectory: string): string {
  return join(runDirectory, 'run.lock')
}

/** Paths of all pager sockets below a runtime directory, stale ones included. */
export async function localPagerSockets(runtimeDir: string = runtimeDirFor(undefined)): Promise<string[]> {
  const ofRuns = listRunDirectories(runtimeDir).map(runPagerSocket)
  return [...(await listPagerSockets(runtimeDir)), ...ofRuns.filter(path => existsSync(path))]
}

/** What each live pager says about itself. Those that are gone or belong to others are left out. */
export async function observeLocalPagers(): Promise<ProcessInfo[]> {
  const rows = await Promise.all((await localPagerSockets()).map(observe))
  return rows.filter(row => row !== undefined)
}

/** A connection to the home pager of a process in the usual runtime directory; undefined when there is none. */
export async function connectLocalHome(id: string): Promise<PagerClient | undefined> {
  for (const path of await localPagerSockets()) {
    if (!path.includes(id) || path.includes('.peer.')) continue
    try {
      return await PagerClient.connect(path, 'observer')
    } catch (error) {
      if (!(error instanceof PagerError) || error.code !== 'gone') throw error
    }
  }
  return undefined
}

async function observe(path: string): Promise<ProcessInfo | undefined> {
  let client: PagerClient | undefined
  try {
    client = await PagerClient.connect(path, 'observer')
    const stats = await client.requestStats()
    const { id, program, role, nodeName, pagerPid } = client.describe
    return {
      id,
      program,
      role: role === 'home' ? 'home' : 'participant',
      home: role === 'home' ? nodeName : '',
      pid: pagerPid,
      residentPages: stats.residentPages ?? 0,
      participants: (stats.participants ?? []).map(participant => participant.node),
      stats,
    }
  } catch (error) {
    if (error instanceof PagerError) return undefined
    throw error
  } finally {
    client?.close()
  }
}
