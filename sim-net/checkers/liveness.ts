/** What must come about in time once nothing is broken any more. */

import type { Machine } from '../cluster/agent.js'
import type { Cluster } from '../cluster/cluster.js'
import type { SimPager } from '../cluster/pager.js'
import type { SimProcess } from '../cluster/process.js'

/** What still lacks until agents agree who is there: each is joined to everybody it knows who is up, and back. */
export function disagreement(cluster: Cluster): string | undefined {
  const up = new Map([...cluster.agents.values()].map(agent => [agent.self, agent] as const))
  for (const { host } of cluster.machines) if (!cluster.agents.has(host)) return `${host.name} has no agent`
  for (const agent of up.values()) {
    if (up.size > 1 && agent.membership.size === 0) return `${agent.name} knows nobody`
    for (const { peer, state } of agent.membership.members()) {
      const other = up.get(peer)
      if (other === undefined) continue
      if (state !== 'joined') return `${agent.name} suspects ${other.name}`
      if (other.membership.member(agent.self)?.state !== 'joined')
        return `${other.name} does not know ${agent.name}`
    }
  }
  return undefined
}

/** Operations that each thread of each running process has completed. */
export function progressOf(cluster: Cluster): ReadonlyMap<object, readonly number[]> {
  return new Map(
    cluster.processes.flatMap(process => (process.runs ? [[process, [...process.completed]] as const] : [])),
  )
}

/** A thread that still runs and has completed nothing since. */
export function standstill(
  cluster: Cluster,
  since: ReadonlyMap<object, readonly number[]>,
): string | undefined {
  for (const process of cluster.processes) {
    const before = since.get(process)
    if (!process.runs || before === undefined) continue
    for (const [thread, completed] of process.completed.entries())
      if (completed === before[thread])
        return `thread ${thread} of ${process.title} stands still at ${completed}`
  }
  return undefined
}

/** Memory that is still lent when no process runs any more. */
export function leftover(cluster: Cluster): string | undefined {
  for (const process of cluster.processes)
    for (const pager of process.pagers) return `the pager of ${pager.title} has not ended`
  for (const { lending, name } of cluster.agents.values()) {
    const { capacityPages, freePages } = lending.machine
    if (freePages !== capacityPages) return `${name} has ${freePages} of ${capacityPages} pages free`
  }
  return undefined
}

/** The agent that lends to most leaves in order: it hands back all it holds, and their runs do not notice. */
export class Leaving {
  readonly #name: string
  readonly #left: SimPager[]
  readonly #runs: SimProcess[]
  #gone = false

  constructor(cluster: Cluster) {
    const { machines, agents } = cluster
    let most: Machine | undefined
    for (const machine of machines)
      if (agents.has(machine.host) && machine.held.size > (most?.held.size ?? 0)) most = machine
    this.#name = most?.host.name ?? ''
    this.#left = [...(most?.held.values() ?? [])]
    this.#runs = this.#left.map(({ process }) => process).filter(({ runs }) => runs)
    if (most === undefined) this.#gone = true
    else
      cluster.stop(most, () => {
        this.#gone = true
      })
  }

  lack(): string | undefined {
    for (const { ended, title } of this.#runs)
      if (ended !== undefined && ended !== '') return `${title} has noticed that ${this.#name} left: ${ended}`
    if (!this.#gone) return `${this.#name} has not left`
    for (const { alive, title } of this.#left)
      if (alive) return `${this.#name} has left and not handed back what ${title} held`
    return undefined
  }
}
