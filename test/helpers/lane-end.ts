/**
 * The other end of a lane, in TypeScript: speaks TLS 1.3 with a lane key as a pager does, and then says what the test
 * wants, right or wrong. It dials, as home and later participants do: node:tls would send session tickets where it
 * listens, which no pager takes.
 */

import { once } from 'node:events'
import { connect, type TLSSocket } from 'node:tls'
import {
  encodeHeader,
  encodeHello,
  type FrameHeader,
  FrameType,
  PROTOCOL_VERSION,
  WIRE_MAGIC,
} from '../../kmod/lane-frames.js'

const TLS = {
  minVersion: 'TLSv1.3',
  maxVersion: 'TLSv1.3',
  ciphers: 'TLS_AES_128_GCM_SHA256',
  ecdhCurve: 'X25519',
} as const

/** One connection, urgent or bulk. */
export class LaneEnd {
  #sequence = 0n

  constructor(readonly socket: TLSSocket) {
    socket.on('error', () => {})
    socket.resume()
  }

  /** A frame as it should be, but for what `header` says otherwise. */
  frame(type: number, payload: Uint8Array = new Uint8Array(), header: Partial<FrameHeader> = {}): Uint8Array {
    this.#sequence++
    const whole: FrameHeader = {
      magic: WIRE_MAGIC,
      type,
      flags: 0,
      payloadBytes: payload.length,
      epoch: 1,
      image: 1,
      count: 0,
      sequence: this.#sequence,
      ack: 0n,
      page: 0n,
      version: 0n,
      lastWrittenCut: 0,
      argument: 0,
      ...header,
    }
    return new Uint8Array(Buffer.concat([encodeHeader(whole), payload]))
  }

  send(...args: Parameters<LaneEnd['frame']>): void {
    this.write(this.frame(...args))
  }

  write(bytes: Uint8Array): void {
    this.socket.write(bytes)
  }

  hello(node: number, laneKind: number, processId: bigint, leaseId: bigint): void {
    this.send(
      FrameType.hello,
      encodeHello({ protocol: PROTOCOL_VERSION, node, laneKind, processId, leaseId }),
    )
  }
}

/** Dials a pager's lane port. */
export async function dialLane(port: number, leaseId: number, key: Uint8Array): Promise<LaneEnd> {
  const socket = connect({
    host: '127.0.0.1',
    port,
    ...TLS,
    pskCallback: () => ({ psk: key, identity: String(leaseId) }),
    checkServerIdentity: () => undefined,
  })
  const end = new LaneEnd(socket)
  await once(socket, 'secureConnect')
  return end
}
