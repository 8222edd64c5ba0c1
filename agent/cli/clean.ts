/**
 * `elasticos clean`: removes what runs that were killed left behind, and says what.
 *
 * What it touches is verifiably ours and dead: sockets nobody listens on in elasticos's own directories, private
 * directories of runs whose pager is gone, logs of pagers that are gone, and home pagers whose `run` is gone (the
 * process that answers on the socket, whose /proc/PID/exe is a pager and whose parent is no longer a run). A pager that
 * does not answer is named and left alone.
 */

import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import type { Command } from 'commander'
import { PagerClient, PagerError } from '../../kmod/pager-client.js'
import { listRunDirectories, localPagerSockets, runLock, runPagerSocket } from './local-pagers.js'
import type { Finish } from './main.js'
import { print, printable } from './output.js'
import { defaultControlPath, defaultDataDir, runtimeDirCandidates, runtimeDirFor } from './paths.js'

const END_TIMEOUT_MS = 3000
const PAGER_NAME = 'elasticos-pager'

interface Flags {
  readonly data?: string
  readonly json?: boolean
}

/** One thing that was, or was not, cleaned away. */
interface Finding {
  readonly what: string
  readonly path: string
  readonly removed: boolean
  readonly reason: string
}

export function addCleanCommand(program: Command, finish: Finish): void {
  program
    .command('clean')
    .description('remove what crashed runs and agents left behind, and say what')
    .option('--data <DIR>', "look into this data directory (an agent's --data) instead of the usual places")
    .option('--json', 'print JSON')
    .option('--verbose', 'say more when something fails')
    .addHelpText('after', '\nExample:\n  elasticos clean')
    .action(async (flags: Flags) => {
      const findings = await clean(flags.data)
      if (findings.some(finding => !finding.removed)) finish(1)
      if (flags.json === true) return print(JSON.stringify(findings, null, 2))
      for (const { what, path, removed, reason } of findings) {
        print(printable(`${removed ? 'removed' : 'left'} ${what} ${path}: ${reason}`))
      }
      if (findings.length === 0) print('nothing to clean')
    })
}

async function clean(data: string | undefined): Promise<Finding[]> {
  const runtimeDir = runtimeDirFor(data)
  const others = data === undefined ? runtimeDirCandidates().filter(other => other !== runtimeDir) : []
  const dataDir = data ?? defaultDataDir()
  const findings: Finding[] = []
  const live = new Set<string>()
  // Listed before the sockets are looked at: a run that starts in between has no directory in this list.
  const directories = [runtimeDir, dataDir].flatMap(listRunDirectories)
  for (const path of await localPagerSockets(runtimeDir)) findings.push(...(await cleanPager(path, live)))
  // Sessions with another runtime directory share the data directory: what is there is only looked at.
  for (const other of others) await noteLive(other, live)
  for (const directory of [...directories, ...others.flatMap(listRunDirectories)]) {
    if (isInUse(directory)) live.add(basename(directory))
  }
  for (const directory of directories) findings.push(...(await cleanRunDirectory(directory, live)))
  findings.push(...cleanLogs(join(dataDir, 'log'), live))
  // Where else an agent may listen belongs to other sessions.
  if (data === undefined) findings.push(...(await cleanControl(defaultControlPath())))
  return findings
}

/** Adds the ids of pagers that may be alive to `live`; touches nothing. */
async function noteLive(runtimeDir: string, live: Set<string>): Promise<void> {
  for (const path of await localPagerSockets(runtimeDir)) {
    try {
      const pager = await PagerClient.connect(path, 'observer')
      pager.close()
      live.add(pagerId(path))
    } catch (error) {
      if (!(error instanceof PagerError)) throw error
      if (error.code !== 'gone') live.add(pagerId(path))
    }
  }
}

/** Removes a stale socket; ends a home pager whose run is gone. Ids of live ones are added to `live`. */
async function cleanPager(path: string, live: Set<string>): Promise<Finding[]> {
  const id = pagerId(path)
  try {
    const pager = await PagerClient.connect(path, 'observer')
    const { role, pagerPid } = pager.describe
    if (role === 'home' && isOurPager(pagerPid) && isOrphan(pagerPid)) return [await endOrphan(pager, path)]
    live.add(id)
    pager.close()
    return []
  } catch (error) {
    if (!(error instanceof PagerError)) throw error
    if (error.code !== 'gone') {
      live.add(id)
      return [{ what: 'socket', path, removed: false, reason: error.message }]
    }
    rmSync(path, { force: true })
    return [{ what: 'socket', path, removed: true, reason: 'its pager is gone' }]
  }
}

function pagerId(path: string): string {
  const name = basename(path)
  return name === 'home.sock' ? basename(dirname(path)) : (name.split('.')[0] ?? '')
}

function isOurPager(pid: number): boolean {
  try {
    return basename(readlinkSync(`/proc/${pid}/exe`).replace(/ \(deleted\)$/, '')).startsWith(PAGER_NAME)
  } catch {
    return false
  }
}

/** A home pager is the child of its `run`; when that is gone init or a subreaper has taken it over. */
function isOrphan(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
    const command = readFileSync(`/proc/${parent}/cmdline`, 'utf8').split('\0')
    return parent <= 1 || !command.includes('run')
  } catch {
    return false
  }
}

async function endOrphan(pager: PagerClient, path: string): Promise<Finding> {
  const pid = pager.describe.pagerPid
  const ended = new Promise<boolean>(resolve => {
    pager.onClose(() => resolve(true))
    setTimeout(() => resolve(false), END_TIMEOUT_MS).unref()
  })
  pager.send({ kind: 'terminate', reason: 'its run is gone' })
  if (!(await ended)) process.kill(pid, 'SIGKILL')
  rmSync(path, { force: true })
  return {
    what: 'pager',
    path: `${pid} (${pager.describe.program})`,
    removed: true,
    reason: 'its run is gone',
  }
}

async function cleanRunDirectory(directory: string, live: Set<string>): Promise<Finding[]> {
  if (live.has(basename(directory))) return []
  const socket = runPagerSocket(directory)
  if (existsSync(socket)) {
    const findings = await cleanPager(socket, live)
    if (live.has(basename(directory))) return findings
  }
  rmSync(directory, { recursive: true, force: true })
  return [{ what: 'directory', path: directory, removed: true, reason: 'its run is gone' }]
}

/** A run whose pager is not up yet has said whose directory it is, and so has an agent inside it. */
function isInUse(directory: string): boolean {
  return [runLock(directory), join(directory, 'agent.lock')].some(path => {
    if (!existsSync(path)) return false
    const pid = Number.parseInt(readFileSync(path, 'utf8'), 10)
    return pid > 0 && existsSync(`/proc/${pid}`)
  })
}

function cleanLogs(directory: string, live: ReadonlySet<string>): Finding[] {
  if (!existsSync(directory)) return []
  const findings: Finding[] = []
  for (const name of readdirSync(directory)) {
    if (!/^[0-9a-f]{16}\.peer\.log$/.test(name) || live.has(name.slice(0, 16))) continue
    const path = join(directory, name)
    rmSync(path, { force: true })
    findings.push({ what: 'log', path, removed: true, reason: 'its pager is gone' })
  }
  return findings
}

async function cleanControl(path: string): Promise<Finding[]> {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() !== true) return []
  const [{ ControlClient }, { ControlError }] = await Promise.all([
    import('../control/client.js'),
    import('../control/errors.js'),
  ])
  try {
    const client = await ControlClient.connect(path)
    client.close()
    return []
  } catch (error) {
    if (!(error instanceof ControlError) || error.code !== 'absent') return []
    rmSync(path, { force: true })
    return [{ what: 'socket', path, removed: true, reason: 'its agent is gone' }]
  }
}
