/**
 * A mount namespace of its own, in which tests put small disks and files of /proc that say something else: nothing of
 * it is seen outside, and all of it goes with the process that holds it. Needs root; `mountsMissing` says why when
 * that is not so.
 */

import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'

const TIMEOUT_MS = 10_000

/** Why there can be no such namespace with a disk in it here; undefined when there can. */
export function mountsMissing(): string | undefined {
  if (process.getuid?.() !== 0) return 'mounts are for root'
  const probe = 'mount -t tmpfs probe /mnt && losetup -f && command -v mkfs.ext4 nsenter'
  const done = spawnSync('unshare', ['-m', 'sh', '-c', probe], { encoding: 'utf8', timeout: TIMEOUT_MS })
  if (done.status === 0) return undefined
  return done.error?.message ?? (done.stderr || 'no losetup, mkfs.ext4 or nsenter')
}

export class Mounts {
  readonly #holder: ChildProcess

  private constructor(holder: ChildProcess) {
    this.#holder = holder
  }

  /** Runs `script` (sh) in a new namespace and keeps it. */
  static async make(script: string): Promise<Mounts> {
    const all = `set -e\n${script}\necho made\nexec sleep 100000`
    const holder = spawn('unshare', ['-m', 'sh', '-c', all], { stdio: ['ignore', 'pipe', 'inherit'] })
    const made = await Promise.race([once(holder.stdout, 'data'), once(holder, 'close')])
    if (String(made[0]) === 'made\n') return new Mounts(holder)
    throw new Error(`the mounts failed: ${made}`)
  }

  /** Words that run a command inside. */
  prefix(directory: string): string[] {
    return ['nsenter', `--mount=/proc/${this.#holder.pid}/ns/mnt`, `--wd=${directory}`]
  }

  /** The path by which what lies at `inside` is reached from here. */
  path(inside: string): string {
    return `/proc/${this.#holder.pid}/root${inside}`
  }

  remove(): void {
    this.#holder.kill('SIGKILL')
  }
}
