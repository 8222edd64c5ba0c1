/**
 * What comes back over the control socket: lines, their envelope, and the answer to `hello`. Checked by hand, because
 * `run` needs this much before it can start its program and loading the schemas of messages.ts takes 110 ms.
 */

/** Largest line in characters, newline not counted. */
export const LINE_CHARACTERS_MAX = 1 << 20
const TEXT_CHARACTERS_MAX = 4096

/** Who the agent is, and the directories `run` shares with it so that a restarted agent finds the pager again. */
export interface AgentHello {
  readonly name: string
  readonly version: string
  readonly pid: number
  readonly dataDir: string
  readonly runtimeDir: string
  readonly spillMaxBytes: number
}

/** A line from the agent: an answer, a refusal with its reason, or news about a watched process. */
export type ControlReply =
  | { readonly n: number; readonly answer: unknown }
  | { readonly n: number; readonly refused: string }
  | { readonly event: 'participants'; readonly processId: string; readonly count: number }

export function encodeLine(message: object): string {
  return `${JSON.stringify(message)}\n`
}

type Unchecked<T> = { readonly [Field in keyof T]?: unknown }

function fieldsOf<T>(value: unknown): Unchecked<T> {
  return typeof value === 'object' && value !== null ? (value as Unchecked<T>) : {}
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value.length <= TEXT_CHARACTERS_MAX
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0
}

/** The reply in a line, or undefined when it is none. */
export function decodeReply(line: string): ControlReply | undefined {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch {
    return undefined
  }
  const { n, answer, refused } = fieldsOf<{ n: number; answer: unknown; refused: string }>(value)
  if (isCount(n)) {
    if (isText(refused)) return { n, refused }
    return answer === undefined ? undefined : { n, answer }
  }
  const { event, processId, count } = fieldsOf<{ event: string; processId: string; count: number }>(value)
  if (event !== 'participants' || !isText(processId) || !isCount(count)) return undefined
  return { event, processId, count }
}

/** The answer to `hello`, or undefined when it is none. */
export function readHello(value: unknown): AgentHello | undefined {
  const { name, version, pid, dataDir, runtimeDir, spillMaxBytes } = fieldsOf<AgentHello>(value)
  const good = [name, version, dataDir, runtimeDir].every(isText) && [pid, spillMaxBytes].every(isCount)
  return good ? (value as AgentHello) : undefined
}

/** Cuts a text stream into lines. Holds at most one unfinished line. */
export class LineSplitter {
  #pending = ''

  /** The lines completed by `chunk`; undefined once a line is longer than the bound. */
  push(chunk: string): string[] | undefined {
    const lines = (this.#pending + chunk).split('\n')
    this.#pending = lines.pop() ?? ''
    const tooLong = [...lines, this.#pending].some(line => line.length > LINE_CHARACTERS_MAX)
    return tooLong ? undefined : lines
  }
}
