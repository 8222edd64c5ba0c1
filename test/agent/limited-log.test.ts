/** What peers cause to be logged has a limit for each minute; errors have none. */

import test from 'ava'
import { LINES_MAX, limitedLog } from '../../agent/limited-log.js'

test('so many lines a minute, then one that says so, and again in the next one', t => {
  const written: string[] = []
  const write = (text: string) => written.push(text)
  let now = 0
  const log = limitedLog({ error: write, warn: write, info: write, debug: write }, () => now)
  for (let i = 0; i < 2 * LINES_MAX; i++) i % 2 === 0 ? log.info('said') : log.warn('said')
  t.is(written.length, LINES_MAX + 1)
  t.regex(written.at(-1) ?? '', /left out/)
  log.error('an error')
  t.is(written.at(-1), 'an error')
  now = 60_000
  log.info('later')
  t.is(written.at(-1), 'later')
  t.is(written.length, LINES_MAX + 3)
})
