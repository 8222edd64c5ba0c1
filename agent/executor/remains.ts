/**
 * Removes what pagers that were killed leave in an agent's directories: a socket nobody listens on, an empty log.
 * A pager that ends by itself removes its socket; one that is killed cannot, and `run` may be dead with it.
 *
 * A log with something in it is kept: it says why a pager failed. `elasticos clean` removes those.
 * Limits: a socket whose pager takes longer than 3 s to die is left to the next start of the agent.
 */

import { existsSync, rmSync, statSync } from 'node:fs'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { listPagerSockets, peerLogPath, peerSocketPath } from '../../kmod/pager-host.js'
import type { ProcessId } from '../machines/types.js'
import type { Records } from './records.js'

const TRIES_MAX = 30
const TRY_MS = 100

export interface Directories {
  readonly name: string
  readonly runtimeDir: string
  readonly dataDir: string
}

/** After the connection to the peer pager of `id` has ended. */
export async function clearPeerPager(where: Directories, id: ProcessId): Promise<void> {
  removeEmptyLog(where, id)
  await removeSocketOnceDead(peerSocketPath(where.runtimeDir, id, where.name))
}

/** Once nobody listens at `path` any more: its file goes. */
export async function removeSocketOnceDead(path: string): Promise<void> {
  for (let attempt = 0; attempt < TRIES_MAX && existsSync(path); attempt++) {
    if (!(await isListenedOn(path))) {
      rmSync(path, { force: true })
      return
    }
    await sleep(TRY_MS, undefined, { ref: false })
  }
}

/** At the start of an agent: sockets of pagers that died with or after the one before it. */
export async function clearDeadSockets(where: Directories): Promise<void> {
  for (const path of await listPagerSockets(where.runtimeDir)) {
    if (!(await isListenedOn(path))) rmSync(path, { force: true })
  }
}

/** At the start of an agent: what is noted of peer pagers that were not found again. */
export function clearRecords(where: Directories, records: Records, found: (id: ProcessId) => boolean): void {
  for (const id of records.ids('peer')) {
    if (found(id)) continue
    records.remove(id, 'peer')
    removeEmptyLog(where, id)
  }
}

function removeEmptyLog(where: Directories, id: ProcessId): void {
  const path = peerLogPath(where.dataDir, id)
  try {
    if (statSync(path).size === 0) rmSync(path, { force: true })
  } catch {
    // There is none.
  }
}

function isListenedOn(path: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(path)
    const answer = (listened: boolean) => {
      socket.destroy()
      resolve(listened)
    }
    socket.once('connect', () => answer(true))
    socket.once('error', (error: NodeJS.ErrnoException) => {
      answer(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT')
    })
  })
}
