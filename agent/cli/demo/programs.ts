/**
 * The programs of the demo: ordinary ones of the machine, and two small ones in C that are compiled on the spot.
 *
 * Sizes are chosen so that a quarter of each footprint is above the least `--memory` of 4M and the whole demo ends
 * within two minutes on two slow cores. Inputs are made by arithmetic, so every run sees the same.
 */

import { execFileSync } from 'node:child_process'
import { accessSync, closeSync, constants, existsSync, openSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { packageRoot } from '../../../kmod/pager-host.js'

export interface DemoProgram {
  readonly name: string
  /** Extra flags of `run`, so that jumps are seen too. */
  readonly runFlags: readonly string[]
  /** The command, with its inputs made in `directory`; or the line that installs what is missing. */
  prepare(directory: string): { readonly command: string[] } | { readonly missing: string }
}

export const DEMO_PROGRAMS: readonly DemoProgram[] = [
  { name: 'sort', runFlags: ['--jump-every', '100'], prepare: prepareSort },
  { name: 'python3', runFlags: ['--jump-every', '500'], prepare: preparePython },
  { name: 'sqlite3', runFlags: ['--jump-every', '500'], prepare: prepareSqlite },
  {
    name: 'counter',
    runFlags: ['--jump-every', '1'],
    prepare: directory => prepareC(directory, 'counter', COUNTER_ARGS),
  },
  {
    name: 'linear search',
    runFlags: ['--policy', 'multinode-adaptive-lru:window=10,threshold=0.2'],
    prepare: directory => prepareC(directory, 'linear_search', SEARCH_ARGS),
  },
]

const SORT_LINES = 70_000
/** Long lines: a page holds few of them, so a sort touches each page few times. */
const SORT_LINE_FILL = '.'.repeat(190)
const LINES_PER_WRITE = 10_000
const COUNTER_ARGS: readonly string[] = []
const SEARCH_ARGS: readonly string[] = []

/** Path of a program on PATH, or undefined. */
export function which(name: string): string | undefined {
  for (const directory of (process.env.PATH ?? '/usr/bin:/bin').split(':')) {
    const path = join(directory, name)
    try {
      accessSync(path, constants.X_OK)
      return path
    } catch {
      // Not in this directory.
    }
  }
  return undefined
}

function prepareSort(directory: string) {
  const sort = which('sort')
  if (sort === undefined) return { missing: 'apt-get install -y coreutils' }
  const input = join(directory, 'lines.txt')
  const file = openSync(input, 'w', 0o600)
  // Numerical Recipes' 32-bit linear congruential generator (a = 1664525, c = 1013904223).
  let state = 1
  for (let at = 0; at < SORT_LINES; at += LINES_PER_WRITE) {
    const lines: string[] = []
    for (let i = 0; i < LINES_PER_WRITE; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0
      lines.push(`${state.toString(36).padStart(7, '0')} line ${at + i} ${SORT_LINE_FILL}`)
    }
    writeSync(file, `${lines.join('\n')}\n`)
  }
  closeSync(file)
  return { command: [sort, '--parallel=1', '--buffer-size=32M', input] }
}

const PYTHON_PROGRAM = `
table = {}
for i in range(20000):
    table["key%d" % (i * 7919 % 20000)] = [i] + [i * i % 97] * 100
total = 0
for i in range(20000):
    total += sum(table["key%d" % i])
ordered = sorted(table.items(), key=lambda item: item[1][0] % 10007)
print(total, len(table), ordered[0], ordered[-1])
`

function preparePython(directory: string) {
  const found = which('python3')
  if (found === undefined) return { missing: 'apt-get install -y python3' }
  const script = join(directory, 'tables.py')
  writeFileSync(script, PYTHON_PROGRAM)
  return { command: [interpreter(found), script] }
}

/** What PATH finds may be a wrapper of a version manager: the interpreter itself. */
export function interpreter(python: string): string {
  const code = 'import sys; print(sys.executable)'
  return execFileSync(python, ['-c', code], { encoding: 'utf8' }).trim()
}

const SQL = `
CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, value INTEGER);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 340000)
INSERT INTO item SELECT i, 'item number ' || i, (i * 7919) % 340007 FROM n;
CREATE INDEX item_value ON item(value);
SELECT count(*), sum(value), min(name), max(name) FROM item;
SELECT name FROM item ORDER BY value DESC LIMIT 5;
SELECT sum(a.value) FROM item a JOIN item b ON b.value = a.id WHERE a.id % 10 = 0;
`

function prepareSqlite(directory: string) {
  const sqlite = which('sqlite3')
  if (sqlite === undefined) return { missing: 'apt-get install -y sqlite3' }
  const script = join(directory, 'items.sql')
  writeFileSync(script, SQL)
  return { command: [sqlite, '-batch', ':memory:', `.read ${script}`] }
}

function prepareC(directory: string, name: string, args: readonly string[]) {
  const compiler = which('cc') ?? which('gcc')
  if (compiler === undefined) return { missing: 'apt-get install -y gcc libc6-dev' }
  const source = join(packageRoot(), 'test', 'programs', `${name}.c`)
  if (!existsSync(source)) return { missing: `npm install elasticos (this copy lacks ${source})` }
  const program = join(directory, name)
  execFileSync(compiler, ['-O2', '-o', program, source, '-lpthread'], { stdio: ['ignore', 'ignore', 'pipe'] })
  return { command: [program, ...args] }
}
