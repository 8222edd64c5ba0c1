/**
 * Machines that do not let us: no userfaultfd, no ptrace. And the same ordinary user once the line that was shown has
 * been followed: two agents, and the demo.
 */

import { mkdtempSync, rmSync } from 'node:fs'
import test from 'ava'
import { wrongWord } from '../faults/scene.js'
import { TestCluster } from '../helpers/cluster.js'
import {
  mainForNobody,
  NOBODY,
  nobodyMissing,
  setDeviceMode,
  userfaultfdForAll,
} from '../helpers/ordinary-user.js'
import { buildProgram } from '../helpers/programs.js'

const DEMO_TIMEOUT_MS = 100_000
/** The demo's agents discover each other: on a loopback interface of their own, so that no LAN hears of it. */
const OFFLINE_NOBODY = [
  ...['unshare', '--net', 'sh', '-c', 'ip link set lo up && exec "$@"', 'sh'],
  ...['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups'],
]
const ONLY_ROOT = 0o600
const EVERYBODY = 0o666

const missing = nobodyMissing()
const asNobody = missing === undefined ? test.serial : test.serial.skip
if (missing !== undefined) console.log(`skipped, not as nobody: ${missing}`)

let cluster: TestCluster
let copy: string

test.before(async () => {
  copy = mkdtempSync('/tmp/el-copy-')
  cluster = await TestCluster.make(
    missing === undefined ? { owner: NOBODY, mainUrl: mainForNobody(copy) } : {},
  )
})
test.after.always(async t => {
  t.deepEqual(await cluster?.stop(), [])
  rmSync(copy, { recursive: true, force: true })
})

const denied = missing !== undefined || userfaultfdForAll() ? test.serial.skip : test.serial
if (missing === undefined && userfaultfdForAll()) console.log('skipped: everybody may use userfaultfd here')

denied('no permission for userfaultfd: run and doctor show the line that mends it', async t => {
  t.teardown(setDeviceMode(ONLY_ROOT))
  const run = await cluster.cli(['run', '--participants', '1', '--', 'true'], { uid: NOBODY })
  t.is(run.status, 125)
  t.regex(
    run.stderr,
    /^elasticos: no permission for userfaultfd: run `sudo setfacl -m u:\S+:rw \/dev\/userfaultfd`, or `sudo sysctl vm\.unprivileged_userfaultfd=1`\n$/,
  )
  const doctor = await cluster.cli(['doctor'], { uid: NOBODY })
  t.is(doctor.status, 1)
  t.regex(
    doctor.stdout.toString(),
    /FAIL +userfaultfd: .+\n +mend it: sudo sysctl vm\.unprivileged_userfaultfd=1 /,
  )
  const json = JSON.parse(
    (await cluster.cli(['doctor', '--json'], { uid: NOBODY })).stdout.toString(),
  ) as unknown
  t.regex(JSON.stringify(json), /"name":"userfaultfd","ok":false/)
})

test.serial('no permission for ptrace: run and doctor show the line that mends it', async t => {
  const prefix = [buildProgram('deny_ptrace', cluster.directory)]
  const run = await cluster.cli(['run', '--participants', '1', '--', 'true'], { prefix })
  t.is(run.status, 125)
  t.regex(
    run.stderr,
    /^elasticos: ptrace is not permitted \(Operation not permitted\): run `sudo sysctl kernel\.yama\.ptrace_scope=1`, or .+\n$/,
  )
  const doctor = await cluster.cli(['doctor'], { prefix })
  t.is(doctor.status, 1)
  t.regex(doctor.stdout.toString(), /FAIL +ptrace: .+Operation not permitted\n +mend it: .+SYS_PTRACE/)
})

asNobody('nobody: two agents and a run, where the device may be opened', async t => {
  t.teardown(setDeviceMode(EVERYBODY))
  const doctor = await cluster.cli(['doctor'], { uid: NOBODY })
  t.is(doctor.status, 0, doctor.stdout.toString())
  await cluster.startAgents(2, { uid: NOBODY })
  const program = buildProgram('copier', cluster.directory)
  const file = cluster.path('home', 'copy')
  const flags = ['--memory', '6M', '--participants-min', '2', '--wait', '10s', '--jump-every', '7']
  const end = await cluster.run('a', flags, [program, '16', file, '2'], { uid: NOBODY }).outcome
  t.is(end.status, 0, end.stderr)
  t.is(end.stderr, '')
  t.is(wrongWord(file), undefined)
  t.is(end.stats?.mode, 'stretched')
  t.true((end.stats?.jumps ?? 0) > 0)
  t.true((end.stats?.participants ?? []).filter(each => each.peakPages > 0).length === 2)
})

asNobody('nobody: a program that is not dumpable forks, and has its mappings read', async t => {
  t.teardown(setDeviceMode(EVERYBODY))
  const program = buildProgram('births', cluster.directory)
  const flags = ['--memory', '8M', '--participants', '1']
  const end = await cluster.run('a', flags, [program, 'undumpable'], { uid: NOBODY }).outcome
  t.is(end.stdout.toString(), 'as alone\n', end.stderr)
  t.is(end.status, 0)
})

asNobody('nobody: the demo', async t => {
  t.teardown(setDeviceMode(EVERYBODY))
  const args = ['demo', '--json', '--only', 'linear search']
  const demo = await cluster.cli(args, { prefix: OFFLINE_NOBODY, timeoutMs: DEMO_TIMEOUT_MS })
  t.is(demo.status, 0, demo.stdout.toString() + demo.stderr)
  const shown = JSON.parse(demo.stdout.toString()) as { ok: boolean; programs: { identical: boolean }[] }
  t.true(shown.ok)
  t.true(shown.programs.every(program => program.identical))
})
