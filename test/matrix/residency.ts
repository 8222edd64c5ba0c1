/**
 * How much memory a run keeps at home, looked at from outside: the allocated blocks of the home pager's memory file
 * and the page buffers in the pager itself, every 10 ms; and the pages of its spill file in the page cache, which
 * must not linger there.
 *
 * From outside, page buffers cannot be told from other memory of the pager: they are taken for the growth of its
 * anonymous memory since the program started, less its page table and an allowance for TLS connections and the
 * allocator. Limits: what comes and goes within 10 ms is not seen.
 */

import { execFile } from 'node:child_process'
import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { promisify } from 'node:util'

const run = promisify(execFile)

const SAMPLE_MS = 10
/** What grows in a pager besides page buffers and page table: TLS connections, lists, the allocator's slack. */
const OWN_BYTES = 512 * 1024
/** Of the page table; it is allocated as pages of the program are touched, wherever they lie. */
const TABLE_BYTES_PER_PAGE = 16
const CACHE_SAMPLE_MS = 250
const BLOCK_BYTES = 512
/** Names of descriptors are read again at times: an exec brings a new memory file. */
const RESCAN_SAMPLES = 20

export interface Residency {
  readonly samples: number
  readonly bytesMax: number
  /** Of `bytesMax`, what was not the memory file. */
  readonly bufferBytes: number
  /** Spilled pages in the page cache, at most. */
  readonly cachedBytesMax: number
  readonly cacheSamples: number
}

/** Watches one home pager until stopped. */
export class ResidencySampler {
  readonly #pid: number
  readonly #ownBytes: number
  readonly #timer: NodeJS.Timeout
  readonly #cacheTimer: NodeJS.Timeout
  #memoryFiles: string[] = []
  #spillFiles: string[] = []
  #ownBytesAtStart: number | undefined
  #samples = 0
  #bytesMax = 0
  #bufferBytes = 0
  #cachedBytesMax = 0
  #cacheSamples = 0
  #cacheBusy = false

  /** `footprintPages`: how many pages the program touches. */
  constructor(pid: number, footprintPages: number) {
    this.#pid = pid
    this.#ownBytes = OWN_BYTES + TABLE_BYTES_PER_PAGE * footprintPages
    this.#timer = setInterval(() => this.#sample(), SAMPLE_MS)
    this.#cacheTimer = setInterval(() => void this.#sampleCache(), CACHE_SAMPLE_MS)
    this.#sample()
  }

  stop(): Residency {
    clearInterval(this.#timer)
    clearInterval(this.#cacheTimer)
    return {
      samples: this.#samples,
      bytesMax: this.#bytesMax,
      bufferBytes: this.#bufferBytes,
      cachedBytesMax: this.#cachedBytesMax,
      cacheSamples: this.#cacheSamples,
    }
  }

  #sample(): void {
    try {
      if (this.#samples % RESCAN_SAMPLES === 0 || this.#memoryFiles.length === 0) this.#findFiles()
      let blocks = 0
      for (const file of this.#memoryFiles) blocks += statSync(file).blocks
      const own = anonymousBytes(this.#pid)
      // Until the program has its first page, the pager is still getting ready: libraries, connections.
      if (this.#bytesMax === 0) this.#ownBytesAtStart = own
      const buffers = Math.max(0, own - (this.#ownBytesAtStart ?? own) - this.#ownBytes)
      const bytes = blocks * BLOCK_BYTES + buffers
      if (bytes > this.#bytesMax) {
        this.#bytesMax = bytes
        this.#bufferBytes = buffers
      }
      this.#samples++
    } catch {
      this.#memoryFiles = [] // it has ended, or a file went away with an exec
    }
  }

  #findFiles(): void {
    this.#memoryFiles = []
    this.#spillFiles = []
    const folder = `/proc/${this.#pid}/fd`
    for (const name of readdirSync(folder)) {
      const target = readlinkSync(`${folder}/${name}`)
      if (target.startsWith('/memfd:elastic')) this.#memoryFiles.push(`${folder}/${name}`)
      else if (target.endsWith(' (deleted)')) this.#spillFiles.push(`${folder}/${name}`)
    }
  }

  async #sampleCache(): Promise<void> {
    if (this.#cacheBusy) return // one look at a time, however slow the machine
    this.#cacheBusy = true
    for (const file of this.#spillFiles) {
      try {
        const { stdout } = await run('fincore', ['--bytes', '--noheadings', '--output', 'RES', file])
        this.#cachedBytesMax = Math.max(this.#cachedBytesMax, Number(stdout.trim()))
        this.#cacheSamples++
      } catch {
        // The pager has ended meanwhile.
      }
    }
    this.#cacheBusy = false
  }
}

function anonymousBytes(pid: number): number {
  const line = /^RssAnon:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))
  return Number(line?.[1] ?? 0) * 1024
}
