/**
 * One row: its commands one after another under `elasticos run`, compared with what they did alone, and everything
 * that must hold meanwhile and afterwards.
 */

import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync, rmSync } from 'node:fs'
import { type Outcome, outcomeOf, type RunOutcome, type TestCluster } from '../helpers/cluster.js'
import { type Before, leftovers, snapshot } from '../helpers/leftovers.js'
import { census, type ProcessSeen } from '../helpers/processes.js'
import type { Prepared } from './program.js'
import { type Residency, ResidencySampler } from './residency.js'
import { missing, type Row } from './rows.js'

const PAGE_BYTES = 4096
/** The least `--memory` of the command line. */
export const LIMIT_PAGES_MIN = 1024
const OVER_LIMIT_BYTES_MAX = 1 << 20
const CACHED_BYTES_MAX = 1 << 20
const CENSUS_MS = 200
const POLL_MS = 5
const UNLIMITED = '8G'

/** What a program does alone: the standard every row is held to. */
export interface Reference {
  readonly status: number
  /** Of standard output of each command, then of each file. */
  readonly digests: readonly string[]
  readonly seconds: number
}

export interface RowResult {
  readonly row: Row
  readonly footprintPages: number
  readonly limitPages: number
  readonly problems: readonly string[]
  readonly seconds: number
  readonly nativeSeconds: number
  readonly stats: readonly RunOutcome['stats'][]
  readonly residency: readonly Residency[]
}

const digest = (data: Buffer) => createHash('sha256').update(data).digest('hex')

/** Of what runs without elasticos. */
const surroundings = (cwd: string) => ({ cwd, env: { PATH: process.env.PATH, HOME: cwd, LC_ALL: 'C' } })

/** The client of the command, once that has been started. */
function startClient(prepared: Prepared, cwd: string, timeoutMs: number): Promise<Outcome> | undefined {
  const [program, ...args] = prepared.client ?? []
  if (program === undefined) return undefined
  return outcomeOf(
    spawn(program, args, { ...surroundings(cwd), stdio: ['ignore', 'pipe', 'pipe'] }),
    timeoutMs,
  )
}

function clientProblems(client: Outcome | undefined): string[] {
  if (client === undefined || client.status === 0) return []
  return [`the client ends with ${client.status ?? client.signal}: ${client.stderr.trim().slice(-300)}`]
}

function removeFiles(prepared: Prepared): void {
  for (const file of prepared.files) rmSync(file, { force: true })
}

function digestsOf(prepared: Prepared, outputs: readonly Outcome[]): string[] {
  return [
    ...outputs.map(end => digest(end.stdout)),
    ...prepared.files.map(file => {
      try {
        return digest(readFileSync(file))
      } catch {
        return 'not there'
      }
    }),
  ]
}

/** Runs the program without elasticos. Throws when it fails by itself. */
export async function runAlone(prepared: Prepared, cwd: string, timeoutMs: number): Promise<Reference> {
  removeFiles(prepared)
  const start = performance.now()
  const ends: Outcome[] = []
  for (const [program = '', ...args] of prepared.commands) {
    const child = spawn(program, args, { ...surroundings(cwd), stdio: ['ignore', 'pipe', 'pipe'] })
    const [end, client] = await Promise.all([
      outcomeOf(child, timeoutMs),
      startClient(prepared, cwd, timeoutMs),
    ])
    const problem = clientProblems(client)[0]
    if (end.status !== 0 || problem !== undefined)
      throw new Error(`${program} alone ends with ${end.status ?? end.signal}: ${end.stderr}${problem ?? ''}`)
    ends.push(end, ...(client === undefined ? [] : [client]))
  }
  const seconds = (performance.now() - start) / 1000
  return { status: 0, digests: digestsOf(prepared, ends), seconds }
}

/** Pages touched by each command in a run without limit. */
export async function footprints(
  cluster: TestCluster,
  prepared: Prepared,
  timeoutMs: number,
): Promise<number[]> {
  removeFiles(prepared)
  const pages: number[] = []
  for (const command of prepared.commands) {
    const running = cluster.run('a', ['--memory', UNLIMITED, '--participants', '1'], command, { timeoutMs })
    const [end] = await Promise.all([running.outcome, startClient(prepared, cluster.directory, timeoutMs)])
    const touched = end.stats?.pagesTouched
    if (end.status !== 0 || touched === undefined)
      throw new Error(
        `${command[0]} without limit ends with ${end.status ?? end.signal}: ${end.stderr.trim()}`,
      )
    pages.push(touched)
  }
  return pages
}

/** The flags of a row's run with a memory of `limitPages`. */
export function runFlags(row: Row, limitPages: number): string[] {
  const flags = ['--memory', `${limitPages * 4}K`, ...row.mode.flags, '--participants', String(row.nodes)]
  return row.nodes === 1 ? flags : [...flags, '--participants-min', String(row.nodes), '--wait', '15s']
}

interface Watched {
  readonly end: RunOutcome
  readonly residency: Residency | undefined
  readonly during: readonly ProcessSeen[]
}

async function runWatched(
  cluster: TestCluster,
  flags: readonly string[],
  command: readonly string[],
  footprintPages: number,
  options: { timeoutMs: number; prefix?: readonly string[] },
): Promise<Watched> {
  const running = cluster.run('a', flags, command, options)
  let ended = false
  const outcome = running.outcome.finally(() => {
    ended = true
  })
  let sampler: ResidencySampler | undefined
  let during: ProcessSeen[] = []
  const seen = new Map<number, ProcessSeen>()
  let nextCensusMs = 0
  while (!ended) {
    const home = sampler === undefined ? cluster.pagers().find(pager => pager.role === 'home') : undefined
    if (home !== undefined) sampler = new ResidencySampler(home.pid, footprintPages)
    if (sampler !== undefined && performance.now() >= nextCensusMs) {
      for (const each of census(cluster.directory)) seen.set(each.pid, each)
      nextCensusMs = performance.now() + CENSUS_MS
    }
    const pause = new Promise(resolve => setTimeout(resolve, sampler === undefined ? POLL_MS : CENSUS_MS))
    await Promise.race([outcome, pause])
  }
  during = [...seen.values()]
  return { end: await outcome, residency: sampler?.stop(), during }
}

function residencyProblems(residency: Residency | undefined, limitPages: number): string[] {
  if (residency === undefined || residency.samples === 0) return ['its memory was never looked at']
  const problems: string[] = []
  const over = residency.bytesMax - limitPages * PAGE_BYTES
  if (over > OVER_LIMIT_BYTES_MAX)
    problems.push(`${over >> 10} KiB above the limit (${residency.bufferBytes >> 10} KiB of them in buffers)`)
  if (residency.cachedBytesMax > CACHED_BYTES_MAX)
    problems.push(`${residency.cachedBytesMax >> 10} KiB of spilled pages in the page cache`)
  return problems
}

export interface Subject {
  readonly prepared: Prepared
  readonly reference: Reference
  readonly footprints: readonly number[]
}

export interface RowOptions {
  readonly timeoutMs: number
  readonly prefix?: readonly string[]
}

/** Carries out one row on a cluster of as many nodes. Never throws for what the row is about. */
export async function runRow(
  cluster: TestCluster,
  row: Row,
  subject: Subject,
  options: RowOptions,
): Promise<RowResult> {
  const { prepared, reference } = subject
  const before: Before = snapshot(cluster)
  removeFiles(prepared)
  const problems: string[] = []
  const ends: RunOutcome[] = []
  const outputs: Outcome[] = []
  const residency: Residency[] = []
  const seen: ProcessSeen[] = []
  const start = performance.now()
  for (const [i, command] of prepared.commands.entries()) {
    const footprint = subject.footprints[i] ?? 0
    const limit = limitPages(row, footprint)
    const [watched, client] = await Promise.all([
      runWatched(cluster, runFlags(row, limit), command, footprint, options),
      startClient(prepared, cluster.directory, options.timeoutMs),
    ])
    ends.push(watched.end)
    outputs.push(watched.end, ...(client === undefined ? [] : [client]))
    problems.push(...clientProblems(client))
    seen.push(...watched.during)
    if (watched.residency !== undefined) residency.push(watched.residency)
    const { status, signal, stderr } = watched.end
    if (status !== reference.status)
      problems.push(
        `exit status ${status ?? signal}, alone ${reference.status}: ${stderr.trim().slice(-300)}`,
      )
    problems.push(...missing(row, watched.end.stats), ...residencyProblems(watched.residency, limit))
  }
  const seconds = (performance.now() - start) / 1000
  const digests = digestsOf(prepared, outputs)
  if (digests.join() !== reference.digests.join()) problems.push('output differs from a run alone')
  for (const left of await leftovers(cluster, before, seen)) problems.push(`left behind: ${left}`)
  return {
    row,
    footprintPages: Math.max(...subject.footprints),
    limitPages: limitPages(row, Math.max(...subject.footprints)),
    problems,
    seconds,
    nativeSeconds: reference.seconds,
    stats: ends.map(end => end.stats),
    residency,
  }
}

export function limitPages(row: Row, footprintPages: number): number {
  return Math.max(LIMIT_PAGES_MIN, Math.ceil((footprintPages * row.share) / 100))
}
