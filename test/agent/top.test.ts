/**
 * The live view: its picture at any size, and a terminal that is as it was after every end.
 */

import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import test from 'ava'
import fc from 'fast-check'
import { bar, pictureLines, screen } from '../../agent/cli/top/render.js'
import { ratesOf, type Snapshot } from '../../agent/cli/top/snapshot.js'
import type { ProcessInfo } from '../../agent/service.js'
import { FakeService, LEASE } from './fake-service.js'

const ID = '0123456789abcdef'

function snapshot(atMs: number, stats: Record<string, unknown>, program = 'sort'): Snapshot {
  const base = { id: ID, program, role: 'home' as const, home: 'n', pid: 1, residentPages: 256 }
  const processes: ProcessInfo[] = [{ ...base, participants: ['n', 'b'], stats }]
  return { atMs, nodes: new FakeService().nodes(), processes, lanes: new Map([[ID, [LEASE]]]) }
}

test('the picture', t => {
  const before = snapshot(1_000, { pulls: 10, pagesPulled: 100, pagesPushed: 50, jumps: 1, jumpsHome: 0 })
  const now = snapshot(3_000, {
    pulls: 15,
    pagesPulled: 300,
    pagesPushed: 90,
    jumps: 2,
    jumpsHome: 1,
    bytesSent: 4096,
  })
  t.deepEqual(pictureLines(now, before), [
    'elasticos n: 1 machines, 1 processes',
    '',
    'NODE          STATE   LENT                FREE  OF  CPUS  PROCESSES',
    'n (this one)  joined  [########........]    4K  8K     3          0',
    '',
    'ID                ROLE  HERE  PULLS/S  PAGES/S  JUMPS/S  BYTES/S  PROGRAM',
    '0123456789abcdef  home    1M      2.5      120      1.0       2K  sort',
    '  lane to b: up, 20K',
  ])
  t.regex(pictureLines(now, undefined)[6] ?? '', / {8}- {8}- {8}- {8}- {2}sort$/)
  const nothing = { atMs: 0, nodes: [], processes: [], lanes: new Map() }
  t.deepEqual(pictureLines(nothing, undefined), [
    'elasticos (no agent): 0 machines, 0 processes',
    '',
    'no elastic processes here',
  ])
})

test('rates of counters that fall, of no time, and of a process that is new', t => {
  const now = snapshot(2_000, { pulls: 5 })
  const [process] = now.processes
  if (process === undefined) return t.fail()
  t.is(ratesOf(process, now, snapshot(1_000, { pulls: 9 }))?.pulls, 0)
  t.is(ratesOf(process, now, now), undefined)
  t.is(ratesOf(process, now, { ...now, atMs: 0, processes: [] }), undefined)
})

test('it fits any terminal, whatever programs are called', t => {
  const size = fc.record({ columns: fc.integer({ min: 1, max: 200 }), rows: fc.integer({ min: 1, max: 50 }) })
  fc.assert(
    fc.property(size, fc.string({ unit: 'binary' }), ({ columns, rows }, program) => {
      const lines = screen(snapshot(1, {}, program), undefined, { columns, rows })
      t.true(lines.length <= rows)
      for (const line of lines) t.true(line.length <= columns && !/\p{Cc}/u.test(line))
    }),
  )
  t.is(
    screen(snapshot(1, {}), undefined, { columns: 99, rows: 3 }).at(-1),
    'and 6 more lines; a larger terminal shows them',
  )
  t.is(bar(3, 0), '[................]')
  t.is(bar(9, 3), '[################]')
})

const TERMINAL = new URL('../../agent/cli/top/terminal.js', import.meta.url).href
const HAS_SCRIPT = spawnSync('script', ['--version']).status === 0
const onTerminal = HAS_SCRIPT ? test : test.skip
if (!HAS_SCRIPT) console.log('skipped: no script(1) here to make a terminal')

/** Runs `ending` in a view on a terminal of its own, types `keys`; what the terminal got, and its settings after. */
async function viewed(ending: string, keys = ''): Promise<string> {
  const code = `
    const { LiveTerminal } = await import('${TERMINAL}')
    const terminal = new LiveTerminal()
    terminal.draw(['drawn'])
    ${ending}`
  const view = `'${process.execPath}' --input-type=module -e '${code.replaceAll("'", '"')}'`
  const child = spawn('script', ['-qec', `stty -g; ${view}; echo status $?; stty -g`, '/dev/null'])
  let text = ''
  let typed = false
  child.stdout.on('data', chunk => {
    text += chunk
    if (keys === '' || typed || !text.includes('drawn')) return
    typed = true
    child.stdin.write(keys)
  })
  await once(child, 'close')
  return text
}

for (const [what, ending, keys, status] of [
  ['q', 'process.exitCode = await terminal.ended; terminal.leave()', 'q', 0],
  ['Ctrl-C', 'process.exitCode = await terminal.ended; terminal.leave()', '\u0003', 0],
  [
    'SIGTERM',
    'setTimeout(() => process.kill(process.pid, "SIGTERM"), 50); process.exit(await terminal.ended)',
    '',
    143,
  ],
  ['an exception', 'throw new Error("bug")', '', 1],
] as const) {
  onTerminal(`the terminal is as it was after ${what}`, async t => {
    const text = await viewed(ending, keys)
    const lines = text.replaceAll('\r', '').split('\n')
    for (const part of [
      '\u001b[?1049h\u001b[?25l\u001b[?7l\u001b[Hdrawn',
      '\u001b[?7h\u001b[?25h\u001b[?1049l',
    ])
      t.true(text.includes(part))
    t.true(text.includes(`status ${status}\r`), lines.slice(-6).join('|').slice(-400))
    t.is(lines.at(-2), lines[0], 'settings')
  })
}
