/** What lenders and homes must keep at every look: no more is promised than there is, and no queue grows without end. */

import type { Cluster } from '../cluster/cluster.js'

export function checkLeases(cluster: Cluster): void {
  for (const { lending, name } of cluster.agents.values()) {
    const { machine } = lending
    const { promisedPages } = machine.promised
    if (
      promisedPages > machine.capacityPages &&
      !machine.leases().every(({ state }) => state === 'releasing')
    )
      cluster.checks.report(
        'lease',
        `${name} has promised ${promisedPages} pages, and ${machine.capacityPages} are lent`,
      )
  }
}
