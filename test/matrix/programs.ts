/**
 * The programs of the matrix: ordinary ones of the machine and those of test/programs.
 *
 * A footprint must be several times the least `--memory` of 4M, or a quarter of it could not be asked for. Where a
 * program looks things up at random the items are large: what it costs to stretch it goes with the number of look-ups
 * that find their page elsewhere, and `--jump-every 7` makes each of them dear.
 */

import { execFileSync } from 'node:child_process'
import { accessSync, constants, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { buildProgram } from '../helpers/programs.js'
import { writeLines } from './inputs.js'

export type Scale = 'small' | 'full'

/** What to run, in this order, each command stretched; `files` are compared afterwards and removed before. */
export interface Prepared {
  readonly commands: readonly (readonly string[])[]
  readonly files: readonly string[]
}

export interface MatrixProgram {
  readonly name: string
  /** Its threads must have run on two nodes at once. */
  readonly threads?: boolean
  /** Throws an Error whose message says what is missing. */
  prepare(directory: string, scale: Scale): Prepared
}

/** Full path of a program on PATH. Throws with what to install. */
function which(name: string): string {
  for (const directory of (process.env.PATH ?? '/usr/bin:/bin').split(':')) {
    const path = join(directory, name)
    try {
      accessSync(path, constants.X_OK)
      return path
    } catch {
      // Not in this directory.
    }
  }
  throw new Error(`${name} is not installed: apt-get install -y ${name}`)
}

/** The interpreter itself: what PATH finds may be a shell script of a version manager. */
function python(): string {
  const code = 'import sys; print(sys.executable)'
  return execFileSync(which('python3'), ['-c', code], { encoding: 'utf8' }).trim()
}

function script(directory: string, name: string, text: string): string {
  const path = join(directory, name)
  writeFileSync(path, text, { mode: 0o755 })
  return path
}

function only(...command: string[]): Prepared {
  return { commands: [command], files: [] }
}

function lines(directory: string, scale: Scale): string {
  const path = join(directory, `lines-${scale}.txt`)
  const bytes = 3000 // a page holds few lines, so sorting touches each page few times
  writeLines(path, scale === 'full' ? 8000 : 4000, bytes)
  return path
}

const PYTHON_DICT = `
import random, sys
count = int(sys.argv[1])
random.seed(7)
table = {}
for i in range(count):
    key = "key%d" % (i * 7919 % count)
    table[key] = (key * 350)[:3000] + str(i)
keys = sorted(table)
random.shuffle(keys)
total = 0
for key in keys[: count // 4]:
    total += len(table.pop(key))
for i in range(count // 8):
    table["new%d" % i] = "n" * 2500 + str(i * i)
last = 0
for key, value in table.items():
    last = (last * 31 + ord(value[len(value) // 2]) + len(value)) % 1000000007
print(len(table), total, last, min(table), max(table))
`

const PYTHON_LIST = `
import sys
count = int(sys.argv[1])
rows = [[(i * 7919 + j * 104729) % 100003 for j in range(200)] for i in range(count)]
rows.sort(key=lambda row: row[17])
columns = [sum(row[j] for row in rows) for j in range(0, 200, 40)]
for row in rows[:: 3]:
    row.reverse()
flat = [row[i % 200] for i, row in enumerate(rows)]
del rows[:: 2]
rows += [[i] * 100 for i in range(count // 4)]
print(columns, sum(flat), len(rows), sum(len(row) for row in rows), rows[5][:3])
`

const PERL = `
use strict; use warnings;
my $count = $ARGV[0]; my %text; my @order;
for my $i (0 .. $count - 1) {
  my $key = "k" . ($i * 7919 % $count);
  $text{$key} = ("$key-" x 420) . $i;
  push @order, $key;
}
my $total = 0;
for my $key (sort { substr($a, 1) % 1009 <=> substr($b, 1) % 1009 || $a cmp $b } @order) {
  $total = ($total * 31 + length($text{$key}) + ord(substr($text{$key}, 3, 1))) % 1000000007;
}
my $joined = join(",", map { substr($text{$_}, -6) } @order);
my $matches = () = $joined =~ /7,/g;
print scalar(keys %text), " $total $matches ", length($joined), "\\n";
`

const AWK = `
BEGIN {
  for (i = 0; i < count; i++) {
    text = "item " i " "
    while (length(text) < 2800) text = text text
    item[i * 7919 % count] = text
  }
  for (i = 0; i < count; i++) total = (total * 31 + length(item[i]) + substr(item[i], 6, 5)) % 1000000007
  for (i = 0; i < count; i += 2) delete item[i]
  for (i in item) left++
  print total, left, length(item[1]), substr(item[count - 1], 1, 12)
}
`

function sqlStatements(rows: number): string {
  return `
PRAGMA cache_size = -200000;
CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, value INTEGER, body TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${rows})
INSERT INTO item SELECT i, 'item ' || i, (i * 7919) % 340007, hex(zeroblob(600)) || i FROM n;
CREATE INDEX item_value ON item(value);
UPDATE item SET body = 'short ' || id WHERE id % 5 = 0;
SELECT count(*), sum(value), min(name), max(name), sum(length(body)) FROM item;
SELECT name FROM item ORDER BY value DESC LIMIT 5;
DELETE FROM item WHERE id % 7 = 3;
SELECT count(*), sum(value) FROM item WHERE value BETWEEN 1000 AND 200000;
`
}

function sqlite(directory: string, rows: number, database: string): string[] {
  // Named after its size: the rows of two programs share the directory.
  const statements = script(directory, `items-${rows}.sql`, sqlStatements(rows))
  return [which('sqlite3'), '-batch', database, `.read ${statements}`]
}

function compiled(directory: string, name: string, ...args: number[]): Prepared {
  return only(buildProgram(name, directory), ...args.map(String))
}

export const PROGRAMS: readonly MatrixProgram[] = [
  {
    name: 'sort-one-thread',
    prepare: (directory, scale) =>
      only(which('sort'), '--parallel=1', '--buffer-size=64M', lines(directory, scale)),
  },
  {
    name: 'sort',
    prepare: (directory, scale) => only(which('sort'), '--buffer-size=64M', lines(directory, scale)),
  },
  {
    name: 'zstd',
    prepare: (directory, scale) => {
      const zstd = which('zstd')
      const input = lines(directory, scale)
      const packed = join(directory, 'packed.zst')
      const back = join(directory, 'back.txt')
      // Unpacking needs memory for the window.
      const window = `--zstd=wlog=${scale === 'full' ? 24 : 23},hlog=20,clog=20`
      return {
        commands: [
          [zstd, '-q', '-f', '-5', '--single-thread', window, input, '-o', packed],
          [zstd, '-q', '-f', '-d', packed, '-o', back],
        ],
        files: [packed, back],
      }
    },
  },
  {
    name: 'python-dict',
    prepare: (directory, scale) =>
      only(python(), script(directory, 'dict.py', PYTHON_DICT), scale === 'full' ? '6000' : '3000'),
  },
  {
    name: 'python-list',
    prepare: (directory, scale) =>
      only(python(), script(directory, 'list.py', PYTHON_LIST), scale === 'full' ? '3000' : '1300'),
  },
  {
    name: 'perl',
    prepare: (directory, scale) =>
      only(which('perl'), script(directory, 'hash.pl', PERL), scale === 'full' ? '8000' : '4500'),
  },
  {
    name: 'sqlite-memory',
    prepare: (directory, scale) => only(...sqlite(directory, scale === 'full' ? 9000 : 4200, ':memory:')),
  },
  {
    name: 'sqlite-file',
    prepare: (directory, scale) => {
      const database = join(directory, 'items.db')
      return { commands: [sqlite(directory, scale === 'full' ? 18_000 : 9000, database)], files: [database] }
    },
  },
  {
    name: 'awk',
    prepare: (directory, scale) =>
      only(
        which('awk'),
        '-v',
        `count=${scale === 'full' ? 6000 : 3500}`,
        '-f',
        script(directory, 'items.awk', AWK),
      ),
  },
  {
    name: 'shell-exec',
    prepare: (directory, scale) => {
      const sort = `exec ${which('sort')} --parallel=1 --buffer-size=64M -r ${lines(directory, scale)}`
      return only(script(directory, 'wrapper.sh', `#!/bin/sh\nset -e\nLANG=C\nexport LANG\n${sort}\n`))
    },
  },
  {
    name: 'threads',
    threads: true,
    prepare: (directory, scale) =>
      scale === 'full' ? compiled(directory, 'threads', 6000, 32) : compiled(directory, 'threads', 3200, 32),
  },
  {
    name: 'counter',
    prepare: (directory, scale) =>
      scale === 'full'
        ? compiled(directory, 'counter', 150_000, 6000)
        : compiled(directory, 'counter', 90_000, 3000),
  },
  {
    name: 'linear-search',
    prepare: (directory, scale) =>
      scale === 'full'
        ? compiled(directory, 'linear_search', 6000, 12)
        : compiled(directory, 'linear_search', 3200, 24),
  },
]
