/**
 * The agent's log on standard error: JSON, one object a line, or plain text for people and journals. Keys and lane keys
 * never get into it.
 */

import { pino } from 'pino'
import type { Logger } from '../service.js'
import { printable, writeStderr } from './output.js'

export const LOG_FORMATS = ['json', 'text'] as const
export type LogFormat = (typeof LOG_FORMATS)[number]
/** Each with those before it. */
export const LOG_LEVELS = ['error', 'warn', 'info', 'debug'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

export function stderrLogger(name: string, format: LogFormat, level: LogLevel): Logger {
  const write = format === 'json' ? jsonWriter(name, level) : textWriter(level)
  return {
    error: text => write('error', printable(text)),
    warn: text => write('warn', printable(text)),
    info: text => write('info', printable(text)),
    debug: text => write('debug', printable(text)),
  }
}

type Write = (level: LogLevel, text: string) => void

function jsonWriter(name: string, level: LogLevel): Write {
  const log = pino({ name, level }, pino.destination({ fd: 2, sync: true }))
  return (of, text) => log[of](text)
}

function textWriter(level: LogLevel): Write {
  return (of, text) => {
    if (LOG_LEVELS.indexOf(of) > LOG_LEVELS.indexOf(level)) return
    writeStderr(`${new Date().toISOString()} ${of.padEnd(5)} ${text}\n`)
  }
}
