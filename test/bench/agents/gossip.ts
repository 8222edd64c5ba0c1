/** How long what an agent says takes to all others: two watchers (watcher.ts) that join a group. */

import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { AgentGroup } from './group.js'
import type { WatcherAddress, WatcherOptions, WatcherReport } from './watcher.js'

const PROGRAM = fileURLToPath(new URL('watcher.js', import.meta.url))
const WATCHERS = ['watcher-1', 'watcher-2']
const LINE_TIMEOUT_MS = 120_000

/** Joins two watchers to a group that is complete; both are gone in the end. */
export async function gossipIn(group: AgentGroup, seconds: number): Promise<WatcherReport> {
  const agents = group.names.length
  const watchers = WATCHERS.map(name => {
    const { prefix, address: host } = group.place(name)
    const others = agents + WATCHERS.length - 1
    return new Watcher(prefix, { keyFile: group.cluster.keyFile, host, others, seconds })
  })
  try {
    const addresses = await Promise.all(watchers.map(watcher => watcher.next<WatcherAddress>()))
    await group.untilJoined(agents + WATCHERS.length)
    for (const [i, watcher] of watchers.entries()) watcher.tell(addresses[1 - i])
    const reports = await Promise.all(watchers.map(watcher => watcher.next<WatcherReport>()))
    return {
      gossipMs: reports.flatMap(report => report.gossipMs),
      tcpMs: reports.flatMap(report => report.tcpMs),
    }
  } finally {
    for (const watcher of watchers) watcher.kill()
  }
}

class Watcher {
  readonly #child: ChildProcess
  readonly #lines: AsyncIterator<string>

  constructor(prefix: readonly string[], options: WatcherOptions) {
    const [command = '', ...words] = [...prefix, process.execPath, PROGRAM, JSON.stringify(options)]
    const child = spawn(command, words, { stdio: ['pipe', 'pipe', 'inherit'] })
    child.stdin.on('error', () => {})
    this.#child = child
    this.#lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  }

  async next<T>(): Promise<T> {
    const late = setTimeout(() => this.kill(), LINE_TIMEOUT_MS)
    const { value, done } = await this.#lines.next()
    clearTimeout(late)
    if (done === true) throw new Error('a watcher of the gossip has ended, or said nothing in time')
    return JSON.parse(value) as T
  }

  tell(address: WatcherAddress | undefined): void {
    this.#child.stdin?.write(`${JSON.stringify(address)}\n`)
  }

  kill(): void {
    this.#child.kill('SIGKILL')
  }
}
