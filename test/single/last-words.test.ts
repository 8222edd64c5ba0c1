/**
 * What the pager says last is read also by a `run` that writes before it reads: a signal that goes to a whole process
 * group (`timeout`, ^C) ends the program, and `run` hands the same signal on when the pager has said so already. The
 * pager is started here directly, so that nothing is read before.
 */

import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import { FrameSplitter } from '../../kmod/pager-frame.js'
import { homePagerArguments, pagerPath } from '../../kmod/pager-host.js'
import { decodePagerEvent, encodePagerCommand, type PagerEvent } from '../../kmod/pager-messages.js'
import { until } from '../helpers/outcome.js'

/** A pager that waits for nobody has gone by then. */
const UNREAD_MS = 1000

const directory = mkdtempSync(join(tmpdir(), 'el-'))
test.after.always(() => rmSync(directory, { recursive: true, force: true }))

function eventsOf(bytes: Uint8Array): PagerEvent[] {
  const bodies = new FrameSplitter().push(bytes)
  if (bodies.kind === 'malformed') throw new Error(bodies.reason)
  return bodies.message.flatMap(body => {
    const event = decodePagerEvent(body)
    return event.kind === 'ok' ? [event.message] : []
  })
}

test('what is written to a pager after its last words takes nothing of them', async t => {
  const spillDir = join(directory, 'spill')
  const mark = join(directory, 'mark')
  mkdirSync(spillDir)
  const args = homePagerArguments({
    id: randomBytes(8).toString('hex'),
    socketPath: join(directory, 'home.sock'),
    memoryPages: 1024,
    spillDir,
    spillMaxBytes: 1 << 26,
    policy: 'always-pull',
    jumpEvery: 0,
    nodeName: 'home',
    command: ['sh', '-c', `: > ${mark}; exit 7`],
  })
  const child = spawn(pagerPath(), args, { stdio: ['ignore', 'ignore', 'ignore', 'pipe'] })
  const exited = once(child, 'exit')
  t.teardown(() => child.kill('SIGKILL'))
  const channel = child.stdio[3] as Readable as Socket
  channel.write(encodePagerCommand({ kind: 'hello', role: 'run' }))
  channel.write(encodePagerCommand({ kind: 'start' }))
  await until('the end of the program', () => existsSync(mark))
  await sleep(UNREAD_MS)
  channel.write(encodePagerCommand({ kind: 'signal', signal: 15 }))
  const chunks: Buffer[] = []
  for await (const chunk of channel) chunks.push(chunk as Buffer)
  const last = eventsOf(Buffer.concat(chunks)).at(-1)
  t.like(last, { kind: 'exited', how: 'exit', code: 7 })
  t.deepEqual(await exited, [7, null])
})
