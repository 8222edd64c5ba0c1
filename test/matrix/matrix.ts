/**
 * The correctness matrix: programs × shares of their footprint × nodes × modes, on real agents in processes of their
 * own. The command line is main.ts; a small part of it is a test of `npm test`.
 */

import { join } from 'node:path'
import { TestCluster } from '../helpers/cluster.js'
import type { MatrixProgram, Scale } from './program.js'
import { footprints, type RowOptions, type RowResult, runAlone, runRow, type Subject } from './row-run.js'
import type { Row } from './rows.js'

const ALONE_TIMEOUT_MS = 60_000
/** What each agent lends: as much as no row asks for. */
const CAPACITY = '512M'
const AGENTS = ['a', 'b', 'c'] as const

export interface Observer {
  note(text: string): void
  result(result: RowResult): void
}

/** A subject that cannot be had, and why. */
type Subjects = Map<MatrixProgram, Subject | Error>

/** Starts as many agents on loopback; none knows of others but by `--peer`. */
export async function startCluster(nodes: number): Promise<TestCluster> {
  const cluster = await TestCluster.make()
  try {
    await cluster.startAgents(Math.min(nodes, AGENTS.length), { flags: ['--capacity', CAPACITY] })
    return cluster
  } catch (error) {
    await cluster.stop()
    throw error
  }
}

/** Inputs, the reference run and the footprint of every program. `cluster`: where the latter is measured. */
export async function prepareSubjects(
  programs: readonly MatrixProgram[],
  scale: Scale,
  cluster: TestCluster,
  observer: Observer,
): Promise<Subjects> {
  const subjects: Subjects = new Map()
  for (const program of programs) {
    try {
      const prepared = program.prepare(cluster.directory, scale)
      const reference = await runAlone(prepared, join(cluster.directory, 'home'), ALONE_TIMEOUT_MS)
      const pages = await footprints(cluster, prepared, ALONE_TIMEOUT_MS)
      subjects.set(program, { prepared, reference, footprints: pages })
      observer.note(`${program.name}: ${pages.map(count => `${count >> 8} MB`).join(', ')}`)
    } catch (error) {
      subjects.set(program, error instanceof Error ? error : new Error(String(error)))
    }
  }
  return subjects
}

/** Carries out the rows, grouped by their number of nodes. Resolves to the results in that order. */
export async function runMatrix(
  rows: readonly Row[],
  scale: Scale,
  observer: Observer,
  options: RowOptions,
): Promise<RowResult[]> {
  const results: RowResult[] = []
  // Inputs lie in this one's directory, which lives as long as all rows.
  const alone = await startCluster(1)
  try {
    const subjects = await prepareSubjects([...new Set(rows.map(row => row.program))], scale, alone, observer)
    for (const nodes of [...new Set(rows.map(row => row.nodes))]) {
      const cluster = nodes === 1 ? alone : await startCluster(nodes)
      try {
        for (const row of rows.filter(each => each.nodes === nodes)) {
          const result = await attempt(cluster, row, subjects, options)
          results.push(result)
          observer.result(result)
        }
      } finally {
        if (cluster !== alone) await cluster.stop()
      }
    }
  } finally {
    await alone.stop()
  }
  return results
}

async function attempt(
  cluster: TestCluster,
  row: Row,
  subjects: Subjects,
  options: RowOptions,
): Promise<RowResult> {
  const subject = subjects.get(row.program) ?? new Error('not prepared')
  const failed = (problem: string): RowResult => ({
    row,
    footprintPages: 0,
    limitPages: 0,
    problems: [problem],
    seconds: 0,
    nativeSeconds: 0,
    stats: [],
    residency: [],
  })
  if (subject instanceof Error) return failed(subject.message)
  try {
    return await runRow(cluster, row, subject, options)
  } catch (error) {
    return failed(error instanceof Error ? error.message : String(error))
  }
}
