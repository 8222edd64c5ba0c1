/**
 * The one error of the control socket, on both of its sides.
 */

export type ControlErrorCode =
  /** No agent listens there. */
  | 'absent'
  /** A live agent already listens there. */
  | 'in-use'
  | 'no-permission'
  | 'malformed'
  | 'timeout'
  | 'gone'
  /** The agent answered, and said no. */
  | 'refused'
  | 'path-too-long'

/** What is said when the control socket closes under a request. */
export const AGENT_GONE = 'the agent has ended; start it again with `elasticos agent`'

/** The control socket cannot be used; the message says why and what to do. */
export class ControlError extends Error {
  constructor(
    readonly code: ControlErrorCode,
    message: string,
    options?: { cause?: unknown },
  ) {
    super(message, options)
    this.name = 'ControlError'
  }
}
