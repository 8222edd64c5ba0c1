/**
 * `HOST:PORT` as people write it for a service on this machine. Without a host it is this machine alone.
 */

import { isIP } from 'node:net'

const LOOPBACK = '127.0.0.1'
const PORT_MAX = 65535

export interface HostPort {
  readonly host: string
  /** 0: any that is free. */
  readonly port: number
}

/** `127.0.0.1:9420`, `[::1]:9420`, `0.0.0.0:9420` for every interface, `:9420`; undefined for anything else. */
export function parseHostPort(text: string): HostPort | undefined {
  const match = /^(\[[^\]]*\]|[^:[\]]*):(\d{1,5})$/.exec(text)
  const [, name = '', digits = ''] = match ?? []
  const bare = name.replace(/^\[|\]$/g, '')
  const host = bare === '' || bare === 'localhost' ? LOOPBACK : bare
  const isWritten = name.startsWith('[') ? isIP(host) === 6 : isIP(host) === 4
  return match === null || !isWritten || Number(digits) > PORT_MAX
    ? undefined
    : { host, port: Number(digits) }
}
