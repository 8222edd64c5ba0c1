/**
 * Signals that `run` receives, for the program it runs.
 *
 * On a terminal, SIGINT and SIGQUIT reach the whole foreground process group, the program included: `run` only has to
 * survive them. Otherwise, and for all other signals, they are handed on. Stopping and continuing (job control) is
 * left to the kernel: `run`, pager and program are one process group.
 * A signal to the whole group is handed on as well; the pager, a member of it, knows that the program has had it.
 * Limit: Node resets inherited dispositions, so a SIGHUP that `nohup` had ignored is handed on; the program decides.
 */

import { constants } from 'node:os'

const HANDED_ON = [
  'SIGINT',
  'SIGQUIT',
  'SIGTERM',
  'SIGHUP',
  'SIGUSR1',
  'SIGUSR2',
  'SIGALRM',
  'SIGWINCH',
] as const
type HandedOn = (typeof HANDED_ON)[number]

/** What the terminal has already delivered to the program itself. */
const FROM_TERMINAL: ReadonlySet<HandedOn> = new Set(['SIGINT', 'SIGQUIT', 'SIGWINCH'])
/** What ends a run whose program has not started yet. */
const ENDING: ReadonlySet<HandedOn> = new Set(['SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGHUP'])

export class SignalDesk {
  readonly #handlers: [HandedOn, () => void][] = []
  #deliver: ((signal: number) => void) | undefined
  #abort: ((signal: number) => void) | undefined
  #aborted: number | undefined

  /** From here on no signal ends this process by itself. `onTerminal`: standard input is a terminal. */
  constructor(onTerminal: boolean) {
    for (const name of HANDED_ON) {
      const handler = () => this.#take(name, onTerminal)
      process.on(name, handler)
      this.#handlers.push([name, handler])
    }
  }

  /** Before the program runs: an ending signal calls `abort` (at once, if one came already). */
  abortWith(abort: (signal: number) => void): void {
    this.#abort = abort
    if (this.#aborted !== undefined) abort(this.#aborted)
  }

  /** Once the program runs: signals go to `deliver`. */
  deliverTo(deliver: (signal: number) => void): void {
    this.#deliver = deliver
  }

  close(): void {
    for (const [name, handler] of this.#handlers) process.removeListener(name, handler)
  }

  #take(name: HandedOn, onTerminal: boolean): void {
    const signal = constants.signals[name]
    if (this.#deliver !== undefined) {
      if (!onTerminal || !FROM_TERMINAL.has(name)) this.#deliver(signal)
    } else if (ENDING.has(name)) {
      this.#aborted ??= signal
      this.#abort?.(signal)
    }
  }
}
