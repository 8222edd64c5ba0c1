/**
 * Builds and runs the native tests of the compatibility facts, the checks of `doctor` and the look at a program
 * (kmod/pager/test/facts_test.cpp), also under the sanitizers; then reads their JSON as the agent would, and as a user
 * who may not serve faults of system calls.
 */

import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import test, { type ExecutionContext } from 'ava'
import { PROTOCOL_VERSION } from '../../kmod/lane-frames.js'
import { ROOT } from '../helpers/native.js'
import { buildNative, runCommand, runNative } from '../helpers/native-tests.js'
import { SEED } from '../helpers/seed.js'

interface Check {
  name: string
  ok: boolean
  needed: boolean
  detail: string
  remedy: string
}

const BUILD_DIR = join(ROOT, 'kmod', 'pager', 'build')

function testFacts(t: ExecutionContext, target: string, program: string, rounds: number): void {
  t.timeout(240_000)
  const built = buildNative('spillfacts.mk', target)
  t.is(built.status, 0, built.text)
  const directory = mkdtempSync(join(BUILD_DIR, 'facts-'))
  try {
    const tested = runNative(program, [directory, String(SEED), String(rounds)])
    t.is(tested.status, 0, tested.text)
    t.regex(tested.text, /^PASS checks$/m)
    t.notRegex(tested.text, /^FAIL/m)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

test.serial('native facts tests', t => testFacts(t, '../build/facts-test', 'facts-test', 300))

test.serial('native facts tests under the sanitizers', t =>
  testFacts(t, '../build/san/facts-test', join('san', 'facts-test'), 100),
)

test.serial('the facts are one JSON object with what an offer carries', t => {
  const facts = JSON.parse(runNative('facts-test', ['--facts']).text) as Record<string, unknown>
  t.is(facts.protocolVersion, PROTOCOL_VERSION)
  t.is(facts.pageSize, 4096)
  t.is(facts.arch, 'x86_64')
  t.regex(String(facts.xcr0), /^0x[0-9a-f]+$/)
  t.true(Array.isArray(facts.cpuFeatures) && facts.cpuFeatures.includes('cx16'))
})

test.serial('the checks name what is missing, and the line that mends it', t => {
  const checks = JSON.parse(runNative('facts-test', ['--doctor', '/dev/shm']).text) as Check[]
  const spill = checks.find(check => check.name === 'spill directory')
  t.like(spill, { ok: false, needed: true })
  t.regex(spill?.detail ?? '', /\/dev\/shm is on tmpfs, which is memory/)
  t.regex(spill?.remedy ?? '', /--data DIR/)
})

test.serial('an ordinary user is told by name how to get userfaultfd', t => {
  if (process.getuid?.() !== 0) {
    t.pass('only root can become nobody')
    return
  }
  const directory = mkdtempSync(join(tmpdir(), 'elasticos-facts-'))
  try {
    chmodSync(directory, 0o755)
    mkdirSync(join(directory, 'spill'), { mode: 0o700 })
    copyFileSync(join(BUILD_DIR, 'facts-test'), join(directory, 'facts-test'))
    const become = ['--reuid=nobody', '--regid=nogroup', '--clear-groups']
    const run = [join(directory, 'facts-test'), '--doctor', join(directory, 'spill')]
    const checks = JSON.parse(runCommand('setpriv', [...become, ...run]).text) as Check[]
    const uffd = checks.find(check => check.name === 'userfaultfd')
    t.true(
      uffd?.ok || /u:nobody:rw \/dev\/userfaultfd|vm\.unprivileged_userfaultfd=1/.test(uffd?.remedy ?? ''),
      uffd?.remedy,
    )
    t.like(
      checks.find(check => check.name === 'spill directory'),
      { ok: false },
    )
  } finally {
    rmSync(directory, { recursive: true })
  }
})
