/**
 * Two real pagers that were given different lane keys, driven by their own control protocol: the lane is refused,
 * counted and logged; neither pager takes harm, and the right key then works on the same pagers.
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { PagerClient } from '../../kmod/pager-client.js'
import type { PagerEvent } from '../../kmod/pager-messages.js'
import { until } from '../helpers/cluster.js'
import { PAGER } from '../helpers/native.js'

const ID = '00112233aabbccdd'
const LANE_KEY_BYTES = 32
const LEASE_PAGES = 4096
const LEASE_TTL_MS = 10_000

interface Started {
  readonly child: ChildProcess
  readonly client: PagerClient
  readonly events: PagerEvent[]
}

async function start(
  directory: string,
  mode: 'home' | 'peer',
  args: readonly string[],
  tail: readonly string[],
): Promise<Started> {
  const socket = join(directory, `${mode}.sock`)
  const spill = join(directory, mode)
  mkdirSync(spill)
  const all = [
    mode,
    '--id',
    ID,
    '--socket',
    socket,
    '--spill-dir',
    spill,
    '--memory-pages',
    '4096',
    ...args,
    ...tail,
  ]
  const child = spawn(PAGER, all, { stdio: ['ignore', 'pipe', 'inherit'] })
  let client: PagerClient | undefined
  await until(`the ${mode} pager`, async () => {
    client = await PagerClient.connect(socket, 'agent').catch(() => undefined)
    return client !== undefined
  })
  if (client === undefined) throw new Error('unreachable')
  const events: PagerEvent[] = []
  client.on(event => events.push(event))
  return { child, client, events }
}

test('two pagers with different lane keys refuse each other, and work with the same one', async t => {
  const directory = mkdtempSync('/tmp/el-lane-')
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  const peer = await start(directory, 'peer', ['--node', '1', '--name', 'b', '--listen', '127.0.0.1'], [])
  t.teardown(() => peer.child.kill('SIGKILL'))
  const home = await start(directory, 'home', ['--name', 'a'], ['--', 'sh', '-c', 'sleep 4; echo right'])
  t.teardown(() => home.child.kill('SIGKILL'))
  let said = ''
  home.child.stdout?.on('data', chunk => {
    said += chunk
  })
  const lane = (leaseId: number, toPeer: Uint8Array, toHome: Uint8Array) => {
    const terms = { leaseId, pagesMax: LEASE_PAGES, threadsMax: 4, ttlMs: LEASE_TTL_MS, peerId: 'x' }
    peer.client.send({ kind: 'lane', ...terms, node: 0, nodeName: 'a', host: '', port: 0, laneKey: toPeer })
    const port = peer.client.describe.lanePort
    home.client.send({
      kind: 'lane',
      ...terms,
      node: 1,
      nodeName: 'b',
      host: '127.0.0.1',
      port,
      laneKey: toHome,
    })
  }
  const key = () => Uint8Array.from(randomBytes(LANE_KEY_BYTES))

  lane(1, key(), key())
  await until('the lane is down', () => home.events.some(event => event.kind === 'lane-down'))
  const refused = async () => Number((await peer.client.requestStats()).framesRefused ?? 0)
  await until('the refusal is counted', async () => (await refused()) > 0)
  await until('the refusal is logged', () =>
    peer.events.some(event => event.kind === 'log' && /^refused: /.test(event.text)),
  )
  t.false(home.events.some(event => event.kind === 'lane-up'))
  t.false(home.events.some(event => event.kind === 'log' && /^refused: /.test(event.text)))
  t.false(peer.events.some(event => event.kind === 'lane-up'))

  const same = key()
  lane(2, same, same)
  await until('the lane is up', () => home.events.some(event => event.kind === 'lane-up'))
  const [status] = await once(home.child, 'exit')
  t.is(status, 0)
  t.is(said, 'right\n')
  const [peerStatus] = peer.child.exitCode === null ? await once(peer.child, 'exit') : [peer.child.exitCode]
  t.is(peerStatus, 0)
})
