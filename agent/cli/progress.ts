/**
 * One line on a terminal that says how far something is, drawn over itself and gone at the end. Nothing elsewhere.
 */

import { printable } from './output.js'

const ERASE_LINE = '\r\u001b[K'

export class Progress {
  readonly #stream: NodeJS.WriteStream
  #shown = false

  constructor(stream: NodeJS.WriteStream = process.stderr) {
    this.#stream = stream
  }

  show(line: string): void {
    if (!this.#stream.isTTY) return
    this.#shown = true
    this.#stream.write(`${ERASE_LINE}${printable(line).slice(0, this.#stream.columns - 1)}`)
  }

  end(): void {
    if (this.#shown) this.#stream.write(ERASE_LINE)
    this.#shown = false
  }
}
