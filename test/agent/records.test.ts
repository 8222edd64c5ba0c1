/** What an agent remembers of its leases, on disks that do not take it. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { Records } from '../../agent/executor/records.js'
import { EXCEPTIONS_MAX } from '../../agent/machines/choice.js'
import { NODES_MAX, type PeerId, type ProcessId } from '../../agent/machines/types.js'

test('a record that cannot be written is said once and tried again', t => {
  const directory = mkdtempSync(join(tmpdir(), 'elasticos-records-'))
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  const said: string[] = []
  const silent = () => {}
  const log = { error: silent, info: silent, debug: silent, warn: (text: string) => said.push(text) }
  const records = new Records(directory, log)
  const id = '0123456789abcdef' as ProcessId
  const attachment = { id, pagerSocket: '/s', program: 'p', participantsMax: 2, memoryPages: 9, uid: 0 }
  rmSync(join(directory, 'leases'), { recursive: true })
  records.saveHome({ attachment, participants: [] })
  records.saveHome({ attachment, participants: [] })
  t.is(said.length, 1)
  t.is(records.home(id), undefined)
  new Records(directory, log)
  records.saveHome({ attachment, participants: [] })
  t.deepEqual(records.home(id), { attachment, participants: [] })
  records.remove(id, 'home')
  t.is(records.home(id), undefined)
})

test('all that a person may have chosen fits into a record; one from before this was noted is read, too', t => {
  const directory = mkdtempSync(join(tmpdir(), 'elasticos-records-'))
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  const silent = () => {}
  const records = new Records(directory, { error: silent, info: silent, debug: silent, warn: t.fail })
  const id = '0123456789abcdef' as ProcessId
  const attachment = { id, pagerSocket: '/s', program: 'p', participantsMax: 2, memoryPages: 9, uid: 0 }
  const peer = `12D3KooW${'a'.repeat(44)}` as PeerId
  const peers = Array.from({ length: EXCEPTIONS_MAX }, () => peer)
  const participants = Array.from({ length: NODES_MAX }, (_, node) => {
    return { peer, name: 'n'.repeat(64), node, leaseId: 2 ** 47 + node }
  })
  const record = {
    attachment,
    participants,
    choices: { asksAll: false, exceptions: peers, stretched: peers },
  }
  records.saveHome(record)
  t.deepEqual(records.home(id), record)
  const choices = { asksAll: true, exceptions: [peer] }
  writeFileSync(join(directory, 'leases', `${id}.home.json`), JSON.stringify({ ...record, choices }))
  t.deepEqual(records.home(id)?.choices, { ...choices, stretched: [] })
})
