/** What every network of agents has in common, the simulated one included; needs nothing of libp2p. */

/** Of one agent. */
export const CONNECTIONS_MAX = 512
/** Both may dial at once, and old ones may linger. */
export const CONNECTIONS_PER_PEER_MAX = 4
/** Messages to one peer that wait to be sent; with one more the stream is given up. */
export const UNSENT_MAX = 256
/** In about this time a connection that has failed without a word is noticed: by the peer's silence in the gossip. */
export const PING_MS = 30_000

/** Said of an agent that has been seen and cannot join. */
export const REMEDY_OTHER_KEY =
  'it has another network key: run `elasticos key show` there and `elasticos key set` here (or the other way round)'

export function remedyNotAllowed(peer: string): string {
  return `it is not on the allow list here: add --allow ${peer}`
}
