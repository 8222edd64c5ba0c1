/**
 * Child processes of the demo: output hashed rather than kept, an end that always comes.
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { CliFailure } from '../failure.js'

const STDERR_CHARACTERS_MAX = 4000

export interface ChildOutcome {
  /** Exit status, or 128 + n for signal n, as a shell says it. */
  readonly status: string
  /** SHA-256 of standard output. */
  readonly digest: string
  readonly seconds: number
  /** The end of standard error. */
  readonly stderr: string
}

export interface ChildOptions {
  readonly env?: NodeJS.ProcessEnv
  readonly cwd?: string
  readonly signal: AbortSignal
  readonly timeoutMs: number
}

/** Runs a command to its end. Throws CliFailure when it cannot be started, was aborted, or takes too long. */
export async function runChild(command: readonly string[], options: ChildOptions): Promise<ChildOutcome> {
  const { signal, timeoutMs, ...rest } = options
  signal.throwIfAborted()
  const startedAtMs = performance.now()
  const child = spawn(command[0] ?? '', command.slice(1), { ...rest, stdio: ['ignore', 'pipe', 'pipe'] })
  const hash = createHash('sha256')
  let stderr = ''
  child.stdout.on('data', (chunk: Buffer) => hash.update(chunk))
  child.stderr.on('data', (chunk: Buffer) => {
    stderr = (stderr + chunk.toString()).slice(-STDERR_CHARACTERS_MAX)
  })
  let late = false
  const timer = setTimeout(() => {
    late = true
    child.kill('SIGTERM')
    killLater(child)
  }, timeoutMs)
  const abort = () => {
    child.kill('SIGTERM')
    killLater(child)
  }
  signal.addEventListener('abort', abort, { once: true })
  try {
    const [code, endSignal] = await once(child, 'close')
    signal.throwIfAborted()
    if (late) throw new CliFailure(`${command.join(' ')} did not end within ${timeoutMs / 1000} s`)
    const seconds = (performance.now() - startedAtMs) / 1000
    return { status: String(endSignal ?? code), digest: hash.digest('hex'), seconds, stderr: stderr.trim() }
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', abort)
  }
}

const KILL_AFTER_MS = 6000

/** SIGKILL for a child that ignores SIGTERM. */
export function killLater(child: ChildProcess): void {
  const timer = setTimeout(() => child.kill('SIGKILL'), KILL_AFTER_MS)
  child.once('exit', () => clearTimeout(timer))
}

/** The command line of elasticos itself, as this process was started. */
export function elasticosCommand(...args: string[]): string[] {
  return [process.execPath, process.argv[1] ?? '', ...args]
}
