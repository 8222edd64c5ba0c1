/** Waiting, with a limit: for a child's end, for anything that comes true. */

import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'

const POLL_MS = 20

/** A child that has ended. */
export interface Outcome {
  readonly status: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: Buffer
  readonly stderr: string
  /** performance.now() at its end. */
  readonly endedAtMs: number
}

/** Waits until `done` holds; fails after `timeoutMs` with `what`. Returns how long it took in ms. */
export async function until(
  what: string,
  done: () => boolean | Promise<boolean>,
  timeoutMs = 10_000,
): Promise<number> {
  const start = performance.now()
  while (!(await done())) {
    if (performance.now() - start > timeoutMs) throw new Error(`waited ${timeoutMs} ms in vain for: ${what}`)
    await sleep(POLL_MS)
  }
  return performance.now() - start
}

/** The end of a child, which is killed when it takes too long. */
export async function outcomeOf(child: ChildProcess, timeoutMs: number): Promise<Outcome> {
  const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs)
  const stdout: Buffer[] = []
  let stderr = ''
  child.stdout?.on('data', (chunk: Buffer) => stdout.push(chunk))
  child.stderr?.on('data', chunk => {
    stderr += chunk
  })
  const [status, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null]
  clearTimeout(timer)
  return { status, signal, stdout: Buffer.concat(stdout), stderr, endedAtMs: performance.now() }
}
