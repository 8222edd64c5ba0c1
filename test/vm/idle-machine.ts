/** Runs a virtual machine that does nothing, for machine.test.ts to be killed meanwhile. Arguments: folder, parts. */

import { Initramfs } from './initramfs.js'
import { runMachine } from './machine.js'
import type { MachineParts } from './packages.js'

const MINUTES = 5

const [scratch = '', parts = ''] = process.argv.slice(2)

await runMachine(
  {
    parts: JSON.parse(parts) as MachineParts,
    files: new Initramfs(),
    command: `sleep ${60 * MINUTES}`,
    memoryMiB: 256,
    diskMiB: 1,
    timeoutMs: MINUTES * 60_000,
  },
  scratch,
)
