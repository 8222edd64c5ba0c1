/**
 * Who this agent is on the network: an Ed25519 key in its data directory (0600), made once, so that its peer id stays
 * the same over restarts; and the lock that keeps a second agent out of the same directories.
 *
 * The lock is a file with the pid and the start time of its holder (a pid alone may have been given to another
 * process since); a file whose holder is gone is taken over. It is linked into place whole, so two agents that start
 * at once cannot both have it.
 */

import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { link, mkdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { generateKeyPair, privateKeyFromProtobuf, privateKeyToProtobuf } from '@libp2p/crypto/keys'
import type { PrivateKey } from '@libp2p/interface'
import { codeOf, installNew } from './key.js'
import { AgentError } from './service.js'

const IDENTITY_FILE = 'identity.key'
const LOCK_FILE = 'agent.lock'
const TAKEOVERS_MAX = 3

/** The agent's own key from `dataDir`, made on first use. Safe when several agents start at once. */
export async function loadOrMakeIdentity(dataDir: string): Promise<PrivateKey> {
  const path = join(dataDir, IDENTITY_FILE)
  const present = await read(path)
  if (present !== undefined) return present
  const made = await generateKeyPair('Ed25519')
  if (await installNew(path, privateKeyToProtobuf(made))) return made
  const theirs = await read(path)
  if (theirs === undefined) throw new AgentError('bad-key', `${path} vanished while it was read; start again`)
  return theirs
}

/** Said by the second of two agents with one identity. `addresses`: the first one's, as it says. */
export function sameIdentity(addresses: readonly string[], dataDir: string): AgentError {
  return new AgentError(
    'same-identity',
    `another agent has this one's identity and was there first, at ${addresses[0] ?? 'an unknown address'}: remove ${join(dataDir, IDENTITY_FILE)}, a copy of its, and start again`,
  )
}

async function read(path: string): Promise<PrivateKey | undefined> {
  try {
    const mode = (await stat(path)).mode & 0o777
    if (mode !== 0o600) {
      throw new AgentError(
        'key-mode',
        `${path} has mode ${mode.toString(8).padStart(4, '0')}: chmod 600 ${path}`,
      )
    }
    return privateKeyFromProtobuf(await readFile(path))
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined
    if (error instanceof AgentError) throw error
    throw new AgentError('bad-key', `${path} is no identity key; remove it and the agent makes another`, {
      cause: error,
    })
  }
}

/**
 * Makes `directory` (0700) and takes its lock. Throws `already-running` while another agent holds it.
 * @returns a function that gives the lock back
 */
export async function lockDirectory(directory: string): Promise<() => Promise<void>> {
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const path = join(directory, LOCK_FILE)
  const mine = `${process.pid} ${startTime(process.pid) ?? 0}\n`
  for (let attempt = 0; attempt < TAKEOVERS_MAX; attempt++) {
    if (await installNew(path, mine)) return () => releaseLock(path, mine)
    const holder = await readFile(path, 'utf8').catch(() => '')
    if (holderLives(holder)) throw inUse(directory, holder)
    await removeStale(path, holder)
  }
  throw new AgentError('already-running', `${path} changes hands too fast; start again`)
}

function holderLives(holder: string): boolean {
  const [pid = 0, started = 0] = holder.trim().split(' ').map(Number)
  return pid > 0 && startTime(pid) === started
}

function inUse(directory: string, holder: string): AgentError {
  return new AgentError(
    'already-running',
    `another agent (pid ${holder.split(' ')[0]}) uses ${directory}; stop it, or give this one its own --data and --control`,
  )
}

/** Removes the lock if it still says `stale`: moved aside first, and put back when another agent was faster. */
async function removeStale(path: string, stale: string): Promise<void> {
  const aside = `${path}.${process.pid}.${randomBytes(6).toString('hex')}`
  try {
    await rename(path, aside)
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return
    throw error
  }
  if ((await readFile(aside, 'utf8').catch(() => stale)) !== stale) await link(aside, path).catch(() => {})
  await rm(aside, { force: true })
}

async function releaseLock(path: string, mine: string): Promise<void> {
  const holder = await readFile(path, 'utf8').catch(() => '')
  if (holder === mine) await rm(path, { force: true })
}

/** Start time of a process in clock ticks since boot (field 22 of /proc/PID/stat), undefined when it is gone. */
function startTime(pid: number): number | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
    return fields[0] === 'Z' ? undefined : Number(fields[19])
  } catch {
    return undefined
  }
}
