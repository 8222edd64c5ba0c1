/**
 * What `elasticos top` shows at one moment, and what happened since the one before. Pure but for `takeSnapshot`.
 */

import type { ControlClient } from '../../control/client.js'
import { ControlError } from '../../control/errors.js'
import type { LeaseInfo, NodeInfo, ProcessInfo } from '../../service.js'
import { listProcesses } from '../ps.js'

/** Processes of which the lanes are asked for too; each is one more question to its pager. */
const WITH_LANES_MAX = 32

export interface Snapshot {
  /** Monotonic ms. */
  readonly atMs: number
  readonly nodes: readonly NodeInfo[]
  readonly processes: readonly ProcessInfo[]
  /** By process id; none for those that are only lent to. */
  readonly lanes: ReadonlyMap<string, readonly LeaseInfo[]>
}

/** Per second. */
export interface Rates {
  readonly pulls: number
  /** Pages that came and went. */
  readonly pages: number
  readonly jumps: number
  readonly bytes: number
}

/** Asks `agent` (if there is one) and, with `beside`, the pagers of this user in the usual place. */
export async function takeSnapshot(agent: ControlClient | undefined, beside: boolean): Promise<Snapshot> {
  const nodes = ((await agent?.ask('nodes', {})) ?? []) as NodeInfo[]
  const processes = await listProcesses(agent, beside)
  const lanes = new Map<string, readonly LeaseInfo[]>()
  for (const { id, role } of processes.slice(0, WITH_LANES_MAX)) {
    if (agent === undefined || role !== 'home') continue
    const leases = await agent.ask('leases', { processId: id }).catch((error: unknown) => {
      // It has ended meanwhile, or its home is a run without an agent.
      if (error instanceof ControlError && error.code === 'refused') return []
      throw error
    })
    lanes.set(id, leases)
  }
  return { atMs: performance.now(), nodes, processes, lanes }
}

/** Undefined for a process that was not there before. */
export function ratesOf(
  process: ProcessInfo,
  now: Snapshot,
  before: Snapshot | undefined,
): Rates | undefined {
  const earlier = before?.processes.find(({ id, role }) => id === process.id && role === process.role)
  const seconds = (now.atMs - (before?.atMs ?? now.atMs)) / 1000
  if (earlier === undefined || seconds <= 0) return undefined
  const rate = (...fields: string[]) => {
    const sum = (one: ProcessInfo) => fields.reduce((total, field) => total + counter(one, field), 0)
    // A counter may fall: a participant leaves without its last word.
    return Math.max(0, (sum(process) - sum(earlier)) / seconds)
  }
  return {
    pulls: rate('pulls'),
    pages: rate('pagesPulled', 'pagesPushed'),
    jumps: rate('jumps', 'jumpsHome'),
    bytes: rate('bytesSent', 'bytesReceived'),
  }
}

function counter({ stats }: ProcessInfo, field: string): number {
  const value = stats?.[field]
  return typeof value === 'number' ? value : 0
}

/** One snapshot as an object of `top --json`. */
export function snapshotJson(now: Snapshot, before: Snapshot | undefined): object {
  const processes = now.processes.map(process => ({
    ...process,
    perSecond: ratesOf(process, now, before) ?? null,
    lanes: now.lanes.get(process.id) ?? [],
  }))
  return { nodes: now.nodes, processes }
}
