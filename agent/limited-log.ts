/**
 * A log that others cannot fill: of what peers and pagers cause to be said only so many lines a minute are written, and
 * that there are more is said once. Errors, which end an agent, and what is only for debugging always pass.
 */

import type { Logger } from './service.js'

/** Sixty runs that begin and end in a minute, on a machine that lends to all of them, say less. */
export const LINES_MAX = 300
const PERIOD_MS = 60_000

/** @param now monotonic ms */
export function limitedLog(log: Logger, now: () => number): Logger {
  let since = Number.NEGATIVE_INFINITY
  let lines = 0
  const say = (write: (text: string) => void) => (text: string) => {
    if (now() - since >= PERIOD_MS) {
      since = now()
      lines = 0
    }
    lines++
    if (lines <= LINES_MAX) write(text)
    if (lines === LINES_MAX + 1)
      log.warn('more happens than this log is to hold: the rest of this minute is left out')
  }
  return {
    error: text => log.error(text),
    warn: say(text => log.warn(text)),
    info: say(text => log.info(text)),
    debug: text => log.debug(text),
  }
}
