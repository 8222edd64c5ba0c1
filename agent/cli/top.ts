/**
 * `elasticos top`: the flags. What it does is in top/.
 */

import type { Command } from 'commander'
import type { Finish } from './main.js'
import { countFlag } from './values.js'

interface Flags {
  readonly control?: string
  readonly json?: boolean
  readonly count?: string
}

const HELP = `
q or Ctrl-C ends it. Where standard output is no terminal the picture is printed once, without rates.

Examples:
  elasticos top
  elasticos top --json --count 5`

export function addTopCommand(program: Command, finish: Finish): void {
  program
    .command('top')
    .description('watch machines and elastic processes, once a second')
    .option('--control <PATH>', "the agent's control socket")
    .option('--json', 'print a line of JSON each second')
    .option('--count <N>', 'end after N times')
    .option('--verbose', 'say more when something fails')
    .addHelpText('after', HELP)
    .action(async ({ control, json, count }: Flags) => {
      const times =
        count === undefined
          ? Number.POSITIVE_INFINITY
          : countFlag('--count', count, 1, Number.MAX_SAFE_INTEGER)
      const { runTop } = await import('./top/top.js')
      finish(await runTop({ control, json: json === true, count: times }))
    })
}
