/**
 * Runs the command line in a process of its own, with all its directories in a temporary tree and a fake pager.
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const TIMEOUT_MS = 20_000
const MAIN_URL = new URL('../../agent/cli/main.js', import.meta.url).href
const FAKE_PAGER = fileURLToPath(new URL('./cli-fake-pager.js', import.meta.url))

export interface Outcome {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
  readonly ms: number
}

export class Sandbox {
  readonly directory = mkdtempSync(join(tmpdir(), 'elasticos-cli-'))
  readonly launcher = join(this.directory, 'launcher.mjs')
  readonly #pager = join(this.directory, 'elasticos-pager')

  constructor() {
    const code = `import { main } from '${MAIN_URL}'\nprocess.exitCode = await main(process.argv.slice(2))\n`
    writeFileSync(this.launcher, code)
    writeFileSync(this.#pager, `#!/bin/sh\nexec '${process.execPath}' '${FAKE_PAGER}' "$@"\n`)
    chmodSync(this.#pager, 0o755)
    mkdirSync(this.path('runtime'), { mode: 0o700 })
  }

  path(...names: string[]): string {
    return join(this.directory, ...names)
  }

  /** Starts the command line; `misbehaviour` is the fake pager's. */
  spawn(args: readonly string[], misbehaviour = ''): ChildProcess {
    const env = {
      PATH: process.env.PATH,
      HOME: this.path('home'),
      XDG_RUNTIME_DIR: this.path('runtime'),
      XDG_STATE_HOME: this.path('state'),
      ELASTICOS_PAGER: this.#pager,
      FAKE_PAGER: misbehaviour,
    }
    return spawn(process.execPath, [this.launcher, ...args], { env, cwd: this.directory })
  }

  /** Runs it to its end. */
  async elasticos(args: readonly string[], misbehaviour = '', input = ''): Promise<Outcome> {
    const child = this.spawn(args, misbehaviour)
    child.stdin?.end(input)
    return await outcome(child)
  }

  /** Files a run has left in its directories (spill's empty directory aside). */
  leftovers(): string[] {
    const files = ['runtime', 'state'].flatMap(name => {
      try {
        return readdirSync(this.path(name), { recursive: true, withFileTypes: true })
      } catch {
        return []
      }
    })
    return files.filter(entry => !entry.isDirectory()).map(entry => join(entry.parentPath, entry.name))
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true })
  }
}

/** The end of a child, which is killed when it takes too long. */
export async function outcome(child: ChildProcess): Promise<Outcome> {
  const startedAtMs = performance.now()
  const timer = setTimeout(() => child.kill('SIGKILL'), TIMEOUT_MS)
  let stdout = ''
  let stderr = ''
  child.stdout?.on('data', chunk => {
    stdout += chunk
  })
  child.stderr?.on('data', chunk => {
    stderr += chunk
  })
  const [status] = await once(child, 'close')
  clearTimeout(timer)
  return { status, stdout, stderr, ms: performance.now() - startedAtMs }
}

/** The lines of stderr that are elasticos's own. */
export function ownLines(stderr: string): string[] {
  return stderr
    .split('\n')
    .filter(line => line.startsWith('elasticos:') && !line.includes('a warning of the pager'))
}
