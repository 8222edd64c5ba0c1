/**
 * Runs inside a virtual machine: what a kernel without PAGEMAP_SCAN has to do as well as any other. `doctor` says what
 * it lacks; programs are stretched over two pagers of that machine and print what they print alone.
 *
 * No agents: they know nothing of the kernel, and to load two of them takes longer here than all else. The programs are
 * those of ../checkout.ts.
 */

import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import test from 'ava'
import { runPair } from '../../bench/pair.js'
import { ROOT } from '../../helpers/native.js'

const TEST_TIMEOUT_MS = 600_000
const RUN_TIMEOUT_S = 300
/** Of what the programs below touch about a quarter. Small, because each page that travels is encrypted by emulated
 * instructions. */
const PAGES_LIMIT = 128
const PAGES = '400'
const JUMP_EVERY = 7

const program = (name: string, ...args: string[]) => [join(ROOT, 'programs', name), ...args]

const STRETCHED: Readonly<Record<string, readonly string[]>> = {
  fork: program('fork', PAGES),
  'moving mremap': program('mremap', PAGES),
  'signals, faults on purpose': program('signals', PAGES, '2'),
  'brk, mmap, mprotect, madvise': program('maps', PAGES),
}

for (const [title, command] of Object.entries(STRETCHED)) {
  for (const mode of ['pulls', 'jumps'] as const) {
    test.serial(`old kernel: ${title} (${mode})`, async t => {
      t.timeout(TEST_TIMEOUT_MS)
      const [path = '', ...args] = command
      const alone = spawnSync(path, args, { encoding: 'utf8', timeout: TEST_TIMEOUT_MS })
      t.is(alone.status, 0, alone.stdout)
      const jumpEvery = mode === 'jumps' ? JUMP_EVERY : 0
      const options = { cpus: 2, memoryPages: PAGES_LIMIT, secondsMax: RUN_TIMEOUT_S } as const
      const { stdout, stats } = await runPair({ ...options, command, jumpEvery })
      t.true(stdout === alone.stdout, `printed ${stdout.slice(0, 1000)}`)
      t.true((stats.pagesTouched ?? 0) > 3 * PAGES_LIMIT)
      t.true((stats.peakResidentPages ?? Number.POSITIVE_INFINITY) <= PAGES_LIMIT)
      t.true((stats.pulls ?? 0) > 0 && (stats.pushes ?? 0) > 0)
      t.is((stats.jumps ?? 0) > 0, jumpEvery > 0)
      t.log(`${stats.pagesTouched} pages, ${stats.pulls} pulls, ${stats.jumps} jumps`)
    })
  }
}

test.serial('old kernel: doctor names what is missing, and that it does without', t => {
  t.timeout(TEST_TIMEOUT_MS)
  const words = [join(ROOT, 'agent/bin/elasticos.js'), 'doctor', '--json']
  const done = spawnSync(process.execPath, words, { encoding: 'utf8', timeout: TEST_TIMEOUT_MS })
  t.is(done.status, 0, `${done.stderr}${done.stdout}`)
  const { ok, checks } = JSON.parse(done.stdout) as {
    ok: boolean
    checks: { name: string; ok: boolean; needed: boolean; detail: string }[]
  }
  t.true(ok)
  const scan = checks.find(check => check.name === 'PAGEMAP_SCAN')
  t.like(scan, { ok: false, needed: false })
  t.regex(scan?.detail ?? '', /read from \/proc\/PID\/pagemap/)
})
