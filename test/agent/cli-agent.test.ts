/**
 * Commands that talk to an agent, around a fake one: what they print, how they fail, how long they wait.
 */

import { once } from 'node:events'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { ControlServer } from '../../agent/control/server.js'
import { ownLines, Sandbox } from './cli-harness.js'
import { FakeService, LEASE } from './fake-service.js'

const ID = '0123456789abcdef'

async function agent(t: ExecutionContext) {
  const box = new Sandbox()
  t.teardown(() => box.remove())
  const service = new FakeService()
  const hello = { name: 'n', version: '', pid: 1, dataDir: '/d', runtimeDir: '/r', spillMaxBytes: 5 }
  const server = await ControlServer.listen(join(box.directory, 'agent.sock'), hello, service)
  t.teardown(() => server.close())
  const cli = (...args: string[]) => box.elasticos([...args, '--control', 'agent.sock'])
  return { box, service, cli }
}

test('pages of a run without an agent', async t => {
  const box = new Sandbox()
  t.teardown(() => box.remove())
  const run = box.spawn(['run', '--participants', '1', '--', 'sh', '-c', 'echo up; exec sleep 100'])
  t.teardown(() => run.kill('SIGTERM'))
  await once(run.stdout ?? run, 'data')
  const [{ id }] = JSON.parse((await box.elasticos(['ps', '--json'])).stdout) as [{ id: string }]
  const shown = await box.elasticos(['pages', id])
  t.is(shown.status, 0, shown.stderr)
  t.deepEqual(shown.stdout.split('\n').slice(-4), [
    '0x555000    8K  here (disk)',
    '0x557000    4K  b',
    'and 1 smaller ranges, 12K together, left out',
    '',
  ])
  const json = JSON.parse((await box.elasticos(['pages', id, '--json'])).stdout)
  t.deepEqual(json.ranges[1], { start: '0x557000', pages: 1, node: 'b', spilled: false })
  t.is((await box.elasticos(['pages', 'x'])).status, 2)
  const other = await box.elasticos(['pages', ID])
  t.is(other.status, 1)
  t.regex(other.stderr, /^elasticos: no agent listens at [^\n]*\n$/)
})

test('top: once without a terminal, lines of JSON with rates, and the end of its reader', async t => {
  const { box, service, cli } = await agent(t)
  const process = { id: ID, program: 'sort', role: 'home' as const, home: 'n', pid: 1, residentPages: 2 }
  service.processesNow = [{ ...process, participants: ['n', 'b'], stats: { pulls: 1 } }]
  const plain = await cli('top')
  t.is(plain.status, 0, plain.stderr)
  t.regex(plain.stdout, /^elasticos n: 1 machines, 1 processes\n(?:.*\n)* {2}lane to b: up, 20K\n$/)
  t.false(plain.stdout.includes('\u001b'))
  const lines = (await cli('top', '--json', '--count', '2')).stdout
    .trim()
    .split('\n')
    .map(line => JSON.parse(line))
  t.is(lines.length, 2)
  t.is(lines[0].processes[0].perSecond, null)
  t.deepEqual(lines[1].processes[0].perSecond, { pulls: 0, pages: 0, jumps: 0, bytes: 0 })
  t.deepEqual(lines[1].processes[0].lanes, [LEASE])
  const endless = box.spawn(['top', '--json', '--control', 'agent.sock'])
  endless.stdout?.once('data', () => endless.stdout?.destroy())
  const [status] = await once(endless, 'exit')
  t.is(status, 0)
  t.is((await cli('top', '--count', '0')).status, 2)
})

test('stretch', async t => {
  const { box, service, cli } = await agent(t)
  t.is((await cli('stretch', ID, 'b')).stdout, `${ID} is stretched over b\n`)
  t.deepEqual(JSON.parse((await cli('stretch', ID, 'b', '--json')).stdout), { id: ID, node: 'b' })
  const refused = await cli('stretch', ID, 'c')
  t.deepEqual([refused.status, ownLines(refused.stderr)], [1, ['elasticos: c does not take part: full']])
  t.is((await cli('stretch', ID)).status, 2)
  t.is((await cli('stretch', ID, 'b', '--auto')).status, 2)
  t.is((await cli('stretch', ID, '--auto')).stdout, `${ID} is stretched by itself over whoever has room\n`)
  t.deepEqual(JSON.parse((await cli('stretch', ID, '--auto', '--json')).stdout), { id: ID, automatic: true })
  t.is((await cli('stretch', ID, 'b', '--all')).status, 2)
  t.regex((await box.elasticos(['stretch', ID, 'b'])).stderr, /no agent listens at .*; start one/)
  t.deepEqual(service.asked, ['stretch b', 'stretch b', 'automatic', 'automatic'])
})

test('contract waits until what it let go is gone, and no longer than it may', async t => {
  const { service, cli } = await agent(t)
  setTimeout(() => service.leasesNow.pop(), 2_000)
  const done = await cli('contract', ID, 'b')
  t.deepEqual([done.status, done.stdout], [0, `${ID} is contracted: b let go\n`], done.stderr)
  t.deepEqual(service.leasesNow, [])
  t.is((await cli('contract', ID)).stdout, `${ID} is contracted: nobody took part\n`)
  service.leasesNow.push(LEASE)
  const late = await cli('contract', ID, '--wait', '300ms')
  t.is(late.status, 1)
  t.regex(
    late.stderr,
    /^elasticos: b still had 5 pages after 300 ms; they go on coming back, see `elasticos ps`\n$/,
  )
  t.is((await cli('contract', ID, '--wait', 'long')).status, 2)
  t.regex(
    (await cli('pages', ID)).stderr,
    /no elastic process 0123456789abcdef has its home here; see `elasticos ps`/,
  )
})
