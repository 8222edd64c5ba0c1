/**
 * `elasticos agent`: the flags. What it does is in agent-main.ts.
 */

import type { Command } from 'commander'
import type { AgentFlags } from './agent-config.js'
import type { Finish } from './main.js'

const HELP = `
Machines on one LAN that have the same network key (\`elasticos key\`) find each other. Several agents on one machine
need their own --data and --control, and a free port to --listen on.

A configuration file is TOML with the names of the flags:
  name = "tower"
  listen = ["/ip4/0.0.0.0/tcp/7420"]
  peer = ["/ip4/192.0.2.7/tcp/7420"]
  discovery = true
  capacity = "8G"
  spill-max = "50G"
  metrics = "127.0.0.1:9420"
  log-format = "text"

Examples:
  elasticos agent
  elasticos agent --name tower --capacity 8G --peer /ip4/192.0.2.7/tcp/7420
  elasticos agent --data /tmp/b --control /tmp/b.sock --listen /ip4/127.0.0.1/tcp/0`

function collect(value: string, before: readonly string[] | undefined): string[] {
  return [...(before ?? []), value]
}

export function addAgentCommand(program: Command, finish: Finish): void {
  program
    .command('agent')
    .description('lend this machine to elastic processes, and find others for those that start here')
    .option('--name <N>', 'name of this machine for people (default: the host name)')
    .option('--data <DIR>', 'identity, spilled pages, logs; a real file system, not tmpfs')
    .option('--control <PATH>', 'socket for the command line (0600)')
    .option(
      '--listen <MULTIADDR>',
      'address for peers, may be repeated (default: /ip4/0.0.0.0/tcp/7420)',
      collect,
    )
    .option(
      '--peer <MULTIADDR>',
      'a machine to dial whether discovery sees it or not, may be repeated',
      collect,
    )
    .option('--no-discovery', 'neither look for machines on the LAN nor be found')
    .option(
      '--key <FILE>',
      'network key (default: ~/.config/elasticos/network.key, root: /etc/elasticos/network.key)',
    )
    .option(
      '--allow <PEERID>',
      'let only these peers join, may be repeated (default: all that have the key)',
      collect,
    )
    .option('--capacity <SIZE>', 'memory to lend (default: half of what is available)')
    .option('--cpus <N>', 'processors to lend, also in parts: 0.5 (default: half of them, one at least)')
    .option('--spill-max <SIZE>', 'most disk for pages that find no room (default: half of what is free)')
    .option('--metrics <HOST:PORT>', 'answer Prometheus there at /metrics; without HOST on this machine only')
    .option('--log-format <FORMAT>', 'json (default) or text')
    .option('--log-level <LEVEL>', 'error, warn, info (default) or debug')
    .option('--config <FILE>', 'settings from a TOML file; flags win over it')
    .option('--verbose', 'log more, and say more when something fails')
    .addHelpText('after', HELP)
    .action(async (flags: AgentFlags) => {
      const { runAgent } = await import('./agent-main.js')
      finish(await runAgent(flags))
    })
}
