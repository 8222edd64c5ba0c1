/**
 * The systemd unit: systemd finds nothing wrong with it, it stops the agent alone, and it has no protection that takes
 * away what pagers need. That a lender works with the capabilities it leaves is shown in test/single/reshape.test.ts.
 */

import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { ROOT } from '../helpers/native.js'

const UNIT = readFileSync(join(ROOT, 'agent', 'systemd', 'elasticos-agent.service'), 'utf8')
const SETTINGS = UNIT.split('\n').filter(line => /^\w/.test(line))

const BREAKING = [
  ...['PrivateDevices', 'ProtectClock', 'DevicePolicy', 'DeviceAllow'],
  ...[
    'PrivateUsers',
    'PrivatePIDs',
    'ProtectProc',
    'ProcSubset',
    'RestrictNamespaces',
    'MemoryDenyWriteExecute',
  ],
  ...['SystemCallFilter', 'SystemCallArchitectures', 'RestrictAddressFamilies', 'RestrictRealtime'],
  ...['RestrictSUIDSGID', 'LockPersonality'],
]

test('what it sets', t => {
  for (const line of ['KillMode=process', 'Restart=on-failure', 'RuntimeDirectoryPreserve=yes'])
    t.true(SETTINGS.includes(line), line)
  t.deepEqual(
    SETTINGS.filter(line => BREAKING.some(name => line.startsWith(`${name}=`))),
    [],
  )
})

const HAS_SYSTEMD = spawnSync('systemd-analyze', ['--version']).status === 0
if (!HAS_SYSTEMD) console.log('skipped: no systemd-analyze here')

;(HAS_SYSTEMD ? test : test.skip)('systemd finds nothing wrong with it', t => {
  const directory = mkdtempSync(join(tmpdir(), 'elasticos-unit-'))
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  const path = join(directory, 'elasticos-agent.service')
  // Where it is installed there is such a program.
  writeFileSync(path, UNIT.replace('/usr/local/bin/elasticos', '/bin/true'))
  const { status, stderr } = spawnSync('systemd-analyze', ['verify', path], { encoding: 'utf8' })
  t.deepEqual([status, stderr], [0, ''])
})
