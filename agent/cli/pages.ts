/**
 * `elasticos pages ID`: where the pages of an elastic process are, by its home pager's table. Asks the pager where it
 * is found, else the agent.
 */

import type { Command } from 'commander'
import type { NodePages, PageMap, PageRange } from '../../kmod/pager-pages.js'
import { parseElasticProcessId } from '../../placement/ids.js'
import { bytes, formatSize, PAGE_BYTES } from '../../placement/units.js'
import { needAgentOf } from './find-agent.js'
import type { Finish } from './main.js'
import { type Column, print, tableLines } from './output.js'
import { need } from './values.js'

interface Flags {
  readonly control?: string
  readonly json?: boolean
}

export function addPagesCommand(program: Command, _finish: Finish): void {
  program
    .command('pages')
    .description('show where the pages of an elastic process are whose home is this machine')
    .argument('<id>', 'its id, as `elasticos ps` shows it')
    .option('--control <PATH>', "the agent's control socket")
    .option('--json', 'print JSON')
    .option('--verbose', 'say more when something fails')
    .addHelpText('after', '\nExample:\n  elasticos pages 0123456789abcdef')
    .action(async (id: string, flags: Flags) => {
      const processId = need('ID', parseElasticProcessId(id))
      const map = await pageMap(processId, flags.control)
      if (flags.json) print(JSON.stringify(readable(map), null, 2))
      else for (const line of pageLines(map)) print(line)
    })
}

async function pageMap(processId: string, control: string | undefined): Promise<PageMap> {
  if (control === undefined) {
    const { connectLocalHome } = await import('./local-pagers.js')
    const pager = await connectLocalHome(processId)
    if (pager !== undefined) return await pager.requestPages().finally(() => pager.close())
  }
  const agent = await needAgentOf(processId, control)
  try {
    return await agent.ask('pages', { processId })
  } finally {
    agent.close()
  }
}

function sizeOf(pages: number): string {
  return formatSize(bytes(pages * PAGE_BYTES))
}

const NODE_COLUMNS: readonly Column<NodePages>[] = [
  { title: 'NODE', cell: row => row.node },
  { title: 'RESIDENT', cell: row => String(row.resident), right: true },
  { title: 'SPILLED', cell: row => String(row.spilled), right: true },
  { title: 'REMOTE', cell: row => String(row.remote), right: true },
  { title: 'IN FLIGHT', cell: row => String(row.inFlight), right: true },
]

function start({ first }: PageRange): string {
  return `0x${(first * PAGE_BYTES).toString(16)}`
}

/** The map for people. Exported for tests. */
export function pageLines({ nodes, ranges, leftOut }: PageMap): string[] {
  const columns: readonly Column<PageRange>[] = [
    { title: 'ADDRESS', cell: start },
    { title: 'SIZE', cell: range => sizeOf(range.pages), right: true },
    { title: 'WHERE', cell: range => `${nodes[range.place]?.node ?? ''}${range.spilled ? ' (disk)' : ''}` },
  ]
  const lines = [...tableLines(NODE_COLUMNS, nodes), '', ...tableLines(columns, ranges)]
  if (leftOut.ranges > 0)
    lines.push(`and ${leftOut.ranges} smaller ranges, ${sizeOf(leftOut.pages)} together, left out`)
  return lines
}

function readable({ nodes, ranges, leftOut }: PageMap): object {
  const shown = ranges.map(range => {
    const { pages, place, spilled } = range
    return { start: start(range), pages, node: nodes[place]?.node ?? '', spilled }
  })
  return { nodes, ranges: shown, leftOut }
}
