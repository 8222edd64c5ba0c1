/**
 * A peer that has the network key and says what it likes: whole messages, and bytes that are none. It keeps what it is
 * told, and opens the stream itself, for which its identity is drawn until it is the smaller one.
 */

import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { generateKeyPair } from '@libp2p/crypto/keys'
import type { PrivateKey, Stream } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { type LengthPrefixedStream, lpStream } from '@libp2p/utils'
import { multiaddr } from '@multiformats/multiaddr'
import { loadOrMakeKey } from '../../agent/key.js'
import type { Load } from '../../agent/machines/membership.js'
import type { PeerId } from '../../agent/machines/types.js'
import { decodeMessage, encodeMessage, type PeerMessage } from '../../agent/net/messages.js'
import { LOAD_TOPIC, makeNode, type Node } from '../../agent/net/node.js'
import { Twins } from '../../agent/net/twins.js'

/** As agents name it. */
const PROTOCOL = '/elasticos/agreements/1'
const QUIET = { error: () => {}, warn: () => {}, info: () => {}, debug: () => {} }
const REOPEN_MS = 10

/** What it says of itself: much room, and nothing more for a minute. */
export const LOAD: Load = {
  name: 'mallory',
  incarnation: 1,
  sequence: 1,
  freePages: 1 << 20,
  capacityPages: 1 << 20,
  cpus: 1,
  processes: 0,
  addresses: [],
  nextMs: 60_000,
}

export class HostilePeer {
  readonly received: PeerMessage[] = []
  /** Streams that were opened. */
  streams = 0
  #node: Node
  readonly #again: () => Promise<Node>
  readonly #address: string
  readonly #load: Load
  readonly #twins: Twins
  #stream: Stream | undefined
  #comingAgain: Promise<void> | undefined
  #stopped = false
  #frames: LengthPrefixedStream<Stream> | undefined

  private constructor(node: Node, address: string, load: Load, twins: Twins, again: () => Promise<Node>) {
    this.#node = node
    this.#address = address
    this.#load = load
    this.#twins = twins
    this.#again = again
  }

  /** Joins an agent. */
  static async join(
    { address, peerId }: { address: string; peerId: string },
    keyFile: string,
    load: Load,
  ): Promise<HostilePeer> {
    const key = await loadOrMakeKey(keyFile)
    const identity = await identityBelow(peerId)
    const twins = new Twins(identity, load.incarnation, () => {})
    const arrive = async (as: PrivateKey): Promise<Node> => {
      const options = { identity: as, key, listen: [], peers: [], allow: [], load, log: QUIET }
      const lets = { admits: () => true, isShutOut: () => false }
      const node = await makeNode(options, { onStranger: () => {}, onFound: () => {}, twins, ...lets })
      await node.start()
      node.services.pubsub.subscribe(LOAD_TOPIC)
      return node
    }
    const again = async () => arrive(await identityBelow(peerId))
    const hostile = new HostilePeer(await arrive(identity), address, load, twins, again)
    await hostile.open()
    return hostile
  }

  get id(): PeerId {
    return this.#node.peerId.toString() as PeerId
  }

  get closed(): boolean {
    return this.#stream === undefined || this.#stream.status !== 'open'
  }

  /** A new stream, with a hello. */
  async open(): Promise<void> {
    const connection = await this.#node.dial(multiaddr(this.#address))
    const stream = await connection.newStream(PROTOCOL)
    const frames = lpStream(stream)
    this.streams++
    this.#stream = stream
    this.#frames = frames
    void this.#read(frames)
    const hello = { kind: 'hello', instance: this.#twins.instance, load: this.#load } as const
    await frames.write(encodeMessage(hello)).catch(() => {})
  }

  /** A new stream, with a hello, in place of the one there is. */
  async reopen(): Promise<void> {
    this.#stream?.abort(new Error('another one'))
    await this.open()
  }

  async send(message: PeerMessage): Promise<void> {
    await this.sendFrame(encodeMessage(message))
  }

  /** Any bytes, as one message. */
  async sendFrame(bytes: Uint8Array): Promise<void> {
    if (this.closed) await this.#openAgain()
    await this.#frames?.write(bytes).catch(() => {})
  }

  /** Any bytes, with no length before them. */
  async sendBytes(bytes: Uint8Array): Promise<void> {
    if (this.closed) await this.#openAgain()
    if (!this.closed) this.#stream?.send(bytes)
  }

  async stop(): Promise<void> {
    this.#stopped = true
    await this.#comingAgain?.catch(() => {})
    await this.#node.stop()
  }

  /** Any bytes, as gossip. */
  async publish(bytes: Uint8Array): Promise<void> {
    await this.#node.services.pubsub.publish(LOAD_TOPIC, bytes)
  }

  /** A load of this peer that somebody else has signed, straight to the agent `to`. */
  publishForged(to: string, data: Uint8Array): void {
    const pubsub = this.#node.services.pubsub as unknown as {
      sendRpc(to: string, rpc: { subscriptions: []; messages: object[] }): boolean
    }
    const from = this.#node.peerId.toMultihash().bytes
    const [seqno, signature] = [randomBytes(8), randomBytes(64)]
    pubsub.sendRpc(to, { subscriptions: [], messages: [{ from, data, seqno, topic: LOAD_TOPIC, signature }] })
  }

  /** One more connection, beside those that there are. */
  async connectAgain(): Promise<void> {
    await this.#node.dial(multiaddr(this.#address), { force: true })
  }

  /** One at a time, whoever asks: each may start a node. */
  #openAgain(): Promise<void> {
    this.#comingAgain ??= this.#comeAgain().finally(() => {
      this.#comingAgain = undefined
    })
    return this.#comingAgain
  }

  /** Comes as somebody else where it is shut out. */
  async #comeAgain(): Promise<void> {
    await sleep(REOPEN_MS)
    if (this.#stopped) return
    try {
      await this.open()
    } catch {
      await this.#node.stop()
      this.#node = await this.#again()
      await this.open()
    }
  }

  async #read(frames: LengthPrefixedStream<Stream>): Promise<void> {
    try {
      for (;;) {
        const decoded = decodeMessage((await frames.read()).subarray())
        if (decoded.kind === 'ok') this.received.push(decoded.message)
      }
    } catch {
      // The stream has ended.
    }
  }
}

async function identityBelow(peer: string): Promise<PrivateKey> {
  for (;;) {
    const identity = await generateKeyPair('Ed25519')
    if (peerIdFromPrivateKey(identity).toString() < peer) return identity
  }
}
