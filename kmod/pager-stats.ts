/**
 * The statistics a pager reports (field names as in `--stats`), checked when they come in.
 *
 * Only the form of known fields is checked; unknown ones are kept, so that a pager may report more than this file
 * knows. Limits: the text is at most one frame (1 MiB), at most 64 participants.
 */

const PARTICIPANTS_MAX = 64

/** What one participant contributed, as in `--stats`. */
export interface ParticipantStats {
  readonly node: string
  /** That are there now. */
  readonly pages?: number
  /** The same. */
  readonly threads?: number
  readonly peakPages: number
  readonly jumpsTo: number
  readonly threadsPeak: number
}

/** The statistics of `--stats` as the pager reports them; unknown fields are kept. Counts are non-negative. */
export interface PagerStats {
  readonly elasticProcessId?: string
  readonly mode?: 'stretched' | 'unstretched'
  readonly reason?: string
  readonly policy?: string
  readonly memoryLimitBytes?: number
  readonly residentPages?: number
  readonly peakResidentPages?: number
  readonly pagesTouched?: number
  readonly pulls?: number
  readonly pagesPulled?: number
  readonly pushes?: number
  readonly pagesPushed?: number
  readonly pagesSpilled?: number
  readonly jumps?: number
  readonly jumpsHome?: number
  readonly participants?: readonly ParticipantStats[]
  readonly [field: string]: unknown
}

const COUNT_FIELDS = [
  'memoryLimitBytes',
  'residentPages',
  'peakResidentPages',
  'pagesTouched',
  'pulls',
  'pagesPulled',
  'pushes',
  'pagesPushed',
  'pagesSpilled',
  'jumps',
  'jumpsHome',
] as const

function isObject(value: unknown): value is { readonly [field: string]: unknown } {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0
}

function isParticipant(value: unknown): value is ParticipantStats {
  return (
    isObject(value) &&
    typeof value.node === 'string' &&
    (value.pages === undefined || isCount(value.pages)) &&
    (value.threads === undefined || isCount(value.threads)) &&
    isCount(value.peakPages) &&
    isCount(value.jumpsTo) &&
    isCount(value.threadsPeak)
  )
}

/** The statistics in `json`, or what is wrong with them. */
export function parsePagerStats(json: string): PagerStats | string {
  let value: unknown
  try {
    value = JSON.parse(json)
  } catch {
    return 'not JSON'
  }
  if (!isObject(value)) return 'not an object'
  for (const field of COUNT_FIELDS) {
    if (value[field] !== undefined && !isCount(value[field])) return `${field} is no count`
  }
  for (const field of ['elasticProcessId', 'reason', 'policy']) {
    if (value[field] !== undefined && typeof value[field] !== 'string') return `${field} is no text`
  }
  const { mode, participants } = value
  if (mode !== undefined && mode !== 'stretched' && mode !== 'unstretched') return 'mode is unknown'
  if (participants !== undefined) {
    if (!Array.isArray(participants) || participants.length > PARTICIPANTS_MAX)
      return 'participants is no short list'
    if (!participants.every(isParticipant)) return 'a participant is malformed'
  }
  return value as PagerStats
}
