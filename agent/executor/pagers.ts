/**
 * What the executor needs of the pagers on this machine. The real ones are kmod/pager-host.ts and pager-client.ts;
 * tests put pagers of their own here.
 */

import { readFileSync } from 'node:fs'
import { PagerClient } from '../../kmod/pager-client.js'
import { listPagerSockets, type PeerPagerOptions, pagerFacts, spawnPeerPager } from '../../kmod/pager-host.js'
import type { Describe, PagerCommand, PagerEvent, PagerStats } from '../../kmod/pager-messages.js'
import { codeOf } from '../key.js'

export { PagerError } from '../../kmod/pager-client.js'
export type { PeerPagerOptions } from '../../kmod/pager-host.js'
export type { Describe, PagerCommand, PagerEvent, PagerStats } from '../../kmod/pager-messages.js'

/** A connection to one pager, as PagerClient is. */
export interface PagerConnection {
  readonly describe: Describe
  send(command: PagerCommand): void
  on(listener: (event: PagerEvent) => void): () => void
  onClose(listener: (reason: string) => void): void
  requestStats(): Promise<PagerStats>
  close(): void
}

export interface Pagers {
  /** Connects as agent. Rejects when nobody listens at `path`. */
  connect(path: string): Promise<PagerConnection>
  spawnPeer(options: PeerPagerOptions): Promise<{ client: PagerConnection; socketPath: string }>
  /** Socket paths in a runtime directory, stale ones included. */
  list(runtimeDir: string): Promise<string[]>
  /** The pager's compatibility facts; checked by the caller. */
  facts(): Promise<unknown>
  /** Ends a pager that no longer obeys. */
  kill(pid: number): void
  isAlive(pid: number): boolean
}

/** It has ended, and nobody has waited for it yet. */
function isZombie(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return 'ZX'.includes(stat.charAt(stat.lastIndexOf(')') + 2))
  } catch {
    return false
  }
}

export const systemPagers: Pagers = {
  connect: path => PagerClient.connect(path, 'agent'),
  spawnPeer: spawnPeerPager,
  list: listPagerSockets,
  facts: pagerFacts,
  kill: pid => {
    try {
      process.kill(pid, 'SIGKILL')
    } catch {
      // It is gone, which is what was wanted.
    }
  },
  isAlive: pid => {
    try {
      process.kill(pid, 0)
    } catch (error) {
      return codeOf(error) === 'EPERM'
    }
    return !isZombie(pid)
  },
}
