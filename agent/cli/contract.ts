/**
 * `elasticos contract ID [NODE]`: brings back what a machine holds of an elastic process, and lets it go.
 *
 * The home pager does the work and sets the pace; this command starts it and waits. When it waits no longer, or is
 * ended, the work goes on.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import type { Command } from 'commander'
import { parseElasticProcessId } from '../../placement/ids.js'
import type { ControlClient } from '../control/client.js'
import type { LeaseInfo } from '../service.js'
import { CliFailure } from './failure.js'
import { needAgentOf } from './find-agent.js'
import type { Finish } from './main.js'
import { print, printable } from './output.js'
import { Progress } from './progress.js'
import { durationFlag, need } from './values.js'

const WAIT = '60s'
const POLL_MS = 100

interface Flags {
  readonly control?: string
  readonly wait: string
  readonly json?: boolean
}

export function addContractCommand(program: Command, _finish: Finish): void {
  program
    .command('contract')
    .description('bring back what other machines hold of an elastic process, and let them go')
    .argument('<id>', 'its id, as `elasticos ps` shows it')
    .argument('[node]', 'name or peer id of one machine (default: all that take part)')
    .option('--wait <DURATION>', 'how long to wait until it is done', WAIT)
    .option('--control <PATH>', "the agent's control socket")
    .option('--json', 'print JSON')
    .option('--verbose', 'say more when something fails')
    .addHelpText(
      'after',
      '\nExamples:\n  elasticos contract 0123456789abcdef tower\n  elasticos contract 0123456789abcdef',
    )
    .action(async (id: string, node: string | undefined, flags: Flags) => {
      const processId = need('ID', parseElasticProcessId(id))
      const waitMs = durationFlag('--wait', flags.wait)
      const agent = await needAgentOf(processId, flags.control)
      try {
        const gone = await contract(agent, processId, node, waitMs)
        const nodes = gone.map(lease => lease.node)
        const names = nodes.length === 0 ? 'nobody took part' : `${nodes.join(', ')} let go`
        const line = flags.json
          ? JSON.stringify({ id: processId, nodes })
          : printable(`${processId} is contracted: ${names}`)
        print(line)
      } finally {
        agent.close()
      }
    })
}

/** Resolves to what was let go. */
async function contract(
  agent: ControlClient,
  processId: string,
  node: string | undefined,
  waitMs: number,
): Promise<LeaseInfo[]> {
  const untilMs = performance.now() + waitMs
  const progress = new Progress()
  const leaving = await agent.ask('contract', { processId, ...(node === undefined ? {} : { node }) })
  const peers = leaving.map(lease => lease.peerId)
  try {
    for (;;) {
      const leases = await agent.ask('leases', { processId })
      const left = leases.filter(lease => peers.includes(lease.peerId))
      if (left.length === 0) return leaving
      const pages = left.reduce((sum, lease) => sum + lease.pages, 0)
      const names = left.map(lease => lease.node).join(', ')
      if (performance.now() >= untilMs) {
        throw new CliFailure(
          `${names} still had ${pages} pages after ${waitMs} ms; they go on coming back, see \`elasticos ps\``,
        )
      }
      progress.show(`${pages} pages still at ${names}`)
      await sleep(POLL_MS)
    }
  } finally {
    progress.end()
  }
}
