/** The network key's file, the identity, the lock: modes, races, and what people are told. */

import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { loadOrMakeIdentity, lockDirectory } from '../../agent/identity.js'
import {
  defaultKeyPath,
  generateKey,
  keyFingerprint,
  loadOrMakeKey,
  newKey,
  parseKey,
  setKey,
  showKey,
} from '../../agent/key.js'

async function scratch(t: { teardown(act: () => Promise<void>): void }): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'elasticos-key-'))
  t.teardown(() => rm(directory, { recursive: true, force: true }))
  return directory
}

test('the key is where the command line says', t => {
  t.is(defaultKeyPath(0), '/etc/elasticos/network.key')
  t.is(defaultKeyPath(1000, { HOME: '/home/u' }), '/home/u/.config/elasticos/network.key')
  const empty = { HOME: '/home/u', XDG_CONFIG_HOME: '' }
  t.is(defaultKeyPath(1000, empty), '/home/u/.config/elasticos/network.key')
  t.true(defaultKeyPath(1000, { HOME: '' }).startsWith('/'))
})

test('of many agents that start at once one makes the key, 0600, and leaves nothing else', async t => {
  const directory = await scratch(t)
  const path = join(directory, 'sub', 'network.key')
  const keys = await Promise.all(Array.from({ length: 20 }, () => loadOrMakeKey(path)))
  t.is(new Set(keys.map(key => key.file)).size, 1)
  t.is((await stat(path)).mode & 0o777, 0o600)
  t.deepEqual(parseKey(await showKey(path)), keys[0])
  t.deepEqual(await readdir(join(directory, 'sub')), ['network.key'])
})

test('modes other than 0600 and rubbish are refused with the remedy', async t => {
  const path = join(await scratch(t), 'network.key')
  await t.throwsAsync(showKey(path), { message: /no network key at/ })
  await loadOrMakeKey(path)
  await chmod(path, 0o640)
  await t.throwsAsync(loadOrMakeKey(path), { message: new RegExp(`mode 0640.*chmod 600 ${path}`) })
  await chmod(path, 0o600)
  await writeFile(path, 'hello')
  await t.throwsAsync(loadOrMakeKey(path), { message: /is no network key; `elasticos key set`/ })
  await t.throwsAsync(setKey(path, 'hello'), { message: /elasticos key show/ })
})

test('set replaces, generate does not', async t => {
  const path = join(await scratch(t), 'network.key')
  const made = await generateKey(path)
  await t.throwsAsync(generateKey(path), { message: /exists/ })
  const other = newKey()
  t.not(keyFingerprint(made), keyFingerprint(other))
  await setKey(path, `${other.file}\n`)
  t.is(await readFile(path, 'utf8'), `${other.file}\n`)
  t.deepEqual(await loadOrMakeKey(path), other)
  t.deepEqual(other.file.length, 95)
})

test('the identity stays the same', async t => {
  const directory = await scratch(t)
  const [first, second] = await Promise.all([loadOrMakeIdentity(directory), loadOrMakeIdentity(directory)])
  t.deepEqual(first.raw, second.raw)
  t.deepEqual((await loadOrMakeIdentity(directory)).raw, first.raw)
  await chmod(join(directory, 'identity.key'), 0o644)
  await t.throwsAsync(loadOrMakeIdentity(directory), { message: /chmod 600/ })
})

test('the lock is held once, given back, and taken over from the dead', async t => {
  const directory = await scratch(t)
  const release = await lockDirectory(directory)
  await t.throwsAsync(lockDirectory(directory), { message: new RegExp(`pid ${process.pid}`) })
  await release()
  await writeFile(join(directory, 'agent.lock'), `${process.pid} 1\n`, { mode: 0o600 })
  const attempts = await Promise.allSettled(Array.from({ length: 5 }, () => lockDirectory(directory)))
  t.is(attempts.filter(attempt => attempt.status === 'fulfilled').length, 1)
})
