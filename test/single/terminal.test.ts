/**
 * At a real terminal: a shell with job control in a pseudo-terminal (script(1) makes it), and the keys ^C, ^Z, and `fg`.
 * The same keys are pressed with the program alone, and must have the same effects.
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import test from 'ava'
import { type TestCluster, until } from '../helpers/cluster.js'
import { buildProgram } from '../helpers/programs.js'
import { startCluster } from '../matrix/matrix.js'

const TIMEOUT_MS = 180_000
const STEP_MS = 60_000
const CTRL_C = '\x03'
const CTRL_Z = '\x1a'

let cluster: TestCluster

test.before(async t => {
  t.timeout(TIMEOUT_MS)
  cluster = await startCluster(2)
})

test.after.always(async t => {
  t.deepEqual(await cluster?.stop(), [])
})

/** An interactive shell in a pseudo-terminal. */
class Terminal {
  readonly #child: ChildProcess
  #shown = ''

  constructor() {
    const shell = ['-qec', 'bash --norc --noprofile -i', '/dev/null']
    this.#child = spawn('script', shell, {
      cwd: cluster.directory,
      env: cluster.environment,
    })
    this.#child.stdout?.on('data', chunk => {
      this.#shown += chunk
    })
  }

  type(text: string): void {
    this.#child.stdin?.write(text)
  }

  /** Waits until the text is shown, and forgets what came up to it. */
  async shows(text: string): Promise<void> {
    try {
      await until(text, () => this.#shown.includes(text), STEP_MS)
    } catch (error) {
      throw new Error(`${error instanceof Error ? error.message : error}; shown was: ${this.#shown}`)
    }
    this.#shown = this.#shown.slice(this.#shown.indexOf(text) + text.length)
  }

  async end(): Promise<void> {
    if (this.#child.exitCode !== null) return
    const ended = once(this.#child, 'exit')
    this.#child.stdin?.end('exit\n')
    const late = setTimeout(() => this.#child.kill('SIGKILL'), STEP_MS)
    await ended
    clearTimeout(late)
  }
}

const STRETCH = ['--memory', '5M', '--participants', '2', '--participants-min', '2', '--wait', '15s']

/** The command line of the program: alone, or stretched. */
function line(stretched: boolean, ...args: string[]): string {
  const program = [buildProgram('terminal', cluster.directory), '3000', ...args]
  const run = [
    process.execPath,
    cluster.path('elasticos.mjs'),
    'run',
    '--control',
    cluster.agent('a').control,
  ]
  return [...(stretched ? [...run, ...STRETCH, '--jump-every', '7', '--'] : []), ...program].join(' ')
}

for (const stretched of [false, true]) {
  const how = stretched ? 'stretched' : 'alone'
  test.serial(`^C goes to the program's handler, ^Z stops and fg continues it (${how})`, async t => {
    t.timeout(TIMEOUT_MS)
    const terminal = new Terminal()
    try {
      terminal.type(`${line(stretched)}\n`)
      await terminal.shows('ready')
      terminal.type(CTRL_C)
      await terminal.shows('interrupted once')
      terminal.type(CTRL_Z)
      await terminal.shows('Stopped')
      terminal.type('echo status-$?\n')
      await terminal.shows('status-148') // 128 + SIGTSTP
      terminal.type('fg\n')
      await terminal.shows('continued')
      terminal.type(CTRL_C)
      await terminal.shows('interrupted twice')
      await terminal.shows('whole')
      terminal.type('echo status-$?\n')
      await terminal.shows('status-3')
    } finally {
      await terminal.end()
    }
    t.pass()
  })

  test.serial(`^C ends a program that does not handle it (${how})`, async t => {
    t.timeout(TIMEOUT_MS)
    const terminal = new Terminal()
    try {
      terminal.type(`${line(stretched, 'plain')}\n`)
      await terminal.shows('ready')
      terminal.type(CTRL_C)
      terminal.type('echo status-$?\n')
      await terminal.shows('status-130') // 128 + SIGINT
    } finally {
      await terminal.end()
    }
    t.pass()
  })
}
