/**
 * Programs of the matrix that are utilities and interpreters of the machine.
 *
 * Where a program looks things up at random the items are large: what it costs to stretch it goes with the number of
 * look-ups that find their page elsewhere, and `--jump-every 7` makes each of them dear.
 */

import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { lines, type MatrixProgram, only, python, script, which } from './program.js'

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

/** A C program of so many functions, no two of them alike. */
function cSource(directory: string, functions: number): string {
  const path = join(directory, `functions-${functions}.c`)
  const texts = Array.from({ length: functions }, (_, i) => {
    const call = i === 0 ? 'x' : `f${(i * 7919) % i}(x + ${i})`
    return `struct s${i} { int a[${(i % 7) + 1}]; double d; struct s${i} *next; };
static unsigned table${i}[] = { ${Array.from({ length: 24 }, (_, k) => (i * 31 + k * 17) % 1009).join(', ')} };
unsigned f${i}(unsigned x) {
  struct s${i} s = {{ x }, x * ${i}.5, 0};
  for (unsigned k = 0; k < ${(i % 13) + 3}; k++) {
    if ((x ^ k) % ${(i % 5) + 2} == 0) s.a[k % ${(i % 7) + 1}] += table${i}[(x + k) % 24];
    else switch (x % 4) { case 0: x = x * 3 + k; break; case 1: x >>= 1; break; default: s.d += k; }
  }
  return ${call} + s.a[0] + (unsigned)s.d;
}`
  })
  writeFileSync(path, texts.join('\n'))
  return path
}

export const UTILITIES: readonly MatrixProgram[] = [
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
    name: 'xz',
    prepare: (directory, scale) => {
      const xz = which('xz', 'xz-utils')
      const input = lines(directory, scale)
      // Unpacking needs memory for the dictionary.
      const filter = '--lzma2=preset=0,dict=16MiB'
      return {
        commands: [
          [xz, '--keep', '--force', '--threads=1', filter, input],
          [xz, '--decompress', '--stdout', `${input}.xz`],
        ],
        files: [`${input}.xz`],
      }
    },
  },
  {
    name: 'cc1',
    prepare: (directory, scale) => {
      const name = ['-print-prog-name=cc1']
      const cc1 = execFileSync(which('gcc', 'g++'), name, { encoding: 'utf8' }).trim()
      const source = cSource(directory, scale === 'full' ? 140 : 70)
      const target = join(directory, 'functions.s')
      return { commands: [[cc1, '-quiet', '-O1', '-o', target, source]], files: [target] }
    },
  },
]
