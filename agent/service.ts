/**
 * What an agent offers to the rest of its process: the control socket, the command line and an agent inside `run`
 * all talk to these interfaces and never to the network or the pagers behind them.
 *
 * Limits: the lists are snapshots; `processes` asks every pager and so takes up to a second when one does not answer.
 */

/** Where an agent writes what it does: one line of plain text per call. */
export interface Logger {
  error(text: string): void
  warn(text: string): void
  info(text: string): void
  debug(text: string): void
}

/** One agent as this agent sees it. `freePages` and `capacityPages` are pages it lends to others. */
export interface NodeInfo {
  name: string
  peerId: string
  addresses: string[]
  self: boolean
  state: 'joined' | 'suspected' | 'seen-not-joined'
  freePages: number
  capacityPages: number
  cpus: number
  processes: number
  /** To it and back, once that was measured. */
  rttMs?: number
  /** What to do about a node that is seen but has not joined. */
  remedy?: string
}

/** One elastic process this node takes part in. */
export interface ProcessInfo {
  id: string
  program: string
  role: 'home' | 'participant'
  /** Name of the home node. */
  home: string
  /** Of the pager. */
  pid: number
  residentPages: number
  /** Names of the nodes it is stretched over, as far as this node knows. */
  participants: string[]
  stats?: Record<string, unknown>
}

/** A home pager that wants participants. */
export interface HomeAttachment {
  id: string
  pagerSocket: string
  program: string
  /** Home included. */
  participantsMax: number
  memoryPages: number
  /** The limit follows what the machine has to spare: nobody has named one. */
  memoryFollows?: boolean | undefined
  uid: number
}

/** A machine that has a lease of an elastic process, or is asked for one. */
export interface LeaseInfo {
  node: string
  peerId: string
  state: 'offered' | 'granted' | 'up' | 'leaving'
  /** Pages that are there. */
  pages: number
}

/** What an agent has done since it started, and the leases there are now. */
export interface AgentCounts {
  messagesSent: number
  messagesReceived: number
  leasesGiven: number
  leasesTaken: number
  /** What other agents did that no honest one does, by kind. */
  offences: Readonly<Record<string, number>>
  /** How often one was shut out for it. */
  shutOuts: number
}

export interface AgentService {
  nodes(): NodeInfo[]
  counts(): AgentCounts
  processes(): Promise<ProcessInfo[]>
  /** Connects to the pager and starts offering leases. Rejects when the pager cannot be reached. */
  attachHome(home: HomeAttachment): Promise<void>
  /** Lanes that are up plus one for home; 0 for a process that is not attached. */
  participants(id: string): number
  /** Calls `listener` with each new count. Returns a function that ends this. */
  onParticipants(id: string, listener: (count: number) => void): () => void
  /** The last reason of each peer that refused, as "NODE: reason". */
  refusals(id: string): string[]
  /** Rejects, as the next two, when the process has not its home here. */
  leases(id: string): Promise<LeaseInfo[]>
  /**
   * Starts to bring back what `node` (its name or peer id; without one, every machine) holds of the process, after which
   * it takes part no more. Resolves to those that are let go; `leases` tells when they are gone.
   */
  contract(id: string, node: string | undefined): Promise<LeaseInfo[]>
  /** Asks `node` for a lease now and resolves to its name when it takes part; rejects, within seconds, with why not. */
  stretch(id: string, node: string): Promise<string>
  /** The process asks by itself whoever has room again, also those that were contracted. Rejects as those before. */
  automatic(id: string): Promise<void>
  /** Calls `listener`, the only one, when this agent cannot go on; it is then to be stopped. */
  onFailure(listener: (error: AgentError) => void): void
  /** Hands back what is held for others (at most 10 s), leaves the network, and lets its own pagers run on. */
  stop(): Promise<void>
}

export interface AgentOptions {
  name: string
  dataDir: string
  runtimeDir: string
  /** Multiaddrs, TCP over IPv4 or IPv6. */
  listen: string[]
  /** Multiaddrs of peers that are dialled until they answer, with or without /p2p/PEERID. */
  peers: string[]
  discovery: boolean
  keyFile: string
  /** Peer ids that may join; empty: whoever has the network key. */
  allow: string[]
  capacityPages: number
  /** Processor time that guests may use, in thousandths of one processor's. */
  processorThousandths: number
  spillMaxBytes: number
  log: Logger
}

export type AgentErrorCode =
  | 'already-running'
  | 'bad-address'
  | 'bad-key'
  | 'bad-name'
  | 'bad-peer-id'
  | 'cannot-listen'
  | 'key-mode'
  | 'no-pager'
  | 'refused'
  | 'same-identity'
  | 'too-many'

/** The environment does not let the agent do its work; the message says what is wrong and what to do. */
export class AgentError extends Error {
  constructor(
    readonly code: AgentErrorCode,
    message: string,
    options?: { cause?: unknown },
  ) {
    super(message, options)
    this.name = 'AgentError'
  }
}
