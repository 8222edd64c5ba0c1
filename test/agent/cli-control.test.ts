/**
 * The control socket: modes, stale and live sockets, refusals, malformed and oversized lines, watching.
 */

import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { ControlClient } from '../../agent/control/client.js'
import { ControlError } from '../../agent/control/errors.js'
import { LINE_CHARACTERS_MAX } from '../../agent/control/reply.js'
import { ControlServer } from '../../agent/control/server.js'
import { FakeService, LEASE } from './fake-service.js'

const ID = '0123456789abcdef'
const HELLO = { name: 'n', version: '1', pid: 1, dataDir: '/d', runtimeDir: '/r', spillMaxBytes: 5 }

async function serve(t: ExecutionContext) {
  const directory = mkdtempSync(join(tmpdir(), 'elasticos-control-'))
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  const path = join(directory, 'agent.sock')
  const service = new FakeService()
  const server = await ControlServer.listen(path, HELLO, service)
  t.teardown(() => server.close())
  return { path, service, server }
}

test('the socket is for its owner alone', async t => {
  const { path } = await serve(t)
  t.is(statSync(path).mode & 0o777, 0o600)
})

test('requests and their answers', async t => {
  const { path, service } = await serve(t)
  const client = await ControlClient.connect(path)
  t.deepEqual(await client.hello(), HELLO)
  t.is((await client.ask('nodes', {}))[0]?.cpus, 3)
  t.deepEqual(await client.ask('processes', {}), [])
  t.deepEqual(await client.ask('refusals', { processId: ID }), ['left: full'])
  const home = { id: ID, pagerSocket: '/s', program: 'p', participantsMax: 2, memoryPages: 9, uid: 0 }
  await client.ask('attach', { home })
  t.deepEqual(service.attached, [home])
  await t.throwsAsync(client.ask('attach', { home: { ...home, program: 'bad' } }), {
    instanceOf: ControlError,
    message: 'the pager is gone',
  })
  const heard: number[] = []
  t.is(await client.watch(ID, count => heard.push(count)), 1)
  service.listener(3)
  await client.hello()
  t.deepEqual(heard, [3])
  client.close()
})

test('stretch, contract and leases', async t => {
  const { path, service } = await serve(t)
  const client = await ControlClient.connect(path)
  t.is(await client.ask('stretch', { processId: ID, node: 'b' }), 'b')
  await t.throwsAsync(client.ask('stretch', { processId: ID, node: 'c' }), {
    message: /^c does not take part: full$/,
  })
  t.deepEqual(await client.ask('contract', { processId: ID }), [LEASE])
  t.deepEqual(await client.ask('contract', { processId: ID, node: 'b' }), [LEASE])
  t.deepEqual(await client.ask('leases', { processId: ID }), [LEASE])
  t.deepEqual(service.asked, ['stretch b', 'contract undefined', 'contract b'])
  client.close()
})

test('a process that is not here cannot be stopped', async t => {
  const { path } = await serve(t)
  const client = await ControlClient.connect(path)
  await t.throwsAsync(client.ask('stop', { processId: ID, reason: '' }), { message: /no elastic process/ })
  client.close()
})

test('a stale socket is replaced, a live one and a file are not', async t => {
  const { path, service, server } = await serve(t)
  await t.throwsAsync(ControlServer.listen(path, HELLO, service), { message: /already listens at/ })
  await server.close()
  // A listener that unlinks nothing when it goes away, like an agent that is killed.
  const stale = createServer().listen(path)
  await new Promise(resolve => stale.once('listening', resolve))
  const again = join(path, '..', 'link')
  const { linkSync } = await import('node:fs')
  linkSync(path, again)
  await new Promise(resolve => stale.close(resolve))
  await t.throwsAsync(ControlClient.connect(again), { message: /no agent listens/ })
  const second = await ControlServer.listen(again, HELLO, service)
  const client = await ControlClient.connect(again)
  t.is((await client.hello()).name, 'n')
  client.close()
  await second.close()
  writeFileSync(again, 'mine')
  await t.throwsAsync(ControlServer.listen(again, HELLO, service), { message: /is no socket/ })
})

test('malformed and endless lines end their connection only', async t => {
  const { path } = await serve(t)
  const lines = ['nonsense\n', '{"n":1,"request":{"op":"what"}}\n', '{"n":-1,"request":{"op":"nodes"}}\n']
  lines.push(`{"n":1,"request":{"op":"stretch","processId":"${ID}"}}\n`)
  lines.push(`{"n":1,"request":{"op":"contract","processId":"${ID}","all":true}}\n`)
  for (const text of [...lines, 'x'.repeat(LINE_CHARACTERS_MAX + 2)]) {
    const socket = connect(path)
    socket.on('error', () => {})
    socket.write(text)
    await new Promise(resolve => socket.once('close', resolve))
  }
  const client = await ControlClient.connect(path)
  t.is((await client.hello()).name, 'n')
  client.close()
})

test('an agent that goes away is told to those who wait', async t => {
  const { path, server } = await serve(t)
  const client = await ControlClient.connect(path)
  await client.hello()
  const closed = new Promise<void>(resolve => client.onClose(resolve))
  await server.close()
  await closed
  await t.throwsAsync(client.hello(), { instanceOf: ControlError })
})

test('paths beyond what a socket address holds are refused with a remedy', async t => {
  await t.throwsAsync(ControlClient.connect(`/tmp/${'x'.repeat(120)}`), {
    message: /give a shorter --control/,
  })
})
