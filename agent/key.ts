/**
 * The network key: a libp2p pre-shared key (pnet, version 1) in a file that only its owner may read. Who has it may
 * join; who has not cannot even begin a handshake.
 *
 * The file is made whole under a name of its own and then linked into place, which fails when somebody else was
 * first: of several agents that start at once exactly one makes the key, the others read it, and no reader ever sees
 * half of it. Any mode but 0600 is refused rather than mended: the key may have been read already.
 *
 * Limits: one key per file, base16 only (as libp2p writes it).
 */

import { createHmac, randomBytes } from 'node:crypto'
import { chmod, link, lstat, mkdir, open, readFile, rename, rm } from 'node:fs/promises'
import { userInfo } from 'node:os'
import { dirname, join } from 'node:path'
import { AgentError } from './service.js'

const HEADER = '/key/swarm/psk/1.0.0/\n/base16/\n'
const KEY_BYTES = 32
/** Header, 64 digits and some white space; what is larger is no key file. */
const KEY_FILE_BYTES_MAX = 512
const MODE = 0o600

/** Where the network key is when no --key is given. */
export function defaultKeyPath(uid: number, env: NodeJS.ProcessEnv = process.env): string {
  if (uid === 0) return '/etc/elasticos/network.key'
  // Empty is as unset (XDG Base Directory Specification).
  const config = env.XDG_CONFIG_HOME || join(env.HOME || userInfo().homedir, '.config')
  return join(config, 'elasticos', 'network.key')
}

/** A network key: `file` is what pnet wants and what is on disk, `bytes` the 32 bytes in it. */
export interface NetworkKey {
  readonly file: string
  readonly bytes: Uint8Array
}

/** Reads the text of a key file. */
export function parseKey(text: string): NetworkKey | undefined {
  const match = /^\/key\/swarm\/psk\/1\.0\.0\/\s+\/base16\/\s+([0-9a-fA-F]{64})\s*$/.exec(text)
  const digits = match?.[1]?.toLowerCase()
  if (digits === undefined) return undefined
  return { file: HEADER + digits, bytes: new Uint8Array(Buffer.from(digits, 'hex')) }
}

/** A new key from `random` (32 bytes). */
export function newKey(random: Uint8Array = randomBytes(KEY_BYTES)): NetworkKey {
  return { file: HEADER + Buffer.from(random).toString('hex'), bytes: Uint8Array.from(random) }
}

/** A public name of the key: who has the same key computes the same name, and it tells nothing about the key. */
export function keyFingerprint(key: NetworkKey): string {
  return createHmac('sha256', key.bytes).update('elasticos key name 1').digest('hex').slice(0, 16)
}

/** Reads the key at `path`; a missing file is `undefined`. Refuses wrong modes and what is no key. */
export async function readKey(path: string): Promise<NetworkKey | undefined> {
  const stat = await lstat(path).catch(absent)
  if (stat === undefined) return undefined
  if (!stat.isFile())
    throw new AgentError('bad-key', `${path} is no ordinary file; remove it or give another --key`)
  if ((stat.mode & 0o777) !== MODE) {
    const mode = (stat.mode & 0o777).toString(8).padStart(4, '0')
    throw new AgentError(
      'key-mode',
      `${path} has mode ${mode}, so others may have read it: chmod 600 ${path}`,
    )
  }
  if (stat.size > KEY_FILE_BYTES_MAX) throw notAKey(path)
  const key = parseKey(await readFile(path, 'utf8'))
  if (key === undefined) throw notAKey(path)
  return key
}

/** Reads the key at `path`, making one first when there is none. Safe when several agents start at once. */
export async function loadOrMakeKey(path: string): Promise<NetworkKey> {
  const present = await readKey(path)
  if (present !== undefined) return present
  const made = newKey()
  const installed = await installNew(path, `${made.file}\n`)
  if (installed) return made
  const theirs = await readKey(path)
  if (theirs === undefined) throw new AgentError('bad-key', `${path} vanished while it was read; start again`)
  return theirs
}

/** `key show`: the text of the key file. */
export async function showKey(path: string): Promise<string> {
  const key = await readKey(path)
  if (key === undefined) {
    throw new AgentError(
      'bad-key',
      `no network key at ${path}; \`elasticos key generate\` or an agent makes one`,
    )
  }
  return `${key.file}\n`
}

/** `key set`: puts the key in `text` at `path`, in place of any other. */
export async function setKey(path: string, text: string): Promise<NetworkKey> {
  const key = parseKey(text.slice(0, KEY_FILE_BYTES_MAX))
  if (key === undefined) {
    throw new AgentError('bad-key', 'this is no network key; give the whole output of `elasticos key show`')
  }
  const scratch = await writeScratch(path, `${key.file}\n`)
  await rename(scratch, path)
  return key
}

/** `key generate`: makes a new key at `path`; refuses to replace one. */
export async function generateKey(path: string): Promise<NetworkKey> {
  const key = newKey()
  if (!(await installNew(path, `${key.file}\n`))) {
    throw new AgentError(
      'bad-key',
      `${path} exists; move it away first, agents that use it would lose each other`,
    )
  }
  return key
}

/** Makes `path` (0600) with `text` unless it exists; true when this call made it. */
export async function installNew(path: string, text: string | Uint8Array): Promise<boolean> {
  const scratch = await writeScratch(path, text)
  try {
    await link(scratch, path)
    return true
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false
    throw error
  } finally {
    await rm(scratch, { force: true })
  }
}

async function writeScratch(path: string, text: string | Uint8Array): Promise<string> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  const scratch = `${path}.${process.pid}.${randomBytes(6).toString('hex')}`
  const file = await open(scratch, 'wx', MODE)
  try {
    await file.writeFile(text)
    await chmod(scratch, MODE)
    await file.sync()
  } finally {
    await file.close()
  }
  return scratch
}

function notAKey(path: string): AgentError {
  return new AgentError(
    'bad-key',
    `${path} is no network key; \`elasticos key set\` puts the right one there`,
  )
}

function absent(error: unknown): undefined {
  if (codeOf(error) === 'ENOENT') return undefined
  throw error
}

/** The errno name of a system error. */
export function codeOf(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined
  return typeof error.code === 'string' ? error.code : undefined
}
