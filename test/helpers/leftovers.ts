/**
 * What a run must not leave behind on any node: processes, sockets, files, lent memory, descriptors of the agents.
 *
 * Memory without a process or a file does not exist on Linux (SysV segments aside, which elasticos does not make), so
 * no process, no file and no lent page means no memory.
 */

import { readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { TestCluster } from './cluster.js'
import { alive, census, type ProcessSeen, stillThere } from './processes.js'

/** The outcomes of the command-line contract hold within this time. */
const CLEAN_WITHIN_MS = 5000
const POLL_MS = 50
/** Connections between agents come and go by themselves. */
const DESCRIPTORS_SLACK = 6

export interface Before {
  readonly files: ReadonlySet<string>
  readonly mounts: number
  readonly descriptors: ReadonlyMap<number, number>
}

/** The state to which everything has to come back. Take it while no run is under way. */
export function snapshot(cluster: TestCluster): Before {
  const pids = [...cluster.agents.values()].map(agent => agent.pid).filter(alive)
  return {
    files: new Set(filesOf(cluster)),
    mounts: mounts(),
    descriptors: new Map(pids.map(pid => [pid, descriptors(pid)])),
  }
}

/**
 * Waits until nothing is left of what was seen `during` the run but living agents. Resolves to what is left after
 * `withinMs`: one line each, none when all is clean.
 */
export async function leftovers(
  cluster: TestCluster,
  before: Before,
  during: readonly ProcessSeen[],
  withinMs = CLEAN_WITHIN_MS,
): Promise<string[]> {
  const deadline = performance.now() + withinMs
  for (;;) {
    const left = await look(cluster, before, during)
    if (left.length === 0 || performance.now() > deadline) return left
    await sleep(POLL_MS)
  }
}

async function look(cluster: TestCluster, before: Before, during: readonly ProcessSeen[]): Promise<string[]> {
  const agents = [...cluster.agents.values()].filter(agent => alive(agent.pid))
  const pids = new Set(agents.map(agent => agent.pid))
  const seen = new Map([...during, ...census(cluster.directory)].map(each => [each.pid, each]))
  const left = stillThere([...seen.values()].filter(each => !pids.has(each.pid))).map(
    each => `process ${each.text}`,
  )
  for (const file of filesOf(cluster)) if (!before.files.has(file)) left.push(`file ${file}`)
  if (mounts() > before.mounts) left.push(`${mounts() - before.mounts} mounts`)
  for (const agent of agents) {
    const self = (await cluster.nodes(agent.name)).find(node => node.self)
    if (self === undefined) continue
    if (self.freePages !== self.capacityPages) {
      left.push(`${self.capacityPages - self.freePages} pages lent by ${agent.name}`)
    }
    if (self.processes > 0) left.push(`${self.processes} elastic processes known to ${agent.name}`)
    const had = before.descriptors.get(agent.pid)
    const has = descriptors(agent.pid)
    if (had !== undefined && has > had + DESCRIPTORS_SLACK) {
      left.push(`${has - had} descriptors in agent ${agent.name}`)
    }
  }
  return left
}

/** Files and sockets below the agents' directories. What tests write themselves lies beside those. */
function filesOf(cluster: TestCluster): string[] {
  const trees = [...cluster.agents.values()].map(agent => agent.dataDir)
  return [...trees, cluster.path('home')].flatMap(tree =>
    readdirSync(tree, { recursive: true, withFileTypes: true })
      .filter(entry => !entry.isDirectory())
      .map(entry => relative(cluster.directory, join(entry.parentPath, entry.name))),
  )
}

function mounts(): number {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter(line => line.includes('elastic')).length
}

function descriptors(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length
}
