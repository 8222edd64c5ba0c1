/**
 * Runs inside a virtual machine: what a kernel without PAGEMAP_SCAN has to do as well as any other. `doctor` says what
 * it lacks; programs are stretched over two pagers of that machine and print what they print alone.
 *
 * No agents: they know nothing of the kernel, and to load two of them takes longer here than all else. The programs are
 * those of ../checkout.ts.
 */

import { spawnSync } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { runPair } from '../../bench/pair.js'
import { ROOT } from '../../helpers/native.js'

const TEST_TIMEOUT_MS = 600_000
const RUN_TIMEOUT_S = 300
/**
 * Small, because each page that travels is encrypted by emulated instructions, and below what `run` allows. Not less:
 * buffers take up to half of it where acknowledgements are slow, the reserve 32 pages more, and when no more is left
 * than one window of prefetch, pages leave before they are used.
 */
const PAGES_LIMIT = 192
const PAGES = '320'
const MAPPED = join(tmpdir(), 'mapped')
/** Too few for what is not at home. */
const LENT_PAGES = 64
const JUMP_EVERY = 7

const program = (name: string, ...args: string[]) => [join(ROOT, 'programs', name), ...args]

const BOTH = ['pulls', 'jumps'] as const

/** One way is enough where the other would show nothing more of this kernel: each costs half a minute on a busy host. */
const STRETCHED = {
  fork: { command: program('fork', PAGES), modes: BOTH },
  exec: { command: program('exec', PAGES), modes: ['jumps'] },
  'moving mremap': { command: program('mremap', PAGES), modes: ['jumps'] },
  'signals, faults on purpose': { command: program('signals', PAGES, '2'), modes: BOTH },
  'brk, mmap, mprotect, madvise': { command: program('maps', PAGES), modes: ['pulls'] },
  'private mappings of a file': { command: program('filemap', MAPPED, PAGES), modes: ['jumps'] },
} as const

for (const [title, { command, modes }] of Object.entries(STRETCHED)) {
  for (const mode of modes) {
    test.serial(`old kernel: ${title} (${mode})`, async t => {
      t.timeout(TEST_TIMEOUT_MS)
      const [path = '', ...args] = command
      const alone = spawnSync(path, args, { encoding: 'utf8', timeout: TEST_TIMEOUT_MS })
      t.is(alone.status, 0, alone.stdout)
      const jumpEvery = mode === 'jumps' ? JUMP_EVERY : 0
      const options = { cpus: 2, memoryPages: PAGES_LIMIT, secondsMax: RUN_TIMEOUT_S } as const
      const { stdout, stats } = await runPair({ ...options, command, jumpEvery })
      t.true(stdout === alone.stdout, `printed ${stdout.slice(0, 1000)}`)
      t.true((stats.pagesTouched ?? 0) > 1.5 * PAGES_LIMIT)
      t.true((stats.peakResidentPages ?? Number.POSITIVE_INFINITY) <= PAGES_LIMIT)
      t.true((stats.pulls ?? 0) > 0 && (stats.pushes ?? 0) > 0)
      t.is((stats.jumps ?? 0) > 0, jumpEvery > 0)
      t.log(`${stats.pagesTouched} pages, ${stats.pulls} pulls, ${stats.jumps} jumps`)
    })
  }
}

test.serial('old kernel: what a lender has no room for goes to disk and comes back', async t => {
  t.timeout(TEST_TIMEOUT_MS)
  const options = {
    cpus: 2,
    memoryPages: PAGES_LIMIT,
    peerPages: LENT_PAGES,
    secondsMax: RUN_TIMEOUT_S,
  } as const
  const command = program('filemap', MAPPED, PAGES)
  const { stdout, stats } = await runPair({ ...options, command })
  t.is(stdout, 'filemap: all right\n')
  t.true((stats.pagesSpilled ?? 0) > 0)
})

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
