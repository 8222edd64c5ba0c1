/** A TCP wire on the loopback interface that a test can cut, hold and take away: what lies between two pagers. */

import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'

const LOOPBACK = '127.0.0.1'

export class Wire {
  /** Connections that were dialled through it. */
  dialled = 0
  #held = false
  readonly #server: Server
  readonly #pairs = new Set<readonly [Socket, Socket]>()
  readonly #frozen = new Set<readonly [Socket, Socket]>()

  private constructor(server: Server, target: number) {
    this.#server = server
    server.on('connection', socket => this.#join(socket, target))
  }

  /** A wire to what listens on `target`. */
  static async to(target: number): Promise<Wire> {
    const server = createServer({ pauseOnConnect: true }).listen(0, LOOPBACK)
    const wire = new Wire(server, target)
    await once(server, 'listening')
    return wire
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  get connections(): number {
    return this.#pairs.size
  }

  /** Cuts one of its connections, by a reset or as if the other side had closed; false if there is none. */
  cut(which: number, how: 'reset' | 'end'): boolean {
    const pair = [...this.#pairs][which]
    if (pair === undefined) return false
    for (const socket of pair) how === 'reset' ? socket.resetAndDestroy() : socket.destroy()
    return true
  }

  /** From now on bytes are taken only as far as buffers go, until `release`. */
  hold(): void {
    this.#held = true
    for (const pair of this.#pairs) for (const socket of pair) socket.pause()
  }

  release(): void {
    this.#held = false
    for (const pair of this.#pairs) for (const socket of pair) socket.resume()
  }

  /** What is connected now carries nothing any more, and nobody is told; what is dialled later does. */
  freeze(): void {
    for (const pair of this.#pairs) {
      this.#frozen.add(pair)
      for (const socket of pair) socket.pause()
    }
  }

  /** Cuts everything; nobody listens there any more. */
  remove(): void {
    this.#server.close()
    for (let which = this.#pairs.size; which > 0; which--) this.cut(which - 1, 'reset')
  }

  #join(near: Socket, target: number): void {
    this.dialled++
    const far = connect(target, LOOPBACK)
    const pair = [near, far] as const
    this.#pairs.add(pair)
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      from.setNoDelay(true)
      from.on('error', () => {})
      from.on('data', bytes => {
        if (!to.write(bytes)) from.pause()
      })
      to.on('drain', () => {
        if (!this.#held && !this.#frozen.has(pair)) from.resume()
      })
      from.on('end', () => to.end())
      from.on('close', () => {
        to.destroy()
        this.#pairs.delete(pair)
      })
    }
    if (!this.#held) near.resume()
  }
}
