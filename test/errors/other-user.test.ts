/**
 * Another user of the machine: while root's agents stretch a run, nobody tries what it can reach of it: control
 * sockets, keys, records, logs, spill files, memory files, and the processes. Every directory on the way is opened for
 * it, so that what keeps it out is the thing itself.
 */

import { spawnSync } from 'node:child_process'
import { chmodSync, readdirSync, readlinkSync, statSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { PagerClient } from '../../kmod/pager-client.js'
import { homeSocketPath, peerSocketPath } from '../../kmod/pager-host.js'
import { encodePagerCommand } from '../../kmod/pager-messages.js'
import { type Running, TestCluster, until } from '../helpers/cluster.js'
import { NOBODY, nobodyMissing } from '../helpers/ordinary-user.js'
import { alive, commandLine, taggedPids } from '../helpers/processes.js'
import { buildProgram } from '../helpers/programs.js'

const ROOT = 0
const TIMEOUT_MS = 120_000
const ANSWER_WITHIN_MS = 2000
const TERMINATED = 128 + 15
/** Keys, records of leases, logs, and sockets, of both agents and their pagers. */
const SECRET = /(\.key|identity[^/]*|leases\/[^/]+|\/log\/[^/]+|[ab]\.log|\.sock)$/
const SECRETS_MIN = 9
const OF_AGENTS = /\/[ab](\/|$)/
const SPILL = /\/spill\/.*deleted/
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
    socket.on('error', error => failed(error.code === 'EPIPE' ? { code: 'ECONNRESET' } : error))
    socket.on('data', data => { said += data })
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

/** A run on two nodes, of which b has a shell process. */
interface Scene {
  readonly running: Running
  readonly shell: number
  /** Of the two pagers. */
  readonly sockets: readonly string[]
}

async function startScene(): Promise<Scene> {
  const program = buildProgram('endless_guest', cluster.directory)
  const running = cluster.run('a', FLAGS, [program, '4', '12000'], { timeoutMs: TIMEOUT_MS })
  const [run = '', peerRun = ''] = ['a', 'b'].map(name => join(cluster.agent(name).dataDir, 'run'))
  let shell = 0
  const started = async () => {
    if (cluster.pagers().length < 2) return false
    const client = await PagerClient.connect(
      peerSocketPath(peerRun, cluster.pagerOf('b').id, 'b'),
      'observer',
    )
    client.close()
    shell = client.describe.appPid
    return shell > 0
  }
  await until('a shell process', started, TIMEOUT_MS)
  const { id } = cluster.pagerOf('a')
  return { running, shell, sockets: [homeSocketPath(run, id), peerSocketPath(peerRun, id, 'b')] }
}

const modeOf = (path: string) => (statSync(path).mode & 0o777).toString(8)
const all = (ways: readonly string[], paths: readonly string[]): Try[] =>
  paths.flatMap(path => ways.map(way => [way, path] as const))

/** Directories and files below the cluster's; the modes of what agents made are checked, then all ways are opened. */
function openWays(t: ExecutionContext): { directories: string[]; files: string[] } {
  const paths = [cluster.directory, ...under(cluster.directory)]
  const directories = paths.filter(path => statSync(path, { throwIfNoEntry: false })?.isDirectory() === true)
  const secret = paths.filter(path => SECRET.test(path) && !directories.includes(path))
  t.true(secret.length >= SECRETS_MIN, secret.join(' '))
  for (const path of secret) t.is(modeOf(path), '600', path)
  for (const path of directories) {
    if (OF_AGENTS.test(path)) t.is(modeOf(path), '700', path)
    chmodSync(path, 0o755)
  }
  return { directories, files: secret.filter(path => !path.endsWith('.sock')) }
}

/** What the kernel shows of processes: memory, descriptors, surroundings. */
function ofProcesses(t: ExecutionContext, pids: readonly number[]): string[] {
  const descriptors = pids.flatMap(pid => readdirSync(`/proc/${pid}/fd`).map(fd => `/proc/${pid}/fd/${fd}`))
  const targets = descriptors.map(path => readlinkSync(path))
  t.true(targets.some(path => path.startsWith('/memfd:elastic')) && targets.some(path => SPILL.test(path)))
  return [
    ...descriptors,
    ...pids.flatMap(pid => ['mem', 'maps', 'environ'].map(name => `/proc/${pid}/${name}`)),
  ]
}

maybe('another user reaches nothing of agents, pagers and guests', async t => {
  t.timeout(TIMEOUT_MS)
  const { running, shell, sockets } = await startScene()
  t.teardown(() => {
    running.child.kill('SIGTERM')
  })
  const { directories, files } = openWays(t)
  const pids = [...new Set([...taggedPids(cluster.directory), shell])]
  t.true(pids.some(pid => commandLine(pid)[1] === 'home'))
  const made = directories.filter(path => OF_AGENTS.test(path)).map(path => join(path, 'planted'))
  const tries: Try[] = [
    ...all(['read', 'write', 'remove'], files),
    ...all(['connect', 'remove'], ['a', 'b'].map(name => cluster.agent(name).control).concat(sockets)),
    ...all(['create'], made),
    ...all(['read', 'write'], ofProcesses(t, pids)),
    ...pids.map(pid => ['signal', pid] as const),
  ]
  const reached = attempts(NOBODY, tries).filter(line => !/: (EACCES|EPERM)$/.test(line))
  t.deepEqual(reached, [])

  // The pagers' sockets, once more without their modes: they look at who it is.
  for (const path of sockets) chmodSync(path, 0o666)
  const connects = all(['connect'], sockets)
  const said = (what: string) => sockets.map(path => `connect ${path}: ${what}`)
  t.deepEqual(attempts(ROOT, connects), said('done'))
  t.deepEqual(attempts(NOBODY, connects), said('ECONNRESET'))

  t.true(alive(shell))
  running.child.kill('SIGTERM')
  t.is((await running.outcome).status, TERMINATED)
})
