/**
 * The checks behind `elasticos doctor`: the pager's own, and what the control plane needs around it.
 */

import { accessSync, constants, existsSync, mkdirSync, statSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { dirname } from 'node:path'
import { type Check, pagerDoctor, pagerPath, spillDirectory } from '../../kmod/pager-host.js'
import { defaultKeyPath, readKey } from '../key.js'
import { failureLine } from './failure.js'
import { findAgent } from './find-agent.js'
import { defaultDataDir, runtimeDirFor, uid } from './paths.js'

/** The user's shell has the variable; `sudo` and `su` often have not. */
const HOME_REMEDY = 'set HOME (or XDG_STATE_HOME) to a directory you may write'

/** All checks, needed ones first where they fail. `dataDir`: of an agent that has its own. */
export async function examine(dataDir: string | undefined): Promise<Check[]> {
  const spill = checkSpill(dataDir ?? defaultDataDir())
  return [
    nodeVersion(),
    ...(await pagerChecks(spill.ok ? spill.directory : undefined)),
    spill.check,
    runtimeDirectory(dataDir),
    await networkKey(),
    discovery(),
    await localAgent(),
  ]
}

function nodeVersion(): Check {
  // The launcher has refused versions that are too old before this code is loaded.
  return { name: 'node', ok: true, needed: true, detail: `version ${process.versions.node}`, remedy: '' }
}

async function pagerChecks(spillDir: string | undefined): Promise<Check[]> {
  const name = 'pager'
  try {
    const detail = pagerPath()
    const checks = await pagerDoctor(spillDir)
    return [{ name, ok: true, needed: true, detail, remedy: '' }, ...checks]
  } catch (error) {
    const remedy = 'npm rebuild elasticos (needs g++, make and libssl-dev)'
    return [{ name, ok: false, needed: true, detail: failureLine(error), remedy }]
  }
}

function checkSpill(dataDir: string): { ok: boolean; directory: string; check: Check } {
  const name = 'data directory'
  try {
    const directory = spillDirectory(dataDir)
    accessSync(directory, constants.W_OK)
    const check = { name, ok: true, needed: true, detail: dataDir, remedy: '' }
    return { ok: true, directory, check }
  } catch (error) {
    const check = { name, ok: false, needed: true, detail: failureLine(error), remedy: HOME_REMEDY }
    return { ok: false, directory: '', check }
  }
}

function runtimeDirectory(dataDir: string | undefined): Check {
  const name = 'runtime directory'
  const directory = runtimeDirFor(dataDir)
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    accessSync(directory, constants.W_OK)
    const stat = statSync(directory)
    const mode = stat.mode & 0o777
    const ok = (mode & 0o077) === 0 && stat.uid === uid()
    const detail = ok ? directory : `${directory} has mode ${mode.toString(8)} and owner ${stat.uid}`
    return { name, ok, needed: true, detail, remedy: ok ? '' : `chmod 700 ${directory} (as its owner)` }
  } catch (error) {
    const remedy = 'set XDG_RUNTIME_DIR to a directory of your own (mode 700)'
    return { name, ok: false, needed: true, detail: failureLine(error), remedy }
  }
}

async function networkKey(): Promise<Check> {
  const name = 'network key'
  const path = defaultKeyPath(uid())
  try {
    const key = await readKey(path)
    const detail = key === undefined ? `none yet at ${path}; the first agent makes it` : path
    if (key === undefined) accessSync(nearestExisting(dirname(path)), constants.W_OK)
    return { name, ok: true, needed: false, detail, remedy: '' }
  } catch (error) {
    const remedy = `make ${path} readable for you alone: chmod 600 ${path}`
    return { name, ok: false, needed: false, detail: failureLine(error), remedy }
  }
}

function nearestExisting(path: string): string {
  let directory = path
  while (!existsSync(directory) && directory !== dirname(directory)) directory = dirname(directory)
  return directory
}

function discovery(): Check {
  const name = 'discovery'
  const interfaces = networkInterfaces()
  const outside = Object.entries(interfaces).filter(([, addresses]) =>
    addresses?.some(address => !address.internal),
  )
  const names = outside.map(([interfaceName]) => interfaceName)
  if (names.length > 0) return { name, ok: true, needed: false, detail: `on ${names.join(', ')}`, remedy: '' }
  const detail = 'no network interface but loopback: only agents on this machine will be found'
  return {
    name,
    ok: false,
    needed: false,
    detail,
    remedy: 'connect this machine to a network, or give agents --peer',
  }
}

async function localAgent(): Promise<Check> {
  const name = 'agent'
  try {
    const agent = await findAgent(undefined)
    if (agent === undefined) {
      const detail = 'none runs here; `run` starts one inside itself'
      return { name, ok: true, needed: false, detail, remedy: '' }
    }
    const hello = await agent.hello()
    agent.close()
    return { name, ok: true, needed: false, detail: `${hello.name} (pid ${hello.pid})`, remedy: '' }
  } catch (error) {
    return { name, ok: false, needed: false, detail: failureLine(error), remedy: 'restart the agent' }
  }
}
