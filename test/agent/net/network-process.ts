/**
 * One real network in a process of its own, driven over its standard input and output, a line of JSON each way: for
 * agents on hosts of their own, and for such as are killed.
 *
 * Started with one argument, the options. Answers are in the order of the commands; events come as they happen.
 */

import { createInterface } from 'node:readline'
import { privateKeyFromProtobuf } from '@libp2p/crypto/keys'
import { newKey } from '../../../agent/key.js'
import type { Load } from '../../../agent/machines/membership.js'
import type { PeerId } from '../../../agent/machines/types.js'
import { Libp2pNetwork } from '../../../agent/net/libp2p.js'
import type { PeerMessage } from '../../../agent/net/messages.js'
import type { NetworkEvent } from '../../../agent/net/port.js'
import { WatchedAgent } from '../../conformance/peer-network-agent.js'

export interface ProcessOptions {
  /** Base64 of the identity's protobuf, and of the network key. */
  readonly identity: string
  readonly key: string
  readonly listen: readonly string[]
  readonly peers: readonly string[]
  readonly load: Load
}

export type Command =
  | { readonly kind: 'send'; readonly peer: PeerId; readonly first: number; readonly count: number }
  | { readonly kind: 'say'; readonly peer: PeerId; readonly message: PeerMessage }
  | { readonly kind: 'publish'; readonly load: Load }
  | { readonly kind: 'stop' }

export type Report =
  | { readonly kind: 'started'; readonly self: PeerId; readonly addresses: readonly string[] }
  | { readonly kind: 'told'; readonly events: readonly NetworkEvent[]; readonly faults: readonly string[] }
  | { readonly kind: 'answer'; readonly value: number | boolean }

const REPORT_MS = 10
const QUIET = { error: () => {}, warn: () => {}, info: () => {}, debug: () => {} }

function report(line: Report): void {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}

async function main(options: ProcessOptions): Promise<void> {
  const { listen, peers, load } = options
  const network = await Libp2pNetwork.start({
    identity: privateKeyFromProtobuf(Buffer.from(options.identity, 'base64')),
    key: newKey(Buffer.from(options.key, 'base64')),
    listen,
    peers,
    allow: [],
    load,
    log: QUIET,
  })
  const agent = new WatchedAgent(network)
  report({ kind: 'started', self: network.self, addresses: network.addresses() })
  let told = { events: 0, faults: 0 }
  const tell = () => {
    const { events, faults } = agent
    if (events.length === told.events && faults.length === told.faults) return
    report({ kind: 'told', events: events.slice(told.events), faults: faults.slice(told.faults) })
    told = { events: events.length, faults: faults.length }
  }
  setInterval(tell, REPORT_MS)
  for await (const line of createInterface({ input: process.stdin })) {
    const value = await carryOut(agent, JSON.parse(line) as Command)
    tell()
    report({ kind: 'answer', value })
  }
  process.exit(0)
}

async function carryOut(agent: WatchedAgent, command: Command): Promise<number | boolean> {
  switch (command.kind) {
    case 'send':
      return agent.send(command.peer, command.first, command.count)
    case 'say':
      return agent.say(command.peer, command.message)
    case 'publish':
      await agent.publish(command.load)
      return true
    case 'stop':
      await agent.stop()
      return true
  }
}

await main(JSON.parse(process.argv[2] ?? '') as ProcessOptions)
