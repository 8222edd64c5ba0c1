/**
 * The agent's log in its two formats: one line for each message, whatever is in it, from the wanted level on.
 */

import { spawnSync } from 'node:child_process'
import test from 'ava'

const MODULE = new URL('../../agent/cli/agent-log.js', import.meta.url).href

function logged(format: string, level: string): string[] {
  const code = `
    const { stderrLogger } = await import('${MODULE}')
    const log = stderrLogger('tower', '${format}', '${level}')
    for (const of of ['error', 'warn', 'info', 'debug']) log[of](of + ' a\\nb\\u001b[31m')`
  const { stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', code], { encoding: 'utf8' })
  return stderr.split('\n').slice(0, -1)
}

test('text', t => {
  const time = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z /
  const lines = logged('text', 'info')
  t.true(lines.every(line => time.test(line)))
  t.deepEqual(
    lines.map(line => line.replace(time, '')),
    ['error error a\\x0ab\\x1b[31m', 'warn  warn a\\x0ab\\x1b[31m', 'info  info a\\x0ab\\x1b[31m'],
  )
  t.is(logged('text', 'debug').length, 4)
})

test('json', t => {
  const lines = logged('json', 'warn').map(line => JSON.parse(line))
  t.deepEqual(
    lines.map(({ name, msg }) => [name, msg]),
    [
      ['tower', 'error a\\x0ab\\x1b[31m'],
      ['tower', 'warn a\\x0ab\\x1b[31m'],
    ],
  )
  t.is(logged('json', 'error').length, 1)
})
