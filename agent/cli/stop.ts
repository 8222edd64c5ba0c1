/**
 * `elasticos stop ID`: ends an elastic process in order: its pager ends the program, the participants free everything.
 */

import type { Command } from 'commander'
import { parseElasticProcessId } from '../../placement/ids.js'
import { CliFailure } from './failure.js'
import { findAgent } from './find-agent.js'
import type { Finish } from './main.js'
import { print } from './output.js'
import { need } from './values.js'

const REASON = 'stopped by `elasticos stop`'
const END_TIMEOUT_MS = 5000

interface Flags {
  readonly control?: string
}

export function addStopCommand(program: Command, _finish: Finish): void {
  program
    .command('stop')
    .description('end an elastic process whose home is this machine')
    .argument('<id>', 'its id, as `elasticos ps` shows it')
    .option('--control <PATH>', "the agent's control socket")
    .option('--verbose', 'say more when something fails')
    .addHelpText('after', '\nExample:\n  elasticos stop 0123456789abcdef')
    .action(async (id: string, flags: Flags) => {
      const processId = need('ID', parseElasticProcessId(id))
      if (flags.control === undefined && (await stopLocally(processId))) return print(`stopped ${processId}`)
      const agent = await findAgent(flags.control)
      if (agent === undefined) {
        throw new CliFailure(`no elastic process ${processId} has its home here; see \`elasticos ps\``)
      }
      try {
        await agent.ask('stop', { processId, reason: REASON })
        print(`stopped ${processId}`)
      } finally {
        agent.close()
      }
    })
}

/** Stops a process whose pager listens in the usual runtime directory; false when none does. */
async function stopLocally(id: string): Promise<boolean> {
  const { connectLocalHome } = await import('./local-pagers.js')
  const pager = await connectLocalHome(id)
  if (pager === undefined) return false
  const ended = new Promise<boolean>(resolve => {
    pager.onClose(() => resolve(true))
    setTimeout(() => resolve(false), END_TIMEOUT_MS).unref()
  })
  pager.send({ kind: 'terminate', reason: REASON })
  if (await ended) return true
  throw new CliFailure(`the pager of ${id} does not end; kill -9 ${pager.describe.pagerPid} ends it`)
}
