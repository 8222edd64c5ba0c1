/** What lenders and homes must keep at every look: no more is promised than there is, and no queue grows without end. */

import type { Cluster } from '../cluster/cluster.js'

export function checkLeases(cluster: Cluster): void {
  for (const { lending, name } of cluster.agents.values()) {
    const { machine } = lending
    const { capacityPages } = machine
    // What is being given back cannot be promised less.
    const promised = machine
      .leases()
      .filter(({ state }) => state !== 'releasing')
      .reduce((sum, { pages }) => sum + pages, 0)
    if (promised > capacityPages)
      cluster.checks.report('lease', `${name} has promised ${promised} pages, and ${capacityPages} are lent`)
  }
}
