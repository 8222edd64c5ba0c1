/** How a client tells a pager that is gone from one that only does not answer. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { PagerClient } from '../../kmod/pager-client.js'

const TIMEOUT_MS = 30_000
/** Room for one connection that nobody accepts; the kernel lets in one more than it is asked for. */
const BACKLOG = 1
const LISTENS = `require('node:net').createServer().listen({ path: process.argv[1], backlog: ${BACKLOG} }, () => {
  require('node:fs').writeSync(1, 'ready')
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
})`

test('a pager whose queue of connections is full is busy, and one that nobody listens for is gone', async t => {
  t.timeout(TIMEOUT_MS)
  const directory = mkdtempSync(join(tmpdir(), 'el-'))
  const path = join(directory, 'pager.sock')
  const pager = spawn(process.execPath, ['-e', LISTENS, path], { stdio: ['ignore', 'pipe', 'inherit'] })
  const waiting: Socket[] = []
  try {
    await once(pager.stdout, 'data')
    for (let i = 0; i <= BACKLOG; i++) {
      const socket = connect(path).on('error', () => {}) // reset at the pager's end
      waiting.push(socket)
      await once(socket, 'connect')
    }
    const busy = await t.throwsAsync(PagerClient.connect(path, 'observer'))
    t.like(busy, { code: 'timeout', message: 'the pager is busy' })
    const exited = once(pager, 'exit')
    pager.kill('SIGKILL')
    await exited
    t.like(await t.throwsAsync(PagerClient.connect(path, 'observer')), { code: 'gone' })
  } finally {
    for (const socket of waiting) socket.destroy()
    pager.kill('SIGKILL')
    rmSync(directory, { recursive: true, force: true })
  }
})
