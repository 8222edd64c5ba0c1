/**
 * The live line of the demo: what the running program does, read from its pager as any observer may. Only on a
 * terminal; it takes one line of stderr and leaves nothing behind.
 */

import { PagerClient } from '../../../kmod/pager-client.js'
import { listPagerSockets } from '../../../kmod/pager-host.js'
import type { PagerStats } from '../../../kmod/pager-messages.js'
import { bytes, formatSize, PAGE_BYTES } from '../../../placement/units.js'

const PERIOD_MS = 200
const ERASE_LINE = '\r\u001b[K'

export class LiveLine {
  readonly #label: string
  readonly #runtimeDir: string
  readonly #startedAtMs = performance.now()
  #timer: NodeJS.Timeout | undefined
  #client: PagerClient | undefined
  #busy = false

  constructor(label: string, runtimeDir: string) {
    this.#label = label
    this.#runtimeDir = runtimeDir
    if (process.stderr.isTTY) this.#timer = setInterval(() => void this.#tick(), PERIOD_MS)
  }

  stop(): void {
    if (this.#timer === undefined) return
    clearInterval(this.#timer)
    this.#timer = undefined
    this.#client?.close()
    process.stderr.write(ERASE_LINE)
  }

  async #tick(): Promise<void> {
    if (this.#busy) return
    this.#busy = true
    const stats = await this.#stats()
    this.#busy = false
    if (this.#timer === undefined) return
    const seconds = ((performance.now() - this.#startedAtMs) / 1000).toFixed(1)
    process.stderr.write(
      `${ERASE_LINE}${this.#label}  ${seconds} s  ${stats === undefined ? '' : describe(stats)}`,
    )
  }

  async #stats(): Promise<PagerStats | undefined> {
    try {
      if (this.#client === undefined || this.#client.closed) {
        const [path] = (await listPagerSockets(this.#runtimeDir)).filter(socket => socket.includes('.home.'))
        if (path === undefined) return undefined
        this.#client = await PagerClient.connect(path, 'observer')
      }
      return await this.#client.requestStats()
    } catch {
      return undefined
    }
  }
}

function describe(stats: PagerStats): string {
  const here = formatSize(bytes((stats.residentPages ?? 0) * PAGE_BYTES))
  const pulled = stats.pagesPulled ?? 0
  const pushed = stats.pagesPushed ?? 0
  return `here ${here}  pages pulled ${pulled}  pushed ${pushed}  jumps ${stats.jumps ?? 0}`
}
