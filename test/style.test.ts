/**
 * The house's style as a test: imports point one way, files and functions stay readable, pure code stays pure, and
 * nothing is left half done. What a formatter or linter can say is left to it (`npm run lint`).
 */

import test from 'ava'

import { codeOf, functionsOf, importsOf, type Source, sources } from './style/source.js'

const FILE_LINES_MAX = 400
const FUNCTION_LINES_MAX = 70
const NATIVE_COLUMNS_MAX = 110

/** A folder may import itself and folders of a lower rank. */
const RANK: Readonly<Record<string, number>> = {
  placement: 0,
  kmod: 1,
  checkpoint: 1,
  agent: 2,
  'sim-net': 3,
  test: 4,
}

/** No clock, no randomness, no I/O, nothing that happens later. */
const IMPURE: readonly RegExp[] = [
  /\bDate\b/,
  /\bMath\.random\b/,
  /\bperformance\b/,
  /\bset(Timeout|Interval|Immediate)\b/,
  /\bqueueMicrotask\b/,
  /\bprocess\.(argv|cwd|env|exit|hrtime|memoryUsage|nextTick|on|stderr|stdin|stdout|uptime)\b/,
  /\bconsole\b/,
  /\b(async|await|Promise)\b/,
  /\bfetch\(/,
  /\bcrypto\b/,
]

/** What a simulation may not have: any time or chance but its own. It may say that something is asynchronous. */
const UNREPEATABLE = IMPURE.filter(pattern => !/async|console/.test(pattern.source))
const OF_THE_MACHINE = /^node:(crypto|timers|perf_hooks|os|net|fs)/

const TYPESCRIPT = sources('.ts', '.js')
const NATIVE = sources('.c', '.h', '.cpp', '.hpp')

function folderOf(path: string): string {
  return path.split('/')[0] ?? ''
}

function isPure({ path }: Source): boolean {
  return /^(placement|checkpoint\/planners|agent\/machines|kmod\/ownership)\//.test(path)
}

test('there is something to look at', t => {
  t.true(TYPESCRIPT.length > 20 && NATIVE.length > 20)
})

test('imports point one way', t => {
  const offences: string[] = []
  for (const source of TYPESCRIPT) {
    const own = folderOf(source.path)
    for (const name of importsOf(source)) {
      const other = folderOf(name)
      const ok = !(other in RANK) || other === own || (RANK[other] ?? 0) < (RANK[own] ?? 0)
      if (!ok) offences.push(`${source.path} imports ${name}`)
    }
  }
  t.deepEqual(offences, [])
})

test('pure code imports pure code only', t => {
  const pure = TYPESCRIPT.filter(isPure)
  t.true(pure.length > 5)
  const offences: string[] = []
  for (const source of pure) {
    for (const name of importsOf(source)) {
      if (!isPure({ ...source, path: name })) offences.push(`${source.path} imports ${name}`)
    }
  }
  t.deepEqual(offences, [])
})

test('pure code calls nothing that is not', t => {
  const offences: string[] = []
  for (const source of TYPESCRIPT.filter(isPure)) {
    const code = codeOf(source)
    for (const pattern of IMPURE) if (pattern.test(code)) offences.push(`${source.path} has ${pattern}`)
  }
  t.deepEqual(offences, [])
})

test('the simulation has no time and no chance but its own', t => {
  const offences: string[] = []
  for (const source of TYPESCRIPT.filter(({ path }) => folderOf(path) === 'sim-net')) {
    const code = codeOf(source)
    for (const pattern of [...UNREPEATABLE, /\bsystem(Clock|Rng|Secrets)\b/, /\bSYSTEM\b/])
      if (pattern.test(code)) offences.push(`${source.path} has ${pattern}`)
    for (const name of importsOf(source))
      if (OF_THE_MACHINE.test(name)) offences.push(`${source.path} imports ${name}`)
  }
  t.deepEqual(offences, [])
})

test(`files have at most ${FILE_LINES_MAX} lines`, t => {
  const sizes = [...TYPESCRIPT, ...NATIVE].map(({ path, lines }) => ({ path, lines: lines.length - 1 }))
  t.deepEqual(
    sizes.filter(({ lines }) => lines > FILE_LINES_MAX),
    [],
  )
})

test(`functions have at most ${FUNCTION_LINES_MAX} lines`, t => {
  let found = 0
  const offences: string[] = []
  for (const source of [...TYPESCRIPT, ...NATIVE]) {
    for (const { line, lines } of functionsOf(source)) {
      found++
      if (lines > FUNCTION_LINES_MAX) offences.push(`${source.path}:${line} has ${lines} lines`)
    }
  }
  t.deepEqual(offences, [])
  t.true(found > 300, `the search sees only ${found} functions`)
})

test(`native code has at most ${NATIVE_COLUMNS_MAX} columns`, t => {
  const offences: string[] = []
  for (const { path, lines } of NATIVE) {
    for (const [i, line] of lines.entries()) {
      if ([...line].length > NATIVE_COLUMNS_MAX) offences.push(`${path}:${i + 1}`)
    }
  }
  t.deepEqual(offences, [])
})

test('each file says first what it is', t => {
  const own = [...TYPESCRIPT, ...NATIVE].filter(({ path }) => !/(^|\/)test\//.test(path))
  const silent = own.filter(({ text }) => !/^(\/\*|\/\/)/.test(text.replace(/^#!.*\n/, '')))
  t.deepEqual(
    silent.map(({ path }) => path),
    [],
  )
})

test('nothing is left half done', t => {
  // Put together here so that this file is no hit.
  const marks = new RegExp(
    `\\b(${['TO', 'FIX', 'XX', 'HA'].map((a, i) => a + ['DO', 'ME', 'X', 'CK'][i]).join('|')})\\b`,
  )
  const offences = [...TYPESCRIPT, ...NATIVE].filter(({ text }) => marks.test(text))
  t.deepEqual(
    offences.map(({ path }) => path),
    [],
  )
})

test('the search sees what it must', t => {
  const body = Array.from({ length: 80 }, (_, i) => `  call(${i})`).join('\n')
  const long = (head: string, path: string): Source => {
    const text = `${head}\n${body}\n}\n`
    return { path, text, lines: text.split('\n') }
  }
  const heads: [string, string][] = [
    ['export async function run(): Promise<void> {', 'a.ts'],
    ['function run(\n  a: string,\n): void {', 'a.ts'],
    ["test('x', async t => {", 'a.ts'],
    ['void Memory::place(uint64_t page,\n                   int count) const {', 'a.cpp'],
    ['static int run() {', 'a.cpp'],
    ['A::A(int a,\n     int b)\n    : a_(a),\n      b_(b) {', 'a.cpp'],
  ]
  for (const [head, path] of heads) {
    const spans = functionsOf(long(head, path))
    t.true(
      spans.some(span => span.lines > FUNCTION_LINES_MAX),
      head,
    )
  }
  t.deepEqual(functionsOf(long('if (a) {', 'a.ts')), [])
  const pureCode = codeOf(long("// Date.now()\nconst a = 'await' /* Promise */", 'a.ts'))
  for (const pattern of IMPURE) t.notRegex(pureCode, pattern)
})
