/** The native halves of the benchmark: built with make and the C compiler, run pinned, their output read. */

import { execFile, execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { ROOT } from '../helpers/native.js'
import type { Sample } from './figure.js'
import { CPU_HOME, peerCpu, pinned } from './pair.js'

const BUILD_DIR = join(ROOT, 'kmod', 'pager', 'build')
const PROGRAMS_DIR = join(BUILD_DIR, 'bench-programs')
const TIMEOUT_MS = 120_000

const execute = promisify(execFile)

/**
 * Builds the reference programs and the test programs, one process at a time (flock). Throws Error with the compiler's
 * words.
 */
export function buildAll(): void {
  const folder = join(ROOT, 'kmod', 'pager', 'bench')
  run('flock', [folder, 'make', '-s', '-C', folder])
  mkdirSync(PROGRAMS_DIR, { recursive: true })
  for (const name of ['pull', 'jump', 'scan', 'fits', 'dict', 'linger']) {
    const source = join(ROOT, 'test', 'bench', 'programs', `${name}.c`)
    run('flock', [folder, 'cc', '-O2', '-Wall', '-Wextra', '-Werror', '-o', programPath(name), source])
  }
}

export function programPath(name: string): string {
  return join(PROGRAMS_DIR, name)
}

function run(command: string, args: string[]): void {
  const done = spawnSync(command, args, { encoding: 'utf8', timeout: TIMEOUT_MS })
  if (done.status === 0) return
  throw new Error(`${command} failed: ${done.error?.message ?? ''}${done.stdout}${done.stderr}`)
}

/** Runs a program natively on home's CPU; its standard output and how long it ran. */
export async function runNatively(
  command: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Promise<{ stdout: string; wallMs: number }> {
  const fromMs = performance.now()
  const [program, args] = pinned(CPU_HOME, command)
  const done = await execute(program, args, {
    timeout: TIMEOUT_MS,
    maxBuffer: 1 << 26,
    env: { ...process.env, ...environment },
  })
  return { stdout: done.stdout, wallMs: performance.now() - fromMs }
}

interface Line extends Sample {
  readonly name: string
}

async function figuresOf(program: string, args: string[]): Promise<Map<string, Sample>> {
  const { stdout } = await execute(join(BUILD_DIR, program), args, { timeout: TIMEOUT_MS })
  const lines = stdout.trim().split('\n')
  return new Map(
    lines.map(text => {
      const { name, p50, p99, unit }: Line = JSON.parse(text)
      return [name, { p50, p99, unit: unit === 'us' ? 'µs' : unit }]
    }),
  )
}

/** Options of bench-reference (see kmod/pager/bench/reference.cpp). */
export interface WireOptions {
  readonly only: 'raw' | 'rawTls' | 'echoTls' | 'bulkTls2' | 'bulkTlsCpu'
  readonly samples?: number
  readonly seconds?: number
  /** For echoTls: bytes in each direction. */
  readonly bytes?: number
}

/** One figure of the wire, between two processes pinned as the pagers are. */
export async function wire(cpus: 1 | 2, options: WireOptions): Promise<Sample> {
  const { only, samples = 2000, seconds = 1, bytes = 0 } = options
  const placed = ['--cpus', String(cpus), '--cpu-home', String(CPU_HOME), '--cpu-peer', String(peerCpu(cpus))]
  const amount = ['--samples', String(samples), '--seconds', String(seconds), '--bytes', String(bytes)]
  return one(await figuresOf('bench-reference', ['--only', only, ...placed, ...amount]), only)
}

/** A fault, or fault and context, on one node. */
export async function local(cpus: 1 | 2, only: 'localFault' | 'context', samples: number): Promise<Sample> {
  const args = ['--only', only, '--cpus', String(cpus), '--cpu-home', String(CPU_HOME)]
  return one(await figuresOf('bench-local', [...args, '--samples', String(samples)]), only)
}

function one(figures: Map<string, Sample>, name: string): Sample {
  const sample = figures.get(name)
  if (sample === undefined) throw new Error(`no figure ${name} came`)
  return sample
}

/** First line of a command's output, or empty. */
export function firstLine(command: string, args: readonly string[]): string {
  try {
    return (
      execFileSync(command, [...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).split(
        '\n',
      )[0] ?? ''
    )
  } catch {
    return ''
  }
}
