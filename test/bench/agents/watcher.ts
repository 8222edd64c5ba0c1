/**
 * An agent's network without the agent, in a process of its own: publishes its load a few times a second, and notes when
 * what another watcher publishes is delivered. As a reference each packet of that size is sent over plain TCP as well.
 *
 * All processes of a machine have one monotonic clock, whatever network namespace they are in: the time of publishing
 * travels as the number of free pages.
 *
 * Started with one argument, the options; says `{address}`, plain TCP, once it knows `others` agents; a line of JSON on its
 * standard input, the other's address, makes it work; at the end it says `{gossipMs, tcpMs}`.
 */

import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { loadOrMakeKey } from '../../../agent/key.js'
import { lanDiscovery } from '../../../agent/net/discovery.js'
import { Libp2pNetwork } from '../../../agent/net/libp2p.js'
import { encodeLoad } from '../../../agent/net/messages.js'
import { loadOf } from '../../conformance/peer-network-agent.js'

export interface WatcherOptions {
  readonly keyFile: string
  readonly host: string
  readonly others: number
  readonly seconds: number
}

export interface WatcherAddress {
  readonly host: string
  readonly port: number
}

export interface WatcherReport {
  readonly gossipMs: readonly number[]
  readonly tcpMs: readonly number[]
}

const NAME = 'watcher'
/** Below what one agent may publish (agent/net/conduct.ts), and never in step with anything. */
const PAUSE_MS = { least: 150, most: 250 }
const QUIET = { error: () => {}, warn: () => {}, info: () => {}, debug: () => {} }

function nowUs(): number {
  return Number(process.hrtime.bigint() / 1000n)
}

function sinceMs(us: number): number {
  return (nowUs() - us) / 1000
}

function say(line: WatcherAddress | WatcherReport): void {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}

async function watch({ keyFile, host, others, seconds }: WatcherOptions): Promise<void> {
  const gossipMs: number[] = []
  const tcpMs: number[] = []
  const joined = new Set<string>()
  const key = await loadOrMakeKey(keyFile)
  const load = { ...loadOf(NAME, Date.now(), 0), nextMs: 60_000 }
  const network = await Libp2pNetwork.start({
    identity: await generateKeyPair('Ed25519'),
    key,
    listen: [`/ip4/${host}/tcp/0`],
    peers: [],
    allow: [],
    load,
    log: QUIET,
    discovery: lanDiscovery({ key, name: NAME, log: QUIET }),
  })
  const known = Promise.withResolvers<void>()
  network.listen(event => {
    if (event.kind === 'joined') joined.add(event.peer)
    if (joined.size >= others) known.resolve()
    if (event.kind === 'load' && event.load.name === NAME) gossipMs.push(sinceMs(event.load.freePages))
  })
  const server = createServer(socket => {
    socket.on('data', text => tcpMs.push(sinceMs(parseInt(`${text}`, 10))))
    socket.on('error', isOver)
  })
  await once(server.listen(0, host), 'listening')
  await known.promise
  say({ host, port: (server.address() as AddressInfo).port })
  const [line] = await once(createInterface({ input: process.stdin }), 'line')
  const other = JSON.parse(line) as WatcherAddress
  const socket = connect(other.port, other.host)
  socket.on('error', isOver)
  const until = performance.now() + seconds * 1000
  for (let sequence = 1; performance.now() < until; sequence++) {
    network.publish({ ...load, sequence, freePages: nowUs() })
    await sleep(pauseMs())
    const { length } = encodeLoad({ ...load, sequence, freePages: nowUs() })
    socket.write(`${nowUs()}`.padEnd(length))
    await sleep(pauseMs())
  }
  say({ gossipMs, tcpMs })
  process.exit(0)
}

/** The other watcher has ended first. */
function isOver(): void {}

function pauseMs(): number {
  return PAUSE_MS.least + (PAUSE_MS.most - PAUSE_MS.least) * Math.random()
}

await watch(JSON.parse(process.argv[2] ?? '') as WatcherOptions)
