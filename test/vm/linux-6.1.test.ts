/**
 * The oldest kernel that elasticos runs on, Linux 6.1, in a virtual machine: it has no PAGEMAP_SCAN, so the pager reads
 * /proc/PID/pagemap. In the machine run the conformance suite of the page table and inside/old-kernel.ts, as ava tests.
 *
 * Where the machine's parts cannot be had this is skipped, and says why; REQUIRE_VM=1 makes that a failure.
 */

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { addCheckout } from './checkout.js'
import { Initramfs } from './initramfs.js'
import { runMachine } from './machine.js'
import { type MachineParts, obtainParts, Unobtainable } from './packages.js'

/** Some five times what it takes beside other work, 3.5 minutes. */
const TIMEOUT_MS = 1_200_000
const SERIAL_LINES = 60
const PROGRAMS = ['fork', 'exec', 'mremap', 'signals', 'maps', 'filemap']
const HOST_PROGRAMS = ['/usr/bin/taskset']
const AVA_CONFIG = `export default {
  files: ['dist/test/kmod/userfaultfd.test.js', 'dist/test/vm/inside/*.js'],
  concurrency: 1,
  timeout: '10m',
  workerThreads: false,
}
`
/**
 * Without the tests that forbid PAGEMAP_SCAN: on this kernel they are the same as the others. OpenSSL is to use no AVX
 * instructions and none for AES: under QEMU 7.2 a page's encryption takes 1 ms so, 2 ms with AESENC, 6 to 8 ms with VAES.
 */
const COMMAND = `cd /elasticos
export TMPDIR=/var/tmp XDG_STATE_HOME=/var/tmp/state OPENSSL_ia32cap='~0x1200000000000000'
node node_modules/ava/entrypoints/cli.mjs --tap --match 'userfaultfd: *' --match 'old kernel: *'
`

function partsOrReason(): MachineParts | string {
  try {
    return obtainParts('6.1')
  } catch (error) {
    if (error instanceof Unobtainable && process.env.REQUIRE_VM !== '1') return error.message
    throw error
  }
}

const parts = partsOrReason()
if (typeof parts === 'string') process.stdout.write(`SKIP the virtual machine with Linux 6.1: ${parts}\n`)

/** From the first test that failed on, and the end: where a panic is. */
function excerpt(serial: string): string {
  const lines = serial.split('\n')
  const failed = lines.findIndex(line => line.startsWith('not ok'))
  const first = failed < 0 ? [] : lines.slice(failed, failed + SERIAL_LINES)
  return [...first, '...', ...lines.slice(-SERIAL_LINES)].join('\n')
}

const boot = typeof parts === 'string' ? test.skip : test
boot('on Linux 6.1 the page table conforms and programs are stretched right', async t => {
  t.timeout(TIMEOUT_MS + 60_000)
  const scratch = mkdtempSync(join(tmpdir(), 'elasticos-vm-'))
  try {
    const files = new Initramfs()
    addCheckout(files, PROGRAMS, scratch)
    for (const program of HOST_PROGRAMS) files.addProgram(program)
    files.addText('/elasticos/ava.config.js', AVA_CONFIG)
    const machine = { memoryMiB: 768, diskMiB: 128, timeoutMs: TIMEOUT_MS, command: COMMAND }
    const end = await runMachine({ ...machine, parts: parts as MachineParts, files }, scratch)
    t.is(end.status, 0, excerpt(end.serial))
    t.log(`${end.serial.match(/^ok /gm)?.length} tests in ${end.seconds} s`)
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
})
