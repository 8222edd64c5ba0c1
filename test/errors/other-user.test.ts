/**
 * Another user of the machine: while root's agents stretch a run, nobody tries what it can reach of it: control
 * sockets, keys, records, logs, spill files, memory files, and the processes. Every directory on the way is opened for
 * it, so that what keeps it out is the thing itself.
 */

import { spawnSync } from 'node:child_process'
import { chmodSync, readdirSync, readlinkSync, statSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { PagerClient } from '../../kmod/pager-client.js'
import { homeSocketPath, peerSocketPath } from '../../kmod/pager-host.js'
import { encodePagerCommand } from '../../kmod/pager-messages.js'
import { TestCluster, until } from '../helpers/cluster.js'
import { NOBODY, nobodyMissing } from '../helpers/ordinary-user.js'
import { alive, commandLine, taggedPids } from '../helpers/processes.js'
import { buildProgram } from '../helpers/programs.js'

const ROOT = 0
const TIMEOUT_MS = 120_000
const ANSWER_WITHIN_MS = 2000
const SECRET = /(key|lock|json|log|sock)$/
/** More than both memories, so that pages are spilled. */
const FLAGS = ['--memory', '6M', '--participants-min', '2', '--wait', '15s', '--jump-every', '1']

/** What the other user does, each in turn; prints a JSON list of how it failed, `done` where it did not. */
const TRIES = `
const fs = require('fs'), net = require('net')
const open = flags => path => fs.closeSync(fs.openSync(path, flags))
const ways = {
  read: open('r'), write: open('r+'), list: path => fs.readdirSync(path), remove: path => fs.unlinkSync(path),
  create: path => fs.writeFileSync(path, ''), signal: pid => process.kill(pid, 0),
  connect: path => new Promise((done, failed) => {
    const socket = net.connect(path)
    let said = ''
    socket.on('error', failed).on('data', data => { said += data })
    socket.on('connect', () => socket.write(Buffer.from(process.argv[2], 'hex')))
    socket.on('close', () => said === '' ? failed({ code: 'ECONNRESET' }) : done())
    setTimeout(() => said === '' ? failed({ code: 'silent' }) : done(), ${ANSWER_WITHIN_MS})
  }),
}
const tries = JSON.parse(process.argv[1])
;(async () => {
  const results = []
  for (const [way, what] of tries) {
    try { await ways[way](what); results.push('done') } catch (error) { results.push(error.code) }
  }
  console.log(JSON.stringify(results))
  process.exit(0)
})()`

type Try = readonly [way: string, what: string | number]

/** Results of that user, each with what was tried. */
function attempts(user: number, tries: readonly Try[]): string[] {
  const hello = Buffer.from(encodePagerCommand({ kind: 'hello', role: 'observer' })).toString('hex')
  const done = spawnSync(process.execPath, ['-e', TRIES, JSON.stringify(tries), hello], {
    encoding: 'utf8',
    uid: user,
    gid: user,
    cwd: '/',
    env: {},
    timeout: TIMEOUT_MS,
  })
  const results = JSON.parse(done.stdout || '[]') as string[]
  return tries.map(([way, what], i) => `${way} ${what}: ${results[i] ?? done.stderr}`)
}

function under(directory: string): string[] {
  return readdirSync(directory, { withFileTypes: true }).flatMap(entry => {
    const path = join(directory, entry.name)
    return entry.isDirectory() ? [path, ...under(path)] : [path]
  })
}

const missing = nobodyMissing()
const maybe = missing === undefined ? test.serial : test.serial.skip
if (missing !== undefined) console.log(`skipped, not as nobody: ${missing}`)

let cluster: TestCluster

test.before(async t => {
  t.timeout(TIMEOUT_MS)
  if (missing !== undefined) return
  cluster = await TestCluster.make()
  await cluster.startAgents(2, { flags: ['--capacity', '16M'] })
})

test.after.always(async t => {
  t.deepEqual((await cluster?.stop()) ?? [], [])
})

maybe('another user reaches nothing of agents, pagers and guests', async t => {
  t.timeout(TIMEOUT_MS)
  const program = buildProgram('endless_guest', cluster.directory)
  const running = cluster.run('a', FLAGS, [program, '4', '12000'], { timeoutMs: TIMEOUT_MS })
  t.teardown(() => {
    running.child.kill('SIGTERM')
  })
  const [run, peerRun] = [join(cluster.agent('a').dataDir, 'run'), join(cluster.agent('b').dataDir, 'run')]
  const shellOf = async () => {
    const { id } = cluster.pagerOf('b')
    const client = await PagerClient.connect(peerSocketPath(peerRun, id, 'b'), 'observer')
    client.close()
    return client.describe.appPid
  }
  await until(
    'a shell process',
    async () => cluster.pagers().length === 2 && (await shellOf()) > 0,
    TIMEOUT_MS,
  )
  const shell = await shellOf()
  const sockets = [
    homeSocketPath(run, cluster.pagerOf('a').id),
    peerSocketPath(peerRun, cluster.pagerOf('b').id, 'b'),
  ]

  const all = [cluster.directory, ...under(cluster.directory)]
  const directories = all.filter(path => statSync(path, { throwIfNoEntry: false })?.isDirectory() === true)
  const modes = all
    .filter(path => SECRET.test(path) && !directories.includes(path) && !/stats-|\.(log|mjs)$/.test(path))
    .map(path => [path, (statSync(path).mode & 0o777).toString(8)])
  t.true(modes.length >= 8)
  t.deepEqual(
    modes.filter(([path = '', mode]) => mode !== '600' && !path.endsWith('agent.lock')),
    [],
  )
  for (const path of directories) {
    const made = /\/(a|b)(\/|$)/.test(path)
    if (made) t.is(statSync(path).mode & 0o777, 0o700, path)
    chmodSync(path, 0o755)
  }

  const files = all.filter(path => SECRET.test(path) && /network\.key|identity|leases|\/log\//.test(path))
  t.true(files.some(path => path.includes('identity')) && files.some(path => path.includes('leases')))
  const controls = ['a', 'b'].map(name => cluster.agent(name).control)
  const pids = [...new Set([...taggedPids(cluster.directory), shell])]
  t.true(pids.some(pid => commandLine(pid)[1] === 'home') && pids.length >= 7)
  const ofProcesses = pids.flatMap(pid => {
    const open = readdirSync(`/proc/${pid}/fd`).map(fd => `/proc/${pid}/fd/${fd}`)
    return [...open, `/proc/${pid}/mem`, `/proc/${pid}/maps`, `/proc/${pid}/environ`]
  })
  const seen = ofProcesses.map(path => (path.includes('/fd/') ? readlinkSync(path) : ''))
  t.true(
    seen.some(path => path.startsWith('/memfd:elastic')) && seen.some(path => /spill.*deleted/.test(path)),
  )
  const tries: Try[] = [
    ...files.flatMap(
      path =>
        [
          ['read', path],
          ['write', path],
          ['remove', path],
        ] as const,
    ),
    ...[...controls, ...sockets].flatMap(
      path =>
        [
          ['connect', path],
          ['remove', path],
        ] as const,
    ),
    ...directories
      .filter(path => /\/(a|b)\//.test(path))
      .map(path => ['create', join(path, 'planted')] as const),
    ...ofProcesses.flatMap(
      path =>
        [
          ['read', path],
          ['write', path],
        ] as const,
    ),
    ...pids.map(pid => ['signal', pid] as const),
  ]
  t.deepEqual(
    attempts(NOBODY, tries).filter(line => !/: (EACCES|EPERM)$/.test(line)),
    [],
  )

  // The pagers' sockets, once more without their modes: they look at who it is.
  for (const path of sockets) chmodSync(path, 0o666)
  const connects = sockets.map(path => ['connect', path] as const)
  t.deepEqual(
    attempts(ROOT, connects),
    sockets.map(path => `connect ${path}: done`),
  )
  t.deepEqual(
    attempts(NOBODY, connects),
    sockets.map(path => `connect ${path}: ECONNRESET`),
  )

  t.true(alive(shell))
  running.child.kill('SIGTERM')
  t.is((await running.outcome).status, 128 + 15)
})
