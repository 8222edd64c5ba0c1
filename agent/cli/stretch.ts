/**
 * `elasticos stretch ID NODE`: has one more machine take part in an elastic process, now. With `--auto` it is stretched
 * over whoever has room, by itself, as before anything was contracted.
 */

import type { Command } from 'commander'
import { parseElasticProcessId } from '../../placement/ids.js'
import { CliFailure, EXIT_USAGE } from './failure.js'
import { needAgentOf } from './find-agent.js'
import type { Finish } from './main.js'
import { print, printable } from './output.js'
import { Progress } from './progress.js'
import { need } from './values.js'

interface Flags {
  readonly control?: string
  readonly auto?: boolean
  readonly json?: boolean
}

export function addStretchCommand(program: Command, _finish: Finish): void {
  program
    .command('stretch')
    .description('have one more machine take part in an elastic process whose home is this one')
    .argument('<id>', 'its id, as `elasticos ps` shows it')
    .argument('[node]', 'name or peer id of the machine, as `elasticos nodes` shows them')
    .option('--auto', 'instead of NODE: let it find machines by itself again, after `contract`')
    .option('--control <PATH>', "the agent's control socket")
    .option('--json', 'print JSON')
    .option('--verbose', 'say more when something fails')
    .addHelpText(
      'after',
      '\nExamples:\n  elasticos stretch 0123456789abcdef tower\n  elasticos stretch 0123456789abcdef --auto',
    )
    .action(async (id: string, node: string | undefined, flags: Flags) => {
      const processId = need('ID', parseElasticProcessId(id))
      if ((node === undefined) !== (flags.auto === true))
        throw new CliFailure(
          'stretch takes either NODE or --auto; see `elasticos stretch --help`',
          EXIT_USAGE,
        )
      const agent = await needAgentOf(processId, flags.control)
      const progress = new Progress()
      try {
        if (node === undefined) {
          await agent.ask('automatic', { processId })
          const line = `${processId} is stretched by itself over whoever has room`
          print(flags.json ? JSON.stringify({ id: processId, automatic: true }) : line)
          return
        }
        progress.show(`asking ${node}`)
        const name = await agent.ask('stretch', { processId, node })
        progress.end()
        print(
          flags.json
            ? JSON.stringify({ id: processId, node: name })
            : printable(`${processId} is stretched over ${name}`),
        )
      } finally {
        progress.end()
        agent.close()
      }
    })
}
