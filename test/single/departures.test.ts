/**
 * Participants that come and go, more of them than a process may have at a time: the program runs on, and the
 * statistics name each once. Pagers are started here directly, as agents would; nothing is pushed to them.
 */

import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import test from 'ava'
import { PagerClient } from '../../kmod/pager-client.js'
import { homePagerArguments, pagerPath } from '../../kmod/pager-host.js'
import type { PagerEvent } from '../../kmod/pager-messages.js'
import { until } from '../helpers/outcome.js'

const TIMEOUT_MS = 120_000
const SPILL_BYTES_MAX = 1 << 26
const PAGES = 1024
const NODES_MAX = 64

const directory = mkdtempSync(join(tmpdir(), 'el-'))
const spillDir = join(directory, 'spill')
const id = randomBytes(8).toString('hex')
mkdirSync(spillDir)
test.after.always(() => rmSync(directory, { recursive: true, force: true }))

/** Joins as node `node` and, as soon as the lane is up, is gone without a word. */
async function visit(home: PagerClient, node: number, nodeName: string): Promise<void> {
  const socket = join(directory, `${node}.sock`)
  const args = ['peer', '--id', id, '--socket', socket, '--node', String(node), '--name', nodeName]
  args.push('--listen', '127.0.0.1', '--memory-pages', String(PAGES))
  args.push('--spill-dir', spillDir, '--spill-max-bytes', String(SPILL_BYTES_MAX))
  const child = spawn(pagerPath(), args, { stdio: 'ignore' })
  const exited = once(child, 'exit')
  const seen = new Set<PagerEvent['kind']>()
  const off = home.on(event => {
    if ((event.kind === 'lane-up' || event.kind === 'lane-down') && event.node === node) seen.add(event.kind)
  })
  try {
    let peer: PagerClient | undefined
    await until('the peer pager', async () => {
      peer = await PagerClient.connect(socket, 'agent').catch(() => undefined)
      return peer !== undefined
    })
    if (peer === undefined) throw new Error('no peer pager')
    const laneKey = new Uint8Array(randomBytes(32))
    const terms = { leaseId: node, pagesMax: PAGES, threadsMax: 1, ttlMs: 60_000, host: '127.0.0.1' }
    const lane = { kind: 'lane', ...terms, laneKey, peerId: 'test' } as const
    peer.send({ ...lane, node: 0, port: 0, nodeName: 'home' })
    home.send({ ...lane, node, port: peer.describe.lanePort, nodeName })
    await until(`a lane to ${nodeName}`, () => seen.has('lane-up'))
    child.kill('SIGKILL')
    await until(`the end of the lane to ${nodeName}`, () => seen.has('lane-down'))
    peer.close()
  } finally {
    child.kill('SIGKILL')
    await exited
    off()
  }
}

test('more participants than there may be at a time come and go', async t => {
  t.timeout(TIMEOUT_MS)
  const args = homePagerArguments({
    id,
    socketPath: join(directory, 'home.sock'),
    memoryPages: PAGES,
    spillDir,
    spillMaxBytes: SPILL_BYTES_MAX,
    policy: 'always-pull',
    jumpEvery: 0,
    nodeName: 'home',
    command: ['sleep', '1000'],
  })
  const child = spawn(pagerPath(), args, { stdio: ['ignore', 'ignore', 'ignore', 'pipe'] })
  const exited = once(child, 'exit')
  try {
    const run = await PagerClient.over(child.stdio[3] as Readable as Socket, 'run')
    let lost = ''
    run.onClose(reason => {
      lost = reason
    })
    run.send({ kind: 'start' })
    for (let first = 0; first < NODES_MAX + 2 && lost === ''; first += 6) {
      const guests = [1, 2, 3, 4, 5, 6].map(node => visit(run, node, `guest-${first + node}`))
      await Promise.all([...guests, visit(run, 7, 'again')])
    }
    t.is(lost, '')
    const names = ((await run.requestStats()).participants ?? []).map(participant => participant.node)
    t.is(names.length, NODES_MAX)
    t.is(names[0], 'home')
    t.is(new Set(names).size, NODES_MAX)
    t.true(names.includes('again'))
    run.send({ kind: 'terminate', reason: 'enough' })
    await exited
  } finally {
    child.kill('SIGKILL')
    await exited
  }
})
