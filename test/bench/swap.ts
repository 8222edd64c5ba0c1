/**
 * Ordinary programs stretched, against the same programs by themselves in a memory cgroup of the same size with swap on
 * a disk file: `program-vs-swap/NAME/SHARE`. The home side (pager and program) is in a cgroup of that size too, and its
 * `--memory` is smaller by what the pager itself needs.
 *
 * The file is made in the temporary directory, switched on as swap for as long as the measurement lasts, and removed.
 * This needs root, a kernel with memory cgroups, and a file system that can hold swap files.
 */

import { type ExecFileSyncOptions, execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const SWAP_BYTES = 2 ** 30
const PAGE_BYTES = 4096

/** A memory cgroup of one size with nothing in it, of either version of cgroups. */
class MemoryGroup {
  readonly #path: string

  /** Throws Error with the reason where there are no memory cgroups. */
  constructor(name: string, bytes: number) {
    const v1 = '/sys/fs/cgroup/memory'
    const parent = existsSync(v1) ? v1 : '/sys/fs/cgroup'
    this.#path = join(parent, name)
    try {
      mkdirSync(this.#path)
      if (existsSync(join(this.#path, 'memory.limit_in_bytes')))
        writeFileSync(join(this.#path, 'memory.limit_in_bytes'), String(bytes))
      else writeFileSync(join(this.#path, 'memory.max'), String(bytes))
    } catch (error) {
      this.remove()
      throw new Error(`no memory cgroup: ${error instanceof Error ? error.message : error}`)
    }
  }

  /** What has to stand before a command so that it runs in this group. */
  get prefix(): readonly string[] {
    const file = join(this.#path, 'cgroup.procs')
    return ['/bin/sh', '-c', `echo $$ > ${file} && exec "$@"`, 'sh']
  }

  remove(): void {
    try {
      rmdirSync(this.#path)
    } catch {
      // Not made, or what was in it is still ending: an empty group costs nothing.
    }
  }
}

/** Swap on a file of its own, while it is needed. */
class SwapFile {
  readonly #path: string

  /** Throws Error with the reason where this cannot be had. */
  constructor(directory: string) {
    this.#path = join(directory, 'swap')
    const { bavail, bsize } = statfsSync(directory)
    if (bavail * bsize < 2 * SWAP_BYTES) throw new Error(`no room for a swap file in ${directory}`)
    if (readFileSync('/proc/swaps', 'utf8').trim().split('\n').length > 1)
      throw new Error('this machine has swap of its own, which may not be the disk')
    try {
      const quietly: ExecFileSyncOptions = { stdio: ['ignore', 'ignore', 'pipe'] }
      execFileSync('fallocate', ['-l', String(SWAP_BYTES), this.#path], quietly)
      execFileSync('chmod', ['600', this.#path], quietly)
      execFileSync('mkswap', [this.#path], quietly)
      execFileSync('swapon', [this.#path], quietly)
    } catch (error) {
      rmSync(this.#path, { force: true })
      throw new Error(`no swap on a file: ${error instanceof Error ? error.message.trim() : error}`)
    }
  }

  remove(): void {
    execFileSync('swapoff', [this.#path], { stdio: 'ignore' })
    rmSync(this.#path, { force: true })
  }
}

/** What pager and kernel objects may take of a group besides the pages of `--memory`. */
const BESIDES_PAGES = 1536

/** Swap, and one memory cgroup for each limit that is asked for. */
export class SwapSetup {
  readonly #swap: SwapFile
  readonly #groups = new Map<number, MemoryGroup>()

  /** Throws Error with the reason where this cannot be had. */
  constructor(directory: string) {
    this.#swap = new SwapFile(directory)
  }

  /** `--memory` of a home side that is to fit into a group of so many pages. */
  memoryPages(pages: number): number {
    return pages - BESIDES_PAGES
  }

  /** What has to stand before a command so that it has room for `pages` pages. Throws Error as the constructor does. */
  prefix(pages: number): readonly string[] {
    let group = this.#groups.get(pages)
    if (group === undefined) {
      group = new MemoryGroup(`elasticos-bench-${process.pid}-${pages}`, pages * PAGE_BYTES)
      this.#groups.set(pages, group)
    }
    return group.prefix
  }

  remove(): void {
    for (const group of this.#groups.values()) group.remove()
    this.#swap.remove()
  }
}
