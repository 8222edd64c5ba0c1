/**
 * `elasticos demo`: the flags. What it does is in demo/.
 */

import type { Command } from 'commander'
import type { Finish } from './main.js'

interface Flags {
  readonly json?: boolean
  readonly only?: readonly string[]
  readonly verbose?: boolean
}

const HELP = `
Three agents on this machine find each other; real programs run at a quarter of their footprint, each compared with
the same program run alone. Takes up to two minutes. Needs cc, sort, python3 and sqlite3; touches nothing outside a
temporary directory. Exits with 0 only if every output is identical and every program was stretched over two agents.

Example:
  elasticos demo`

function collect(value: string, before: readonly string[] | undefined): string[] {
  return [...(before ?? []), value]
}

export function addDemoCommand(program: Command, finish: Finish): void {
  program
    .command('demo')
    .description('three agents on this machine, real programs, verified output')
    .option('--json', 'print the closing table as JSON')
    .option('--only <NAME>', 'show only this program, may be repeated', collect)
    .option('--verbose', 'say more when something fails')
    .addHelpText('after', HELP)
    .action(async (flags: Flags) => {
      const { runDemo } = await import('./demo/demo.js')
      finish(await runDemo(flags.json === true, flags.only ?? [], flags.verbose === true))
    })
}
