/**
 * A virtual machine does not outlive the process that runs it, in whatever way that ends: else each test that is killed
 * from outside would leave an emulator behind that keeps a processor busy until its time limit.
 */

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import { ROOT } from '../helpers/native.js'
import { type MachineParts, obtainParts, Unobtainable } from './packages.js'

const LIMIT_MS = 60_000
const POLL_MS = 20

function partsIfThere(): MachineParts | undefined {
  try {
    return obtainParts('6.1')
  } catch (error) {
    if (error instanceof Unobtainable && process.env.REQUIRE_VM !== '1') return undefined
    throw error
  }
}

/** Emulators whose command line names a file below this folder, and that have not ended. */
function emulatorsOf(folder: string): string[] {
  return readdirSync('/proc').filter(pid => {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
      return /^[^\0]*qemu/.test(words) && words.includes(`${folder}/`)
    } catch {
      return false // not there any more
    }
  })
}

async function until(holds: () => boolean): Promise<boolean> {
  const endsAtMs = performance.now() + LIMIT_MS
  while (!holds() && performance.now() < endsAtMs) await sleep(POLL_MS)
  return holds()
}

const parts = partsIfThere()
const boot = parts === undefined ? test.skip : test
boot('a virtual machine ends with a process that is killed', async t => {
  t.timeout(3 * LIMIT_MS)
  const scratch = mkdtempSync(join(tmpdir(), 'elasticos-vm-'))
  try {
    const child = fork(join(ROOT, 'dist/test/vm/idle-machine.js'), [scratch, JSON.stringify(parts)])
    t.true(await until(() => emulatorsOf(scratch).length > 0), 'no emulator began')
    child.kill('SIGKILL')
    await once(child, 'exit')
    t.true(await until(() => emulatorsOf(scratch).length === 0), `left: ${emulatorsOf(scratch)}`)
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
})
