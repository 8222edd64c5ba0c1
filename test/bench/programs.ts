/**
 * Whole programs against themselves run natively: three that fit in memory and measure what being stretched costs by
 * itself, and three ordinary ones with 25 and 50 % of their footprint at home and the rest on a peer.
 *
 * The footprint is `pagesTouched` of a run without a limit. Outputs must be the same as natively, or the figure is an
 * error and not a number.
 */

import { execFileSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Figure, Rounds, rounded } from './figure.js'
import type { Measure } from './measures.js'
import { programPath, runNatively } from './native.js'
import { runPair } from './pair.js'
import type { SwapSetup } from './swap.js'

const AMPLE_PAGES = 2 ** 18
/** The least --memory, 4M. */
const LIMIT_PAGES_MIN = 1024
const ENVIRONMENT = { PYTHONHASHSEED: '0', LC_ALL: 'C' }

const FITS_ROUNDS = { cpu: 30_000_000, malloc: 300_000, io: 40_000 } as const

/** `fits-cpu` and so on: a loop that times itself, so the start of the program is left out. */
export function fits(kind: keyof typeof FITS_ROUNDS): Measure {
  const name = `fits-${kind}`
  return {
    name,
    reports: [],
    async round(rounds, quick) {
      const amount = String(Math.round(FITS_ROUNDS[kind] / (quick ? 4 : 1)))
      const command = [programPath('fits'), kind, amount]
      const native = await runNatively(command)
      const { stdout } = await runPair({ cpus: rounds.cpus, memoryPages: AMPLE_PAGES, command })
      const seconds = (text: string) => ({ p50: Number(text) / 1e9, p99: Number(text) / 1e9, unit: 's' })
      rounds.add(`${name}/native`, seconds(native.stdout))
      rounds.add(name, seconds(stdout))
    },
    report: rounds => [
      rounds.reference(`${name}/native`, 'the same program by itself'),
      rounds.figure(
        name,
        name,
        `${name}/native`,
        'the work itself, without the start of program and pagers',
        p50Of => p50Of(`${name}/native`),
      ),
    ],
  }
}

export interface Program {
  readonly name: string
  /** Makes the input in `directory`; the command, or undefined where the program is not installed. */
  prepare(directory: string, quick: boolean): string[] | undefined
}

function which(name: string): string | undefined {
  try {
    return execFileSync('/bin/sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).trim()
  } catch {
    return undefined
  }
}

/** Thousands of lines of about 1 KB. */
const SORT_BLOCKS = { quick: 18, full: 54 } as const

function prepareSort(directory: string, quick: boolean): string[] | undefined {
  const sort = which('sort')
  if (sort === undefined) return undefined
  const input = join(directory, 'lines.txt')
  const file = openSync(input, 'w')
  // Numerical Recipes' 32-bit linear congruential generator (a = 1664525, c = 1013904223).
  let state = 1
  for (let block = 0; block < SORT_BLOCKS[quick ? 'quick' : 'full']; block++) {
    const lines = Array.from({ length: 1000 }, (_, i) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0
      return `${state.toString(36).padStart(7, '0')} line ${i} ${'.'.repeat(1000)}`
    })
    writeSync(file, `${lines.join('\n')}\n`)
  }
  closeSync(file)
  return [sort, '--parallel=1', '--buffer-size=96M', input]
}

/** Builds a dictionary and looks its entries up in the order of another key: scattered, but not uniformly random. */
const PYTHON = `
import sys
n = int(sys.argv[1])
table = {}
for i in range(n):
    table["key%d" % (i * 7919 % n)] = [i] + [i * i % 97] * 100
total = 0
for i in range(n):
    total += sum(table["key%d" % i])
ordered = sorted(table.items(), key=lambda item: item[1][0] % 10007)
print(total, len(table), ordered[0], ordered[-1])
`

function preparePython(directory: string, quick: boolean): string[] | undefined {
  const found = which('python3')
  if (found === undefined) return undefined
  const script = join(directory, 'dict.py')
  writeFileSync(script, PYTHON)
  // What PATH finds may be a wrapper of a version manager: ask for the interpreter itself.
  const real = execFileSync(found, ['-c', 'import sys; print(sys.executable)'], { encoding: 'utf8' }).trim()
  return [real, script, quick ? '20000' : '60000']
}

function prepareSqlite(directory: string, quick: boolean): string[] | undefined {
  const sqlite = which('sqlite3')
  if (sqlite === undefined) return undefined
  const script = join(directory, 'items.sql')
  const rows = quick ? 300_000 : 1_200_000
  writeFileSync(
    script,
    `CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, value INTEGER);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${rows})
INSERT INTO item SELECT i, 'item number ' || i, (i * 7919) % ${rows} FROM n;
CREATE INDEX item_value ON item(value);
SELECT count(*), sum(value), min(name), max(name) FROM item;
SELECT sum(a.value) FROM item a JOIN item b ON b.value = a.id WHERE a.id % 10 = 0;
`,
  )
  return [sqlite, '-batch', ':memory:', `.read ${script}`]
}

export const PROGRAMS: readonly Program[] = [
  { name: 'sort', prepare: prepareSort },
  { name: 'python', prepare: preparePython },
  { name: 'sqlite', prepare: prepareSqlite },
]

const SHARES = [25, 50] as const
type Share = (typeof SHARES)[number]
/** No further round of a program begins after this long: a busy machine must not make the benchmark endless. */
const PROGRAM_SECONDS_MAX = { quick: 10, full: 50 } as const

/** One program, ready to be run in each way. */
interface Subject {
  readonly name: string
  readonly command: readonly string[]
  readonly footprint: number
  readonly swap: SwapSetup | undefined
  readonly rounds: Rounds
  readonly stats: Map<Share, Readonly<Record<string, unknown>>>
  readonly progress: (text: string) => void
}

function pairOptions(command: readonly string[]) {
  return { cpus: 2, command, environment: ENVIRONMENT, secondsMax: 200 } as const
}

/** Natively, then stretched at each share, then, where there is swap, both in a memory cgroup. */
async function round(subject: Subject): Promise<void> {
  const { name, command, rounds, swap } = subject
  const native = await runNatively(command, ENVIRONMENT)
  const add = (what: string, { stdout, wallMs }: { stdout: string; wallMs: number }) => {
    if (stdout !== native.stdout) throw new Error(`program/${name}: the output differs`)
    rounds.add(what, { p50: wallMs / 1000, p99: wallMs / 1000, unit: 's' })
    subject.progress(`program/${name}: ${what} ${rounded(wallMs / native.wallMs)} × native`)
  }
  add('native', native)
  for (const share of SHARES) {
    const memoryPages = Math.max(LIMIT_PAGES_MIN, Math.round((subject.footprint * share) / 100))
    const stretched = await runPair({ ...pairOptions(command), memoryPages })
    add(`${share} %`, stretched)
    subject.stats.set(share, stretched.stats)
    if (swap === undefined || swap.memoryPages(memoryPages) < LIMIT_PAGES_MIN) continue
    const prefix = swap.prefix(memoryPages)
    add(`swap ${share} %`, await runNatively([...prefix, ...command], ENVIRONMENT))
    const within = { memoryPages: swap.memoryPages(memoryPages), homePrefix: prefix }
    add(`group ${share} %`, await runPair({ ...pairOptions(command), ...within }))
  }
}

function figuresOf({ name, rounds, stats, footprint, swap }: Subject): Figure[] {
  const native = rounded(rounds.reference('native', '').p50)
  const alone = SHARES.map(share => {
    const seen = stats.get(share)
    const note = `footprint ${footprint} pages, ${seen?.pulls} pulls, ${seen?.pagesPulled} pages pulled, ${seen?.pagesPushed} pushed; native ${native} s`
    return rounds.figure(`program/${name}/${share}`, `${share} %`, 'native', note, p50Of => p50Of('native'))
  })
  if (swap === undefined) return alone
  const note = 'both in a memory cgroup of the same size; below 1: faster than swap on a file of this disk'
  const swapped = SHARES.filter(share => rounds.has(`swap ${share} %`)).map(share =>
    rounds.figure(`program-vs-swap/${name}/${share}`, `group ${share} %`, 'swap', note, p50Of =>
      p50Of(`swap ${share} %`),
    ),
  )
  return [...alone, ...swapped]
}

/**
 * Figures `program/NAME/25` and `/50`, and `program-vs-swap/NAME/25` and `/50` with `swap`; none, with a line on
 * standard error, where the program is missing.
 */
export async function measureProgram(
  program: Program,
  swap: SwapSetup | undefined,
  count: number,
  quick: boolean,
  progress: (text: string) => void,
): Promise<Figure[]> {
  const directory = mkdtempSync(join(tmpdir(), 'elasticos-bench-'))
  try {
    const { name } = program
    const command = program.prepare(directory, quick)
    if (command === undefined) {
      progress(`program/${name}: not installed, left out`)
      return []
    }
    const whole = await runPair({ ...pairOptions(command), memoryPages: AMPLE_PAGES })
    const footprint = whole.stats.pagesTouched ?? 0
    if (footprint * SHARES[0] < LIMIT_PAGES_MIN * 100)
      progress(`program/${name}: ${footprint} pages, so the least limit is more than ${SHARES[0]} %`)
    const rounds = new Rounds(2)
    const subject: Subject = { name, command, footprint, swap, rounds, stats: new Map(), progress }
    const untilMs = performance.now() + 1000 * PROGRAM_SECONDS_MAX[quick ? 'quick' : 'full']
    for (let i = 0; i < count && (i === 0 || performance.now() < untilMs); i++) await round(subject)
    return figuresOf(subject)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}
