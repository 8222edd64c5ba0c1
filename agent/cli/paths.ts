/**
 * Where an agent, a run and the command line keep and look for things when no flag says otherwise.
 *
 * data: state that lasts (identity, spill, logs). runtime: sockets, mode 0700. control: the agent's socket.
 * A directory named by XDG_RUNTIME_DIR counts only if it exists (after `su` it often names another user's session).
 */

import { existsSync, statfsSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'

const ROOT = 0

export function uid(): number {
  return process.getuid?.() ?? ROOT
}

function xdgRuntimeDir(): string | undefined {
  const directory = process.env.XDG_RUNTIME_DIR
  return directory !== undefined && directory !== '' && existsSync(directory) ? directory : undefined
}

/** Below XDG_STATE_HOME where that is set, else `/var/lib/elasticos` for root and `~/.local/state/elasticos`. */
export function defaultDataDir(): string {
  const state = process.env.XDG_STATE_HOME
  if (state !== undefined && state !== '') return join(state, 'elasticos')
  return uid() === ROOT ? '/var/lib/elasticos' : join(homedir(), '.local', 'state', 'elasticos')
}

/** Runtime directory; an agent with a data directory of its own keeps it there. */
export function runtimeDirFor(dataDir: string | undefined): string {
  if (dataDir !== undefined) return join(dataDir, 'run')
  const session = xdgRuntimeDir()
  if (session !== undefined) return join(session, 'elasticos')
  return uid() === ROOT ? '/run/elasticos' : join(defaultDataDir(), 'run')
}

/** Every runtime directory that may belong to the usual data directory: sessions with and without XDG_RUNTIME_DIR. */
export function runtimeDirCandidates(): string[] {
  const system = uid() === ROOT ? ['/run/elasticos'] : []
  return [...new Set([runtimeDirFor(undefined), ...system, join(defaultDataDir(), 'run')])]
}

/** Where an agent listens for the command line. */
export function defaultControlPath(): string {
  const session = xdgRuntimeDir()
  if (session !== undefined) return join(session, 'elasticos.sock')
  return uid() === ROOT ? '/run/elasticos.sock' : join(defaultDataDir(), 'run', 'elasticos.sock')
}

/** Where the command line looks for an agent, first found first taken. */
export function controlPathCandidates(): string[] {
  return [...new Set([defaultControlPath(), '/run/elasticos.sock'])]
}

/** Private directory of one `run`: its sockets when no agent shares its own directories with it. */
export function runRuntimeDir(id: string): string {
  return join(runtimeDirFor(undefined), 'runs', id)
}

/** Control socket of an agent inside the run whose private directory this is. */
export function runControlPath(runDirectory: string): string {
  return join(runDirectory, 'control.sock')
}

/** Private data directory of an agent inside a `run`. */
export function runDataDir(id: string): string {
  return join(defaultDataDir(), 'runs', id)
}

/** statfs f_type of tmpfs and ramfs (statfs(2)). */
const MEMORY_FILE_SYSTEMS: readonly number[] = [0x01021994, 0x858458f6]

/** True where files are memory, so that spilling there frees nothing. Throws when `path` does not exist. */
export function isMemoryFileSystem(path: string): boolean {
  return MEMORY_FILE_SYSTEMS.includes(statfsSync(path).type)
}

/** Where short-lived trees (the demo's) may go, the likeliest first. */
export function scratchParents(): string[] {
  return [...new Set([tmpdir(), '/var/tmp', defaultDataDir()])]
}
