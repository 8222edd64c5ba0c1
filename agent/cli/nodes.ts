/**
 * `elasticos nodes`: the machines this agent sees, and what to do about those that have not joined.
 */

import type { Command } from 'commander'
import { bytes, formatSize, PAGE_BYTES } from '../../placement/units.js'
import type { NodeInfo } from '../service.js'
import { needAgent } from './find-agent.js'
import type { Finish } from './main.js'
import { type Column, notice, printRows } from './output.js'

const COLUMNS: readonly Column<NodeInfo>[] = [
  { title: 'NAME', cell: node => (node.self ? `${node.name} (this one)` : node.name) },
  { title: 'STATE', cell: node => node.state },
  { title: 'LENDS', cell: node => sizeOf(node.capacityPages), right: true },
  { title: 'FREE', cell: node => sizeOf(node.freePages), right: true },
  { title: 'CPUS', cell: node => String(node.cpus), right: true },
  { title: 'PROCESSES', cell: node => String(node.processes), right: true },
  {
    title: 'RTT',
    cell: node => (node.rttMs === undefined ? '-' : `${node.rttMs.toFixed(1)} ms`),
    right: true,
  },
  { title: 'PEER', cell: node => node.peerId },
  { title: 'ADDRESSES', cell: node => node.addresses.join(' ') },
]

function sizeOf(pages: number): string {
  return formatSize(bytes(pages * PAGE_BYTES))
}

interface Flags {
  readonly control?: string
  readonly json?: boolean
}

export function addNodesCommand(program: Command, _finish: Finish): void {
  program
    .command('nodes')
    .description('list the machines the agent sees: joined, suspected, or seen but not joined')
    .option('--control <PATH>', "the agent's control socket")
    .option('--json', 'print JSON')
    .option('--verbose', 'say more when something fails')
    .addHelpText('after', '\nExample:\n  elasticos nodes --json')
    .action(async (flags: Flags) => {
      const agent = await needAgent(flags.control)
      try {
        const nodes = await agent.ask('nodes', {})
        printRows(COLUMNS, nodes as NodeInfo[], flags.json === true, 'no machines')
        for (const node of nodes) if (!flags.json && node.remedy) notice(`${node.name}: ${node.remedy}`)
      } finally {
        agent.close()
      }
    })
}
