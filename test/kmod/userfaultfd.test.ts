import { UserfaultfdPageTable } from '../../kmod/userfaultfd.js'
import { pageTableConformance } from '../conformance/page-table.js'
import { GUEST, PAGER } from '../helpers/native.js'

for (const [name, environment] of [
  ['userfaultfd', {}],
  ['userfaultfd without PAGEMAP_SCAN (as before Linux 6.7)', { ELASTICOS_NO_PAGEMAP_SCAN: '1' }],
] as const) {
  pageTableConformance(name, {
    make: async () => {
      const table = await UserfaultfdPageTable.start(PAGER, GUEST, environment)
      return { table, guest: table }
    },
    counts: 100_000_000,
  })
}
