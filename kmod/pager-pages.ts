/**
 * Where the pages of an elastic process are, as its home pager says it: one JSON object, checked when it comes in.
 *
 * In the text a range is four numbers: its first page, its pages, the place of its node in `nodes`, and 1 if it lies in
 * the spill file of home. Limits: 64 nodes, 4096 ranges.
 */

const NODES_MAX = 64
const RANGES_MAX = 4096

/** Pages of one node: `resident` and `spilled` at home, `remote` at another, `inFlight` on their way from there. */
export interface NodePages {
  readonly node: string
  readonly resident: number
  readonly spilled: number
  readonly remote: number
  readonly inFlight: number
}

/** Neighbouring pages that are at one node. */
export interface PageRange {
  /** Page number: address divided by 4096. */
  readonly first: number
  readonly pages: number
  /** Index of the node in `nodes`. */
  readonly place: number
  readonly spilled: boolean
}

export interface PageMap {
  readonly nodes: readonly NodePages[]
  /** The largest ones, by address. */
  readonly ranges: readonly PageRange[]
  /** Ranges that were too many, and their pages. */
  readonly leftOut: { readonly ranges: number; readonly pages: number }
}

type Unchecked = { readonly [field: string]: unknown }

function isObject(value: unknown): value is Unchecked {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function areCounts(...values: unknown[]): boolean {
  // Minus zero is none: it does not survive being written again.
  return values.every(value => Number.isSafeInteger(value) && Number(value) >= 0 && !Object.is(value, -0))
}

function isNode(value: unknown): boolean {
  if (!isObject(value) || typeof value.node !== 'string') return false
  return areCounts(value.resident, value.spilled, value.remote, value.inFlight)
}

function isRange(value: unknown, nodes: number): value is [number, number, number, number] {
  if (!Array.isArray(value) || value.length !== 4 || !areCounts(...value)) return false
  return value[2] < nodes && value[3] <= 1
}

/** The map in `json`, or what is wrong with it. */
export function parsePageMap(json: string): PageMap | string {
  let value: unknown
  try {
    value = JSON.parse(json)
  } catch {
    return 'not JSON'
  }
  if (!isObject(value)) return 'not an object'
  const { nodes, ranges, leftOut } = value
  if (!Array.isArray(nodes) || nodes.length > NODES_MAX || !nodes.every(isNode))
    return 'nodes is no list of nodes'
  if (!Array.isArray(ranges) || ranges.length > RANGES_MAX) return 'ranges is no short list'
  if (!ranges.every(range => isRange(range, nodes.length))) return 'a range is malformed'
  if (!isObject(leftOut) || !areCounts(leftOut.ranges, leftOut.pages)) return 'leftOut is malformed'
  return {
    nodes: nodes as NodePages[],
    ranges: ranges.map(([first, pages, place, spilled]) => ({ first, pages, place, spilled: spilled === 1 })),
    leftOut: leftOut as PageMap['leftOut'],
  }
}

/** As a pager writes it (for pagers written in TypeScript). */
export function pageMapText({ nodes, ranges, leftOut }: PageMap): string {
  const rows = ranges.map(({ first, pages, place, spilled }) => [first, pages, place, spilled ? 1 : 0])
  return JSON.stringify({ nodes, ranges: rows, leftOut })
}
