/**
 * `elasticos ps`: the elastic processes this machine takes part in. Asks the agent; without one it asks the pagers
 * themselves, so that a run with an agent inside itself, or with none, is seen too.
 */

import type { Command } from 'commander'
import { bytes, formatSize, PAGE_BYTES } from '../../placement/units.js'
import type { ControlClient } from '../control/client.js'
import type { ProcessInfo } from '../service.js'
import { findAgent } from './find-agent.js'
import type { Finish } from './main.js'
import { type Column, printRows } from './output.js'

const PROGRAM_CHARACTERS_MAX = 40

const COLUMNS: readonly Column<ProcessInfo>[] = [
  { title: 'ID', cell: row => row.id },
  { title: 'ROLE', cell: row => row.role },
  { title: 'HOME', cell: row => row.home },
  { title: 'PAGER', cell: row => String(row.pid), right: true },
  { title: 'HERE', cell: row => formatSize(bytes(row.residentPages * PAGE_BYTES)), right: true },
  { title: 'PULLS', cell: row => counter(row, 'pulls'), right: true },
  { title: 'PUSHES', cell: row => counter(row, 'pushes'), right: true },
  { title: 'JUMPS', cell: row => counter(row, 'jumps'), right: true },
  { title: 'OVER', cell: row => row.participants.join(',') },
  { title: 'PROGRAM', cell: row => row.program.slice(0, PROGRAM_CHARACTERS_MAX) },
]

function counter(row: ProcessInfo, field: string): string {
  const value = row.stats?.[field]
  return typeof value === 'number' ? String(value) : '-'
}

interface Flags {
  readonly control?: string
  readonly json?: boolean
}

export function addPsCommand(program: Command, _finish: Finish): void {
  program
    .command('ps')
    .description('list the elastic processes this machine takes part in')
    .option('--control <PATH>', "the agent's control socket")
    .option('--json', 'print JSON, with all statistics')
    .option('--verbose', 'say more when something fails')
    .addHelpText('after', '\nExample:\n  elasticos ps --json')
    .action(async (flags: Flags) => {
      const agent = await findAgent(flags.control)
      try {
        const rows = await listProcesses(agent, flags.control === undefined)
        printRows(COLUMNS, rows, flags.json === true, 'no elastic processes here')
      } finally {
        agent?.close()
      }
    })
}

/** What `agent` knows; with `beside` also what runs beside it. */
export async function listProcesses(
  agent: ControlClient | undefined,
  beside: boolean,
): Promise<ProcessInfo[]> {
  const rows = new Map<string, ProcessInfo>()
  for (const row of (await agent?.ask('processes', {})) ?? [])
    rows.set(`${row.id} ${row.role}`, row as ProcessInfo)
  if (beside) {
    const { observeLocalPagers } = await import('./local-pagers.js')
    for (const row of await observeLocalPagers()) {
      const key = `${row.id} ${row.role}`
      if (!rows.has(key)) rows.set(key, row)
    }
  }
  return [...rows.values()]
}
