/**
 * `npm run bench -- [--json] [--only NAME] [--quick]`: measures this checkout on this machine and prints figures with
 * the references they are divided by. Progress goes to standard error. Times never decide the exit status: it is 1
 * only when something could not be measured.
 *
 * `--only` takes the name of a figure or the beginning of some (`pull`, `jump/raw`, `fits`, `program/sort`).
 */

import { arch, cpus, release, tmpdir, totalmem } from 'node:os'
import { parseArgs } from 'node:util'
import { ROOT } from '../helpers/native.js'
import { MANY } from './agents/many.js'
import { agents } from './agents/measures.js'
import { CPU_PER_PAGE, PAGER_MEMORY } from './costs.js'
import { type Figure, Rounds } from './figure.js'
import { JUMP, type Measure, PULL, SCAN } from './measures.js'
import { buildAll, firstLine } from './native.js'
import { fits, measureProgram, PROGRAMS } from './programs.js'
import { RANDOM_ACCESS } from './random.js'
import { SwapSetup } from './swap.js'

const USAGE = 'usage: npm run bench -- [--json] [--only NAME] [--quick]'

interface Options {
  readonly json: boolean
  readonly quick: boolean
  readonly only: string | undefined
}

const PLANE: readonly Measure[] = [PULL, JUMP, SCAN, CPU_PER_PAGE]
/** Not a matter of time: once is enough. */
const COUNTS: readonly Measure[] = [PAGER_MEMORY, RANDOM_ACCESS]
const AGENTS: readonly Measure[] = [agents(3), agents(8), agents(16), MANY]
const FITS: readonly Measure[] = [fits('cpu'), fits('malloc'), fits('io')]

function progress(text: string): void {
  process.stderr.write(`bench: ${text}\n`)
}

/** Whether `--only` asks for any figure with one of these names. */
function wanted(options: Options, names: readonly string[]): boolean {
  const { only } = options
  return (
    only === undefined ||
    names.some(name => name === only || name.startsWith(`${only}/`) || only.startsWith(`${name}/`))
  )
}

/** The names that `--only` may ask for a program by. */
function namesOf(program: { readonly name: string }): readonly string[] {
  return [`program/${program.name}`, `program-vs-swap/${program.name}`]
}

/** Whether `--only`, where given, asks for something that there is. */
function isFigure(options: Options): boolean {
  return (
    [...PLANE, ...COUNTS, ...AGENTS].some(one => wanted(options, [one.name, ...one.reports])) ||
    FITS.some(one => wanted(options, [one.name, 'fits'])) ||
    PROGRAMS.some(program => wanted(options, namesOf(program)))
  )
}

/** Several short rounds rather than one long one, so that a busy moment spoils one of them only. */
async function measure(one: Measure, on: 1 | 2, count: number, quick: boolean): Promise<Figure[]> {
  const rounds = new Rounds(on)
  for (let round = 0; round < count; round++) await one.round(rounds, quick)
  const figures = one.report(rounds)
  for (const { name, cpus, p50, unit, ratio } of figures)
    progress(`${name} (cpus ${cpus}): ${p50} ${unit}${ratio === null ? '' : `, ratio ${ratio}`}`)
  return figures
}

/** What the comparison with swap needs; undefined, with the reason on standard error, where it cannot be had. */
function swapHere(): SwapSetup | undefined {
  try {
    return new SwapSetup(tmpdir())
  } catch (error) {
    progress(`program-vs-swap: left out, ${error instanceof Error ? error.message : error}`)
    return undefined
  }
}

async function measureAll(
  options: Options,
  failed: (name: string, error: unknown) => void,
): Promise<Figure[]> {
  const { quick } = options
  const figures: Figure[] = []
  const attempt = async (name: string, work: () => Promise<Figure[]>) => {
    try {
      figures.push(...(await work()))
    } catch (error) {
      failed(name, error)
    }
  }
  for (const one of PLANE) {
    if (!wanted(options, [one.name, ...one.reports])) continue
    for (const on of [1, 2] as const)
      await attempt(`${one.name} (cpus ${on})`, () => measure(one, on, quick ? 3 : 5, quick))
  }
  for (const one of [...COUNTS, ...AGENTS]) {
    if (wanted(options, [one.name, ...one.reports])) await attempt(one.name, () => measure(one, 2, 1, quick))
  }
  for (const one of FITS) {
    if (wanted(options, [one.name, 'fits']))
      await attempt(one.name, () => measure(one, 2, quick ? 3 : 5, quick))
  }
  const swap = PROGRAMS.some(program => wanted(options, [`program-vs-swap/${program.name}`]))
    ? swapHere()
    : undefined
  try {
    for (const program of PROGRAMS) {
      if (!wanted(options, namesOf(program))) continue
      await attempt(`program/${program.name}`, () =>
        measureProgram(program, swap, quick ? 1 : 3, quick, progress),
      )
    }
  } finally {
    swap?.remove()
  }
  return figures
}

function machine(): string {
  const model = cpus()[0]?.model ?? 'unknown processor'
  return `${cpus().length} × ${model}, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()} ${arch()}`
}

function printTable(figures: readonly Figure[]): void {
  const rows = figures.map(({ name, cpus, p50, p99, unit, reference, ratio }) => [
    name,
    String(cpus),
    String(p50),
    String(p99),
    unit,
    ratio === null ? '' : `${ratio} × ${reference}`,
  ])
  const header = ['figure', 'cpus', 'p50', 'p99', 'unit', 'ratio']
  const widths = header.map((title, i) => Math.max(title.length, ...rows.map(row => row[i]?.length ?? 0)))
  for (const row of [header, ...rows])
    process.stdout.write(
      `${row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd()}\n`,
    )
}

/** Throws an Error with one line. */
function readOptions(args: string[]): Options {
  const { values } = parseArgs({
    args,
    options: { json: { type: 'boolean' }, quick: { type: 'boolean' }, only: { type: 'string' } },
  })
  const options = { json: values.json ?? false, quick: values.quick ?? false, only: values.only }
  if (!isFigure(options)) throw new Error(`there is no figure ${options.only}`)
  return options
}

async function main(): Promise<void> {
  let options: Options
  try {
    options = readOptions(process.argv.slice(2))
  } catch (error) {
    console.error(`bench: ${error instanceof Error ? error.message : error}\n${USAGE}`)
    process.exitCode = 2
    return
  }
  progress('building the reference programs')
  buildAll()
  const figures = await measureAll(options, (name, error) => {
    progress(`${name} could not be measured: ${error instanceof Error ? error.message : error}`)
    process.exitCode = 1
  })
  const report = {
    machine: machine(),
    node: process.version,
    commit: firstLine('git', ['-C', ROOT, 'rev-parse', '--short', 'HEAD']),
    figures,
  }
  if (options.json) process.stdout.write(`${JSON.stringify(report, null, 2)}\n`)
  else printTable(figures)
}

await main()
