/**
 * Running as an ordinary user, `nobody`, from tests that run as root.
 *
 * The checkout may lie where nobody may look (below /root): then what the program consists of is copied to a place
 * that all can read. Whether nobody may use userfaultfd is decided by the mode of /dev/userfaultfd, which a test
 * changes and puts right again, however it ends.
 */

import { spawnSync } from 'node:child_process'
import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { ROOT } from './native.js'

export const NOBODY = 65534
const DEVICE = '/dev/userfaultfd'
const SETTING = '/proc/sys/vm/unprivileged_userfaultfd'
const PARTS = ['package.json', 'dist', 'kmod/pager/build', 'test/programs', 'node_modules'] as const

/** Why nothing can be run as nobody here; undefined when it can. */
export function nobodyMissing(): string | undefined {
  if (process.getuid?.() !== 0) return 'only root can become another user'
  if (!existsSync(DEVICE)) return `there is no ${DEVICE}`
  const done = spawnSync(process.execPath, ['-e', ''], { uid: NOBODY, gid: NOBODY, cwd: '/', env: {} })
  return done.status === 0 ? undefined : `nobody cannot run ${process.execPath}`
}

/** True when everybody may use userfaultfd here, whatever the device's mode. */
export function userfaultfdForAll(): boolean {
  return readFileSync(SETTING, 'utf8').trim() === '1'
}

/** Sets the device's mode; the returned function puts the old one back. */
export function setDeviceMode(mode: number): () => void {
  const before = statSync(DEVICE).mode & 0o7777
  chmodSync(DEVICE, mode)
  return () => chmodSync(DEVICE, before)
}

/** URL of a command line that nobody can read: the checkout's own, or that of a copy below `directory`. */
export function mainForNobody(directory: string): string {
  const look = `require('fs').accessSync(${JSON.stringify(join(ROOT, 'dist/agent/cli/main.js'))})`
  const readable = spawnSync(process.execPath, ['-e', look], { uid: NOBODY, gid: NOBODY, cwd: '/', env: {} })
  if (readable.status === 0) return pathToFileURL(join(ROOT, 'dist/agent/cli/main.js')).href
  const copy = join(directory, 'checkout')
  for (const part of PARTS) {
    mkdirSync(join(copy, part, '..'), { recursive: true })
    cpSync(join(ROOT, part), join(copy, part), { recursive: true, dereference: true })
  }
  return pathToFileURL(join(copy, 'dist/agent/cli/main.js')).href
}
