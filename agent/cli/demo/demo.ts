/**
 * `elasticos demo`: each program natively, then unlimited under elasticos (its footprint), then at a quarter of that
 * over three agents; outputs and exit statuses are compared.
 */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type PagerStats, parsePagerStats } from '../../../kmod/pager-stats.js'
import { bytes, formatSize, PAGE_BYTES } from '../../../placement/units.js'
import { CliFailure, EXIT_FAILURE, failureLine, reportFailure } from '../failure.js'
import { coloured, notice, print, tableLines } from '../output.js'
import { MEMORY_BYTES_MIN } from '../values.js'
import { type ChildOutcome, elasticosCommand, runChild } from './child.js'
import { Cluster } from './cluster.js'
import { LiveLine } from './live-line.js'
import { DEMO_PROGRAMS, type DemoProgram } from './programs.js'

const SHARE = 0.25
const PROGRAM_TIMEOUT_MS = 60_000
const NODES_MIN = 2
const SIGINT_STATUS = 130
const ENVIRONMENT = { LC_ALL: 'C', PYTHONHASHSEED: '0', PYTHONDONTWRITEBYTECODE: '1' }

/** A line of the closing table. Sizes in bytes. */
interface Row {
  readonly program: string
  readonly shown: boolean
  readonly note: string
  readonly footprintBytes: number
  readonly limitBytes: number
  readonly pulls: number
  readonly pushes: number
  readonly jumps: number
  readonly nativeSeconds: number
  readonly stretchedSeconds: number
  readonly nodesWithPages: number
  readonly identical: boolean
}

/** Exit status: 0 only if every program was shown, stretched over two nodes or more, and identical. */
export async function runDemo(json: boolean, only: readonly string[], verbose: boolean): Promise<number> {
  const programs = chosen(only)
  const abort = new AbortController()
  const stop = () => abort.abort(new CliFailure('interrupted', SIGINT_STATUS))
  process.on('SIGINT', stop)
  process.on('SIGTERM', stop)
  process.on('SIGHUP', stop)
  const startedAtMs = performance.now()
  const cluster = Cluster.make()
  const rows: Row[] = []
  try {
    if (!json) notice('starting three agents on this machine')
    await cluster.start(abort.signal)
    for (const program of programs) {
      rows.push(await show(program, cluster, abort.signal, verbose))
      abort.signal.throwIfAborted()
    }
  } finally {
    await cluster.stop()
    for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.removeListener(name, stop)
  }
  const good = rows.every(row => row.shown && row.identical && row.nodesWithPages >= NODES_MIN)
  const seconds = (performance.now() - startedAtMs) / 1000
  if (json) print(JSON.stringify({ ok: good, seconds, programs: rows }, null, 2))
  else printTable(rows, good, seconds)
  return good ? 0 : EXIT_FAILURE
}

function chosen(only: readonly string[]): readonly DemoProgram[] {
  const names = DEMO_PROGRAMS.map(program => program.name)
  for (const name of only) {
    if (!names.includes(name)) throw new CliFailure(`--only ${name}: there are ${names.join(', ')}`)
  }
  return only.length === 0 ? DEMO_PROGRAMS : DEMO_PROGRAMS.filter(program => only.includes(program.name))
}

function unshown(program: DemoProgram, note: string): Row {
  const numbers = { footprintBytes: 0, limitBytes: 0, pulls: 0, pushes: 0, jumps: 0, nodesWithPages: 0 }
  return {
    program: program.name,
    shown: false,
    note,
    ...numbers,
    nativeSeconds: 0,
    stretchedSeconds: 0,
    identical: false,
  }
}

async function show(
  program: DemoProgram,
  cluster: Cluster,
  signal: AbortSignal,
  verbose: boolean,
): Promise<Row> {
  const live = new LiveLine(program.name, cluster.runtimeDir)
  try {
    const prepared = program.prepare(cluster.directory)
    if ('missing' in prepared) return unshown(program, `not installed: ${prepared.missing}`)
    return await compare(program, prepared.command, cluster, signal)
  } catch (error) {
    if (signal.aborted) throw error
    if (verbose) reportFailure(error, true)
    return unshown(program, failureLine(error))
  } finally {
    live.stop()
  }
}

async function compare(
  program: DemoProgram,
  command: readonly string[],
  cluster: Cluster,
  signal: AbortSignal,
): Promise<Row> {
  const env = { ...process.env, ...ENVIRONMENT }
  const options = { signal, env, cwd: cluster.directory, timeoutMs: PROGRAM_TIMEOUT_MS }
  const statsPath = join(cluster.directory, 'stats.json')
  const run = (...flags: string[]) => [
    ...elasticosCommand('run', '--control', cluster.control, '--stats', statsPath, ...flags, '--'),
    ...command,
  ]
  const native = await runChild(command, options)
  const unlimited = await runChild(run('--participants', '1'), options)
  const footprintBytes = (readStats(statsPath, unlimited).pagesTouched ?? 0) * PAGE_BYTES
  const limitBytes = Math.max(
    MEMORY_BYTES_MIN,
    Math.floor((footprintBytes * SHARE) / PAGE_BYTES) * PAGE_BYTES,
  )
  const flags = [
    '--memory',
    String(limitBytes),
    '--participants-min',
    '3',
    '--wait',
    '10s',
    ...program.runFlags,
  ]
  const stretched = await runChild(run(...flags), options)
  const stats = readStats(statsPath, stretched)
  const isStretched = stats.mode === 'stretched'
  const outputs = [unlimited, stretched].every(
    run => run.digest === native.digest && run.status === native.status,
  )
  return {
    program: program.name,
    shown: isStretched,
    note: outputs && isStretched ? '' : (stretched.stderr.split('\n').at(-1) ?? ''),
    footprintBytes,
    limitBytes,
    pulls: stats.pulls ?? 0,
    pushes: stats.pushes ?? 0,
    jumps: stats.jumps ?? 0,
    nativeSeconds: native.seconds,
    stretchedSeconds: stretched.seconds,
    nodesWithPages: (stats.participants ?? []).filter(participant => participant.peakPages > 0).length,
    identical: outputs,
  }
}

function readStats(path: string, outcome: ChildOutcome): PagerStats {
  const why = outcome.stderr.split('\n').at(-1) ?? ''
  let stats: PagerStats | string
  try {
    stats = parsePagerStats(readFileSync(path, 'utf8'))
  } catch {
    throw new CliFailure(why === '' ? 'the run left no statistics' : why)
  }
  if (typeof stats === 'string') throw new CliFailure(`statistics: ${stats}`)
  return stats
}

function printTable(rows: readonly Row[], good: boolean, seconds: number): void {
  const size = (value: number) => (value === 0 ? '-' : formatSize(bytes(value)))
  const lines = tableLines<Row>(
    [
      { title: 'PROGRAM', cell: row => row.program },
      { title: 'FOOTPRINT', cell: row => size(row.footprintBytes), right: true },
      { title: 'LIMIT', cell: row => size(row.limitBytes), right: true },
      { title: 'PULLS', cell: row => String(row.pulls), right: true },
      { title: 'PUSHES', cell: row => String(row.pushes), right: true },
      { title: 'JUMPS', cell: row => String(row.jumps), right: true },
      { title: 'NODES', cell: row => String(row.nodesWithPages), right: true },
      { title: 'NATIVE', cell: row => `${row.nativeSeconds.toFixed(2)} s`, right: true },
      { title: 'STRETCHED', cell: row => `${row.stretchedSeconds.toFixed(2)} s`, right: true },
      { title: 'IDENTICAL', cell: row => (row.identical ? 'yes' : 'no') },
      { title: '', cell: row => row.note },
    ],
    rows,
  )
  for (const [index, line] of lines.entries()) print(index === 0 ? coloured('bold', line) : line)
  const verdict = good
    ? coloured(
        'green',
        `every output is identical, every program was stretched (${seconds.toFixed(0)} s in all)`,
      )
    : coloured('red', 'not everything could be shown; `elasticos doctor` says what this machine lacks')
  print(verdict)
}
