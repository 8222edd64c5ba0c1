/**
 * A terminal that a live view takes for itself and gives back as it was, however the process ends (but by SIGKILL).
 */

import { writeSync } from 'node:fs'
import { constants } from 'node:os'
import type { Size } from './render.js'

/** Alternate screen, no cursor, lines that are too long are not continued on the next one (xterm's ctlseqs). */
const ENTER = '\u001b[?1049h\u001b[?25l\u001b[?7l'
const LEAVE = '\u001b[?7h\u001b[?25h\u001b[?1049l'
const HOME = '\u001b[H'
const ERASE_TO_END_OF_LINE = '\u001b[K'
const ERASE_BELOW = '\u001b[J'
const CTRL_C = '\u0003'
const SIGNAL_STATUS_BASE = 128
const DEFAULT_SIZE: Size = { columns: 80, rows: 24 }

export class LiveTerminal {
  /** Exit status of whoever ends the view: 0 by `q` or Ctrl-C, 128+n by signal n. */
  readonly ended: Promise<number>
  #left = false

  constructor() {
    this.ended = new Promise(resolve => {
      for (const signal of ['SIGTERM', 'SIGHUP'] as const)
        process.once(signal, () => resolve(SIGNAL_STATUS_BASE + constants.signals[signal]))
      process.once('SIGINT', () => resolve(0))
      process.stdout.once('error', () => resolve(0))
      process.stdin.on('data', (keys: Buffer) => {
        if (/q/i.test(keys.toString()) || keys.includes(CTRL_C)) resolve(0)
      })
    })
    process.once('exit', () => this.leave())
    if (process.stdin.isTTY) process.stdin.setRawMode(true)
    process.stdout.write(ENTER)
  }

  get size(): Size {
    const { columns = 0, rows = 0 } = process.stdout
    return columns > 0 && rows > 0 ? { columns, rows } : DEFAULT_SIZE
  }

  onResize(listener: () => void): void {
    process.stdout.on('resize', listener)
  }

  draw(lines: readonly string[]): void {
    const text = lines.map(line => `${line}${ERASE_TO_END_OF_LINE}`).join('\r\n')
    process.stdout.write(`${HOME}${text}${ERASE_BELOW}`)
  }

  leave(): void {
    if (this.#left) return
    this.#left = true
    try {
      if (process.stdin.isTTY) process.stdin.setRawMode(false)
      writeSync(1, LEAVE)
    } catch {
      // The terminal is gone, and there is nothing to give back.
    }
    process.stdin.pause()
  }
}
