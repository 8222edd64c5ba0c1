/**
 * The one stream between this agent and each other one, from its hello to its end; and what is done when a second stream
 * of the same peer says hello.
 *
 * Who joins is told of the others that are known here, and dials them: one peer that is given leads to all.
 *
 * The instance number of a second stream tells what it is. The same one: the peer has opened a new stream, the old one is
 * given up, and if that was on another connection, all of them. Another one: the peer was started again, or two agents
 * have one identity. The first stream is kept, the second one waits, and both agents are asked for a signed claim that
 * names the other (twins.ts), which is passed on: who started later ends by itself. An agent that is gone answers
 * nothing: its connections are ended, and the other one is the first when it dials again.
 *
 * Limits: one that waits for each peer; 2 s for the first one's claim; who waits for 10 s is sent away.
 */

import type { Connection, Stream } from '@libp2p/interface'
import type { Load } from '../machines/membership.js'
import type { PeerId } from '../machines/types.js'
import type { Logger } from '../service.js'
import { toEndpoint } from './address.js'
import { KNOWN_MAX, type PeerMessage } from './messages.js'
import { PeerStream } from './peer-stream.js'
import type { NetworkEvent } from './port.js'
import type { Twins } from './twins.js'

const CLAIM_MS = 2_000
const WAITING_MS_MAX = 10_000

export interface SessionsPort {
  readonly self: PeerId
  readonly twins: Twins
  readonly log: Logger
  /** What to say of this agent in a hello. */
  load(): Load
  emit(event: NetworkEvent): void
  /** An agent that `peer` knows, and where. */
  onKnown(peer: PeerId, addresses: readonly string[]): void
  /** Whether one more of these of `peer` is within bounds. */
  takes(what: 'messages' | 'introductionsHeard' | 'introductionsSaid', peer: PeerId): boolean
  /** `peer`, at `host`, has sent what no agent sends; its stream is about to end. */
  onOffence(peer: PeerId, host: string, offence: 'malformed' | 'flood'): void
  /** Ends all streams and connections of `peer`, which dials again: gossip, too, keeps to the oldest connection. */
  reset(peer: PeerId, reason: string): void
  /** The stream to `peer` has ended. */
  onEnded(peer: PeerId): void
}

interface Session {
  readonly peer: PeerId
  readonly host: string
  readonly stream: PeerStream
  readonly connection: Connection
  /** Whether the agent with the smaller peer id has opened it. */
  readonly bySmaller: boolean
  hello: { readonly instance: string; readonly load: Load } | undefined
  joined: boolean
  flooded: boolean
  introduced: boolean
}

interface Waiting {
  readonly session: Session
  timer: NodeJS.Timeout
  /** Whether the first one has shown that it is there. */
  claimed: boolean
}

export class Sessions {
  readonly #port: SessionsPort
  readonly #current = new Map<PeerId, Session>()
  readonly #waiting = new Map<PeerId, Waiting>()

  constructor(port: SessionsPort) {
    this.#port = port
  }

  get size(): number {
    return this.#current.size
  }

  has(peer: PeerId): boolean {
    return this.#current.has(peer)
  }

  /** What `peer` has said of itself last, if it has joined. */
  loadOf(peer: PeerId): Load | undefined {
    const session = this.#current.get(peer)
    return session?.joined === true ? session.hello?.load : undefined
  }

  send(peer: PeerId, message: PeerMessage): boolean {
    const session = this.#current.get(peer)
    return session?.joined === true && session.stream.send(message)
  }

  abort(peer: PeerId, reason: string): void {
    this.#waiting.get(peer)?.session.stream.abort(reason)
    this.#current.get(peer)?.stream.abort(reason)
  }

  async close(timeoutMs: number): Promise<void> {
    for (const { session } of [...this.#waiting.values()]) session.stream.abort('closed here')
    await Promise.all([...this.#current.values()].map(session => session.stream.close(timeoutMs)))
  }

  /** Begins a session on a stream that is open. */
  adopt(peer: PeerId, stream: Stream, connection: Connection): void {
    const session: Session = {
      peer,
      connection,
      host: toEndpoint(connection.remoteAddr)?.host ?? '',
      bySmaller: (stream.direction === 'outbound') === this.#port.self < peer,
      hello: undefined,
      joined: false,
      flooded: false,
      introduced: false,
      stream: new PeerStream(stream, {
        onMessage: message => this.#onMessage(session, message),
        onClose: (reason, refused) => this.#onClosed(session, reason, refused),
      }),
    }
    if (!this.#current.has(peer)) this.#current.set(peer, session)
    session.stream.send({ kind: 'hello', instance: this.#port.twins.instance, load: this.#port.load() })
  }

  #onMessage(session: Session, message: PeerMessage): void {
    const { peer } = session
    if (!this.#port.takes('messages', peer)) {
      session.flooded = true
      session.stream.refuse('too many messages')
      return
    }
    switch (message.kind) {
      case 'hello':
        this.#onHello(session, message.instance, message.load)
        return
      case 'known':
        // It costs a dial each.
        if (session.introduced || !this.#port.takes('introductionsHeard', peer)) return
        session.introduced = true
        for (const each of message.agents) this.#port.onKnown(each.peer, each.addresses)
        return
      case 'twin-seen':
        void this.#port.twins
          .claim(message.instance)
          .then(claim => session.stream.send({ kind: 'twin-claim', claim }))
        return
      case 'twin-claim':
        this.#onClaim(session, message.claim)
        return
      case 'twin-told':
        void this.#port.twins.hear(message.claim, message.addresses)
        return
      default:
        if (session.joined) this.#port.emit({ kind: 'message', peer, message })
    }
  }

  #onHello(session: Session, instance: string, load: Load): void {
    const { peer } = session
    if (session.joined) {
      this.#port.emit({ kind: 'load', peer, load })
      return
    }
    session.hello = { instance, load }
    const current = this.#current.get(peer)
    if (current === undefined || current === session) {
      this.#join(session, load)
    } else if (current.hello === undefined || current.hello.instance === instance) {
      // Opened from both sides at once on one connection: both keep the same one.
      const crossed = current.connection === session.connection && current.bySmaller !== session.bySmaller
      if (crossed && current.bySmaller) {
        session.stream.abort('there is a stream already')
        return
      }
      if (current.joined && current.connection !== session.connection) {
        this.#port.reset(peer, 'the peer has left this connection')
        return
      }
      current.stream.abort('replaced by a new stream')
      this.#join(session, load)
    } else {
      this.#wait(current, current.hello.instance, session, instance)
    }
  }

  #join(session: Session, load: Load): void {
    const { peer, host } = session
    this.#current.set(peer, session)
    session.joined = true
    const agents = [...this.#current.values()].flatMap(one =>
      one === session || !one.joined || one.hello === undefined
        ? []
        : [{ peer: one.peer, addresses: one.hello.load.addresses }],
    )
    if (agents.length > 0 && this.#port.takes('introductionsSaid', peer))
      session.stream.send({ kind: 'known', agents: agents.slice(-KNOWN_MAX) })
    this.#port.emit({ kind: 'joined', peer, load, host })
  }

  /** What `peer` says of itself by now. */
  heard(peer: PeerId, load: Load): void {
    const session = this.#current.get(peer)
    if (session?.hello?.load.incarnation === load.incarnation) session.hello = { ...session.hello, load }
  }

  #wait(current: Session, first: string, session: Session, second: string): void {
    const { peer } = session
    if (this.#waiting.has(peer)) {
      session.stream.abort('another agent of this identity waits already')
      return
    }
    const timer = setTimeout(() => this.#onSilence(peer), CLAIM_MS)
    this.#waiting.set(peer, { session, timer: timer.unref(), claimed: false })
    current.stream.send({ kind: 'twin-seen', instance: second })
    session.stream.send({ kind: 'twin-seen', instance: first })
  }

  /** The first one has had time to show that it is there. */
  #onSilence(peer: PeerId): void {
    const waiting = this.#waiting.get(peer)
    if (waiting?.claimed !== true) {
      this.#port.reset(peer, 'silent while another agent with its identity is there')
      return
    }
    const { stream } = waiting.session
    const timer = setTimeout(() => stream.abort('another agent has this identity'), WAITING_MS_MAX)
    waiting.timer = timer.unref()
  }

  /** Of two agents with one identity one shows that it is there: the other is told. */
  #onClaim(session: Session, claim: Uint8Array<ArrayBuffer>): void {
    const waiting = this.#waiting.get(session.peer)
    const current = this.#current.get(session.peer)
    if (waiting === undefined || current === undefined) return
    if (session === current) waiting.claimed = true
    const other = session === current ? waiting.session : current
    const { addresses = [] } = session.hello?.load ?? {}
    other.stream.send({
      kind: 'twin-told',
      claim,
      addresses: addresses.length > 0 ? addresses : [session.host],
    })
  }

  #onClosed(session: Session, reason: string, refused: boolean): void {
    const { peer } = session
    if (this.#current.get(peer) === session) this.#current.delete(peer)
    const waiting = this.#waiting.get(peer)
    if (waiting?.session === session) {
      clearTimeout(waiting.timer)
      this.#waiting.delete(peer)
    }
    const text = `stream to ${peer} ended: ${reason}`
    if (refused) this.#port.log.warn(text)
    else this.#port.log.debug(text)
    if (session.joined) this.#port.emit({ kind: 'lost', peer })
    if (refused) this.#port.onOffence(peer, session.host, session.flooded ? 'flood' : 'malformed')
    if (session.joined && waiting !== undefined) this.#port.reset(peer, 'who was here before is gone')
    this.#port.onEnded(peer)
  }
}
