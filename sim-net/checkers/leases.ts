/** What lenders and homes must keep at every look: no more is promised than there is, and no queue grows without end. */

import type { LeaseLender } from '../../agent/machines/lease-lender.js'
import type { Cluster } from '../cluster/cluster.js'

/** Had promised too much at the last look: one that has just found its leases again makes them fit with its next tick. */
const overdrawn = new WeakSet<LeaseLender>()

export function checkLeases(cluster: Cluster): void {
  for (const { lending, name } of cluster.agents.values()) {
    const { machine } = lending
    const { capacityPages } = machine
    // What is being given back cannot be promised less.
    const promised = machine
      .leases()
      .filter(({ state }) => state !== 'releasing')
      .reduce((sum, { pages }) => sum + pages, 0)
    if (promised <= capacityPages) overdrawn.delete(machine)
    else if (!overdrawn.has(machine)) overdrawn.add(machine)
    else
      cluster.checks.report('lease', `${name} has promised ${promised} pages, and ${capacityPages} are lent`)
  }
}
