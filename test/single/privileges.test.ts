/**
 * What pagers that root started keep of root's privileges, that the program has all of them, and that what they kept
 * is enough for one that changes its user.
 */

import { readFileSync, writeFileSync } from 'node:fs'
import test from 'ava'
import type { TestCluster } from '../helpers/cluster.js'
import { NOBODY } from '../helpers/ordinary-user.js'
import { startCluster } from '../matrix/matrix.js'

const TIMEOUT_MS = 60_000
const FLAGS = ['--memory', '8M', '--participants-min', '2', '--wait', '15s']

/** Bits of <linux/capability.h>. */
const DAC_OVERRIDE = 1n << 1n
const KILL = 1n << 5n
const SETGID = 1n << 6n
const SETUID = 1n << 7n
const SYS_PTRACE = 1n << 19n
const SYS_ADMIN = 1n << 21n
const SYS_RESOURCE = 1n << 24n
const TRACER = DAC_OVERRIDE | KILL | SYS_PTRACE | SYS_RESOURCE
const LENDER = DAC_OVERRIDE | KILL | SYS_PTRACE | SYS_ADMIN | SETUID | SETGID

const asRoot = process.getuid?.() === 0 ? test.serial : test.serial.skip
if (process.getuid?.() !== 0) console.log('skipped: only root has privileges to keep')

let cluster: TestCluster

test.before(async t => {
  t.timeout(TIMEOUT_MS)
  cluster = await startCluster(2)
})

test.after.always(async t => {
  t.deepEqual(await cluster?.stop(), [])
})

function set(status: string, name: string): bigint {
  return BigInt(`0x${new RegExp(`^${name}:\\s*([0-9a-f]+)$`, 'm').exec(status)?.[1] ?? `none: ${name}`}`)
}

/** Prints its own status; then, after a line each, that of every thread of every pager, with its command line. */
const LOOK = `
cat /proc/self/status
for pid in $(pgrep -f elasticos-pager); do
  for task in /proc/$pid/task/*; do
    echo "--- $(tr '\\0' ' ' < /proc/$pid/cmdline)"
    echo "leader: $([ "$task" = /proc/$pid/task/$pid ] && echo yes)"
    cat $task/status
  done
done`

asRoot('pagers keep what they need of root, and the program all that it has alone', async t => {
  t.timeout(TIMEOUT_MS)
  const script = cluster.path('look')
  writeFileSync(script, LOOK)
  const end = await cluster.run('a', FLAGS, ['sh', script], { timeoutMs: TIMEOUT_MS }).outcome
  t.is(end.status, 0, end.stderr)
  const [program = '', ...others] = end.stdout.toString().split('--- ')
  const own = readFileSync('/proc/self/status', 'utf8')
  for (const name of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'])
    t.is(set(program, name), set(own, name), name)
  const ours = others.filter(
    text => /^\S*elasticos-pager (home|peer) /.test(text) && text.includes(cluster.directory),
  )
  const seen = { home: 0, peer: 0, helpers: 0 }
  for (const text of ours) {
    const role = /^\S+ home /.test(text) ? 'home' : 'peer'
    const name = /^Name:\s*(\S+)$/m.exec(text)?.[1]
    const helper = !text.includes('leader: yes') || name === 'elasticos-hold'
    const kept = helper ? 0n : role === 'home' ? TRACER : LENDER
    for (const kind of ['CapPrm', 'CapEff', 'CapBnd']) t.is(set(text, kind), kept & set(own, kind), text)
    t.is(set(text, 'CapInh'), 0n)
    t.is(set(text, 'NoNewPrivs'), 1n)
    seen[helper ? 'helpers' : role]++
  }
  t.is(seen.home, 1)
  t.is(seen.peer, 1)
  t.true(seen.helpers > 0)
})

asRoot('a program that has changed its user is traced and shown its mappings all the same', async t => {
  t.timeout(TIMEOUT_MS)
  const change = ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups']
  const script = 'read -r words < /proc/self/maps; cat /proc/self/maps; kill -TERM $$'
  const command = [...change, 'bash', '-c', script]
  const end = await cluster.run('a', FLAGS, command, { timeoutMs: TIMEOUT_MS }).outcome
  t.is(end.status, 128 + 15, end.stderr)
  t.regex(end.stdout.toString(), /\[heap\]$/m)
  t.notRegex(end.stdout.toString(), /memfd/)
})
