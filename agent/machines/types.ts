/**
 * Names and values the agent's state machines share. The machines are pure: they take events with the time they
 * happened (ms, any monotonic origin) and return effects; agent/executor carries these out.
 */

declare const peerBrand: unique symbol
/** A libp2p peer id in its base58 text. */
export type PeerId = string & { readonly [peerBrand]: 'PeerId' }

declare const processBrand: unique symbol
/** An elastic process: 16 lower-case hex digits. */
export type ProcessId = string & { readonly [processBrand]: 'ProcessId' }

export const PROCESS_ID_PATTERN = /^[0-9a-f]{16}$/
/** Base58 of an identity or sha2-256 multihash; longest in use is 53 characters. */
export const PEER_ID_PATTERN = /^[1-9A-HJ-NP-Za-km-z]{32,64}$/
/** Node names are printed on terminals: nothing but letters, digits, dot, dash, underscore. */
export const NODE_NAME_PATTERN = /^[A-Za-z0-9._-]{1,64}$/

/** Checks and brands a process id; undefined when it is none. */
export function toProcessId(text: string): ProcessId | undefined {
  return PROCESS_ID_PATTERN.test(text) ? (text as ProcessId) : undefined
}

/** Checks and brands a peer id; undefined when it is none. */
export function toPeerId(text: string): PeerId | undefined {
  return PEER_ID_PATTERN.test(text) ? (text as PeerId) : undefined
}

/** Why a lender refuses an offer: closed, so that the home side decides for each what to do next. */
export type RefusalCode =
  | 'full'
  | 'incompatible'
  | 'not-allowed'
  | 'shutting-down'
  | 'stale-epoch'
  | 'too-many-processes'
  | 'already-participant'
  | 'lane-failed'
  | 'pager-failed'
  | 'timeout'

/** `detail` is for people: one line, at most 200 characters, "" where the code says it all. */
export interface Refusal {
  readonly code: RefusalCode
  readonly detail: string
}

/** A refusal as one line. */
export function refusalText(refusal: Refusal): string {
  return refusal.detail === '' ? refusal.code : `${refusal.code}: ${refusal.detail}`
}

/** What a lease allows: pages pushed here, threads run here, for `ttlMs` unless the pagers renew it. */
export interface LeaseTerms {
  readonly pages: number
  readonly threads: number
  readonly ttlMs: number
}

/** Time a lease lasts without renewal; the pagers renew over the lane several times within it. */
export const LEASE_TTL_MS = 10_000
/** Nodes of one elastic process, home included; node indexes are below it. */
export const NODES_MAX = 64

/** What two machines must have in common (the pager's `facts`). */
export interface CompatibilityFacts {
  readonly protocolVersion: number
  readonly pageSize: number
  readonly arch: string
  readonly kernel: string
  readonly cpuVendor: string
  readonly cpuFeatures: readonly string[]
  /** XCR0 as "0x…": the register state the machine's kernel has switched on. */
  readonly xcr0: string
}
