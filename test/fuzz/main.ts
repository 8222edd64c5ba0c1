/**
 * `npm run fuzz -- [--only TARGET] [--inputs N] [--seed S]`: a million inputs for each decoder of what comes from
 * outside: libFuzzer with sanitizers for the pager's (kmod/pager/fuzz), fast-check for TypeScript's (decoders.ts).
 * Fixed seeds, so that a run repeats; an input that breaks a rule is kept, with the command that repeats it. Ends with
 * 0 only if there was none.
 */

import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { ROOT } from '../helpers/native.js'
import { outcomeOf } from '../helpers/outcome.js'
import { decoders } from './decoders.js'

const USAGE = 'usage: npm run fuzz -- [--only TARGET] [--inputs N] [--seed S]'
const INPUTS = 1_000_000
const TARGET_TIMEOUT_MS = 900_000
const SOURCES = join(ROOT, 'kmod', 'pager', 'fuzz')
const BUILD = join(ROOT, 'kmod', 'pager', 'build', 'fuzz')
/** Inputs that broke a rule; and spill files, which must not lie in memory. */
const KEPT = join(BUILD, 'kept')
const DECODE_MAIN = fileURLToPath(new URL('decode-main.js', import.meta.url))
/** Longest input in bytes: enough for a dozen frames. */
const INPUT_BYTES_MAX = 512
/** What one input of such a target judges by and by, on average: frames, records, calls, pieces. */
const JUDGED_EACH: Readonly<Record<string, number>> = {
  engine: 32,
  handshake: 40,
  lane: 3.4,
  peer: 10,
  records: 3.4,
}

interface Target {
  readonly name: string
  readonly command: string
  readonly args: readonly string[]
  /** How the same input is judged again. */
  readonly repeat: (kept: string) => string
}

interface Wish {
  readonly only: string | undefined
  readonly inputs: number
  readonly seed: number
}

/** Throws an Error with one line. */
function readWish(args: string[]): Wish {
  const { values } = parseArgs({
    args,
    options: { only: { type: 'string' }, inputs: { type: 'string' }, seed: { type: 'string' } },
  })
  const number = (flag: string, text: string | undefined, otherwise: number) => {
    const value = text === undefined ? otherwise : Number(text)
    if (!Number.isSafeInteger(value) || value < 1) throw new Error(`${flag} wants a whole number from 1`)
    return value
  }
  return {
    only: values.only,
    inputs: number('--inputs', values.inputs, INPUTS),
    seed: number('--seed', values.seed, 1),
  }
}

function nativeTargets({ inputs, seed }: Wish): Target[] {
  const names = readdirSync(SOURCES)
    .map(file => /^fuzz_(\w+)\.cpp$/.exec(file)?.[1])
    .filter(name => name !== undefined && name !== 'kit') as string[]
  return names.map(name => ({
    name: `pager/${name}`,
    command: join(BUILD, name),
    args: [
      `-seed=${seed}`,
      `-runs=${Math.ceil(inputs / (JUDGED_EACH[name] ?? 1))}`,
      `-max_len=${INPUT_BYTES_MAX}`,
      '-len_control=0',
      '-timeout=60',
      '-rss_limit_mb=4096',
      '-verbosity=0',
      '-print_funcs=0',
      `-artifact_prefix=${KEPT}/${name}-`,
    ],
    repeat: kept => `FUZZ_DIRECTORY=${KEPT} ${join(BUILD, name)} ${kept}`,
  }))
}

function scriptTargets({ inputs, seed }: Wish): Target[] {
  return decoders(KEPT).map(({ name }) => ({
    name: `agent/${name}`,
    command: process.execPath,
    args: [DECODE_MAIN, name, String(inputs), String(seed)],
    repeat: kept => `${process.execPath} ${DECODE_MAIN} ${name} ${kept}`,
  }))
}

/** Throws an Error with one line, or with the compiler's words. */
function build(): void {
  if (spawnSync('clang++', ['--version'], { stdio: 'ignore' }).status !== 0)
    throw new Error('clang++ is missing: run `apt-get install -y clang` (as root) and try again')
  const jobs = `-j${availableParallelism()}`
  const made = spawnSync('make', ['-s', jobs, '-C', SOURCES], { encoding: 'utf8' })
  if (made.status !== 0) throw new Error(`the build failed:\n${made.stdout}${made.stderr}`)
}

/** True if no input broke a rule. */
async function run(target: Target, inputs: number): Promise<boolean> {
  const start = performance.now()
  const child = spawn(target.command, target.args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, FUZZ_DIRECTORY: KEPT, ASAN_OPTIONS: 'detect_leaks=0:quarantine_size_mb=8' },
  })
  const end = await outcomeOf(child, TARGET_TIMEOUT_MS)
  const said = `${end.stdout}${end.stderr}`
  const judged = Number(/^judged: (\d+)$/m.exec(said)?.[1] ?? inputs)
  const seconds = ((performance.now() - start) / 1000).toFixed(1)
  if (end.status === 0) {
    console.log(`${target.name}: ${judged} inputs, ${seconds} s, ok`)
    return true
  }
  const kept = /Test unit written to (\S+)/.exec(said)?.[1] ?? /^hex:[0-9a-f]*$/m.exec(said)?.[0]
  console.log(`${target.name}: WRONG after ${seconds} s (${end.signal ?? end.status})\n${said.slice(-6000)}`)
  console.log(
    `repeat with: ${kept === undefined ? [target.command, ...target.args].join(' ') : target.repeat(kept)}`,
  )
  return false
}

async function main(): Promise<number> {
  const start = performance.now()
  let targets: Target[]
  let wish: Wish
  try {
    wish = readWish(process.argv.slice(2))
    const { only } = wish
    const all = [...nativeTargets(wish), ...scriptTargets(wish)]
    targets = all.filter(each => only === undefined || each.name === only || basename(each.name) === only)
    if (targets.length === 0) throw new Error(`--only is one of: ${all.map(each => each.name).join(', ')}`)
    if (targets.some(each => each.name.startsWith('pager/'))) build()
  } catch (error) {
    console.error(`fuzz: ${error instanceof Error ? error.message : error}\n${USAGE}`)
    return 2
  }
  rmSync(KEPT, { recursive: true, force: true })
  mkdirSync(KEPT, { recursive: true })
  const queue = [...targets]
  let wrong = 0
  const work = async () => {
    for (let target = queue.shift(); target !== undefined; target = queue.shift())
      if (!(await run(target, wish.inputs))) wrong++
  }
  await Promise.all(Array.from({ length: availableParallelism() }, work))
  const minutes = ((performance.now() - start) / 60_000).toFixed(1)
  console.log(`fuzz: ${targets.length - wrong} of ${targets.length} targets ok in ${minutes} minutes`)
  return wrong === 0 ? 0 : 1
}

process.exitCode = await main()
