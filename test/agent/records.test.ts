/** What an agent remembers of its leases, on disks that do not take it. */

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { Records } from '../../agent/executor/records.js'
import type { ProcessId } from '../../agent/machines/types.js'

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
