/**
 * `elasticos run`: the flags. What it does is in run/execute.ts.
 */

import type { Command } from 'commander'
import type { Finish } from './main.js'

/** Flags as typed; run/plan.ts turns them into a plan. */
export interface RunFlags {
  readonly memory?: string
  readonly control?: string
  readonly policy?: string
  readonly participants?: string
  readonly participantsMin?: string
  readonly wait?: string
  readonly stats?: string
  readonly allowUnstretched?: boolean
  readonly jumpEvery?: string
  readonly verbose?: boolean
}

const HELP = `
The program is found through PATH, keeps its terminal, descriptors, signals and exit status, and needs no change.
With no agent on this machine \`run\` starts one inside itself, which lends nothing and ends with the program.

Exit status: the program's own; 128+n if signal n ended it; 125 elasticos failed; 126 cannot execute; 127 not found.

Examples:
  elasticos run --memory 512M -- python3 big.py
  elasticos run --memory 25M --participants 1 -- sort big.txt      this machine and its disk only
  elasticos run --memory 64M --participants-min 3 --wait 10s --stats stats.json -- ./simulation
  elasticos run --memory 64M --policy multinode-adaptive-lru -- ./scan`

export function addRunCommand(program: Command, finish: Finish): void {
  program
    .command('run')
    .description('run a program, stretched over this machine and its peers')
    .argument('<program>', 'the program')
    .argument('[args...]', 'its arguments')
    .passThroughOptions()
    .option('--memory <SIZE>', 'most memory resident here, at least 4M (default: what there is to spare)')
    .option('--control <PATH>', "the agent's control socket")
    .option(
      '--policy <NAME[:k=v,...]>',
      'where pages and threads go: always-pull (default), multinode-adaptive-lru',
    )
    .option('--participants <N>', 'at most N machines, this one included')
    .option('--participants-min <N>', 'start with no fewer than N machines, else fail (125)')
    .option('--wait <DURATION>', 'how long to wait for them (default: 5s)')
    .option('--stats <FILE>', 'write statistics (JSON) at the end, whatever end it is')
    .option('--allow-unstretched', 'run the program alone, and say so, where stretching cannot work')
    .option(
      '--jump-every <N>',
      "for tests: each thread's N-th remote fault in user mode jumps to the page's owner",
    )
    .option('--verbose', 'say more, about failures and on the way')
    .addHelpText('after', HELP)
    .action(async (name: string, args: string[], flags: RunFlags) => {
      const { execute } = await import('./run/execute.js')
      const { status, abandons } = await execute(flags, [name, ...args])
      finish(status)
      if (abandons) process.exit(status)
    })
}
