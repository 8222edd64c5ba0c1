/**
 * `elasticos simulate`: many agents in one process, from a seed, with faults, in virtual time. The simulator itself is
 * sim-net/, which is above this folder: the launcher hands it in.
 */

import { writeFileSync } from 'node:fs'
import type { Command } from 'commander'
import { systemRng } from '../ports/rng.js'
import { CliFailure, EXIT_FAILURE, EXIT_USAGE } from './failure.js'
import type { Finish } from './main.js'
import { coloured, print, printable, writeStderr } from './output.js'
import { countFlag } from './values.js'

interface Options {
  readonly agents: number
  readonly seconds: number
  readonly seed: number
  readonly faults: string
  readonly record: boolean
}

interface Result {
  readonly seed: number
  readonly hash: string
  readonly violations: readonly { readonly at: number; readonly kind: string; readonly text: string }[]
  readonly violationsLeft: number
  readonly virtualSeconds: number
  readonly messages: number
  readonly processes: number
  readonly failed: number
  readonly pulls: number
  readonly jumps: number
}

interface Run {
  /** Virtual seconds so far. */
  readonly seconds: number
  /** Lets a virtual second pass; false when all is over. */
  step(): boolean
  result(): Result
  /** As SVG; only of a run that was recorded. */
  plot(): string
}

/** What the command needs of a simulator. */
export interface Simulator {
  readonly profiles: readonly string[]
  start(options: Options): Run
  hashOf(texts: readonly string[]): string
}

/** `command` repeats it. */
type Done = Result & { readonly wallMs: number; readonly command: string }

const AGENTS_MAX = 20_000
const SECONDS_MAX = 100_000
const SEEDS_MAX = 1_000_000
const SEED_MAX = 2 ** 31 - 1
/** On a terminal, in place; else, a line each. */
const PROGRESS_MS = 200
const PROGRESS_LINE_MS = 10_000
const SHOWN_MAX = 5

interface Flags {
  readonly agents: string
  readonly seconds: string
  readonly seed?: string
  readonly seeds?: string
  readonly faults: string
  readonly plot?: string
  readonly json?: boolean
}

const HELP = `
Agents, pagers and threads run in one process and in virtual time; what they do, and what goes wrong, depends on the
seed alone. At every step it is checked that each page has one owner, each thread one running copy, that reads see the
last write, and that leases and memory are kept; in the end that everything is live again and nothing is left behind.

Faults: calm (none), lossy (loss, delay, little bandwidth, broken connections), partition (cuts in one or both
directions, partitions), churn (crashes, restarts, pagers that die or stall, agents that leave in order), chaos (all of
these, stalls of whole machines, clocks that are wrong or jump, short memory).

Exits with 1 when something did not hold; the seed and the command that repeats it are printed.

Examples:
  elasticos simulate --agents 1000 --seconds 60
  elasticos simulate --seeds 1..100 --faults chaos
  elasticos simulate --seed 7 --faults partition --plot run.svg`

export function addSimulateCommand(program: Command, finish: Finish, load: () => Promise<Simulator>): void {
  program
    .command('simulate')
    .description('simulate a cluster under faults, and check that it does everything right')
    .option('--agents <N>', 'how many agents', '12')
    .option('--seconds <S>', 'virtual seconds, to which some for the end are added', '30')
    .option('--seed <N>', 'what everything is drawn from (default: drawn)')
    .option('--seeds <A..B>', 'one run for each of these seeds')
    .option('--faults <PROFILE>', 'calm, lossy, partition, churn or chaos', 'calm')
    .option('--plot <FILE>', 'draw the run as SVG: agents as rows, pages, jumps and faults as marks')
    .option('--json', 'print JSON')
    .option('--verbose', 'say more when something fails')
    .addHelpText('after', HELP)
    .action(async (flags: Flags) => {
      finish(simulate(await load(), flags))
    })
}

function simulate(simulator: Simulator, flags: Flags): number {
  const agents = countFlag('--agents', flags.agents, 1, AGENTS_MAX)
  const seconds = countFlag('--seconds', flags.seconds, 1, SECONDS_MAX)
  const { faults } = flags
  if (!simulator.profiles.includes(faults))
    throw new CliFailure(`--faults ${faults}: there are ${simulator.profiles.join(', ')}`, EXIT_USAGE)
  const [first, last] = seedsOf(flags)
  if (flags.plot !== undefined && last !== first)
    throw new CliFailure('--plot draws one run: give --seed instead of --seeds', EXIT_USAGE)
  const done: Done[] = []
  for (let seed = first; seed <= last; seed++) {
    const options = { agents, seconds, seed, faults, record: flags.plot !== undefined }
    const result = runOne(simulator, options, last - seed, flags.plot)
    done.push(result)
    if (flags.json !== true && result.violations.length > 0) tellViolations(result)
  }
  if (flags.json === true) print(JSON.stringify(asJson(simulator, done), null, 2))
  else for (const line of summary(done)) print(line)
  return done.some(({ violations }) => violations.length > 0) ? EXIT_FAILURE : 0
}

function seedsOf({ seed, seeds }: Flags): [number, number] {
  if (seeds === undefined) {
    const one = seed === undefined ? systemRng.below(SEED_MAX) : countFlag('--seed', seed, 0, SEED_MAX)
    return [one, one]
  }
  if (seed !== undefined) throw new CliFailure('give --seed or --seeds, not both', EXIT_USAGE)
  const [, from = '', to = ''] = /^(\d+)\.\.(\d+)$/.exec(seeds) ?? []
  if (from === '') throw new CliFailure(`--seeds ${printable(seeds)}: write A..B, as in 1..100`, EXIT_USAGE)
  const first = countFlag('--seeds', from, 0, SEED_MAX)
  return [first, countFlag('--seeds', to, first, Math.min(SEED_MAX, first + SEEDS_MAX - 1))]
}

function runOne(simulator: Simulator, options: Options, left: number, plot: string | undefined): Done {
  const began = performance.now()
  const progress = new Progress(options, left)
  const run = simulator.start(options)
  while (run.step()) progress.show(run.seconds)
  progress.end()
  const { agents, seconds, seed, faults } = options
  const command = `elasticos simulate --agents ${agents} --seconds ${seconds} --seed ${seed} --faults ${faults}`
  if (plot !== undefined) writeFileSync(plot, run.plot())
  return { ...run.result(), wallMs: Math.round(performance.now() - began), command }
}

/** How far a run is, on stderr, when it takes a while. */
class Progress {
  readonly #options: Options
  readonly #left: number
  readonly #isTerminal = process.stderr.isTTY
  #shownAt = performance.now()
  #isShown = false

  constructor(options: Options, left: number) {
    this.#options = options
    this.#left = left
  }

  show(now: number): void {
    if (performance.now() - this.#shownAt < (this.#isTerminal ? PROGRESS_MS : PROGRESS_LINE_MS)) return
    this.#shownAt = performance.now()
    this.#isShown = true
    const { seed, seconds } = this.#options
    const more = this.#left > 0 ? `, ${this.#left} more seeds` : ''
    // What comes after the faults takes as long as it takes until all is live again.
    const far = now <= seconds ? `${Math.floor(now)} of ${seconds} s` : `its end, at ${Math.floor(now)} s`
    const text = `seed ${seed}: ${far}${more}`
    writeStderr(this.#isTerminal ? `\r\x1b[K${text}` : `${text}\n`)
  }

  end(): void {
    if (this.#isShown && this.#isTerminal) writeStderr('\r\x1b[K')
  }
}

function tellViolations({ seed, violations, violationsLeft, command }: Done): void {
  print(coloured('red', `seed ${seed}: ${violations.length + violationsLeft} violations`))
  for (const { at, kind, text } of violations.slice(0, SHOWN_MAX))
    print(`  at ${(at / 1000).toFixed(3)} s, ${kind}: ${printable(text)}`)
  print(`  to repeat it: ${command}`)
}

function sumOf(done: readonly Done[], of: (run: Done) => number): number {
  return done.reduce((sum, run) => sum + of(run), 0)
}

function asJson(simulator: Simulator, done: readonly Done[]): unknown {
  const [only] = done
  if (done.length === 1 && only !== undefined) return only
  return {
    hash: simulator.hashOf(done.map(({ hash }) => hash)),
    violations: done.flatMap(({ violations }) => violations),
    virtualSeconds: sumOf(done, ({ virtualSeconds }) => virtualSeconds),
    wallMs: sumOf(done, ({ wallMs }) => wallMs),
    messages: sumOf(done, ({ messages }) => messages),
    runs: done,
  }
}

function summary(done: readonly Done[]): string[] {
  const bad = done.filter(({ violations }) => violations.length > 0).length
  const what = done.length === 1 ? `seed ${done[0]?.seed}, hash ${done[0]?.hash}` : `${done.length} seeds`
  const seconds = Math.round(sumOf(done, ({ virtualSeconds }) => virtualSeconds))
  const processes = sumOf(done, each => each.processes)
  const failed = sumOf(done, each => each.failed)
  return [
    `${what}: ${bad === 0 ? 'everything held' : `${bad} with violations`}`,
    `${seconds} virtual seconds in ${(sumOf(done, ({ wallMs }) => wallMs) / 1000).toFixed(1)} s; ` +
      `${sumOf(done, ({ messages }) => messages)} messages, ${processes} processes (${failed} ended by a fault), ` +
      `${sumOf(done, ({ pulls }) => pulls)} pulls, ${sumOf(done, ({ jumps }) => jumps)} jumps`,
  ]
}
