/**
 * What a virtual machine is made of, from the packages of the system's own archive: QEMU and busybox as they are installed,
 * and a kernel that is unpacked beside the system, never installed (there may be no boot loader).
 *
 * Unpacked kernels are kept in $XDG_CACHE_HOME/elasticos-vm, by the package's name.
 */

import { spawnSync } from 'node:child_process'
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
} from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

const KERNEL_PACKAGE = 'linux-image-cloud-amd64'
const DOWNLOAD_TIMEOUT_MS = 120_000
const PROGRAMS = [
  { program: 'qemu-system-x86_64', package: 'qemu-system-x86' },
  { program: 'busybox', package: 'busybox-static' },
] as const

/** This system cannot give what a machine is made of; the message says how to mend it. */
export class Unobtainable extends Error {}

export interface MachineParts {
  readonly qemu: string
  readonly busybox: string
  readonly kernel: Kernel
}

export interface Kernel {
  /** As `uname -r` says it. */
  readonly release: string
  readonly image: string
  /** Folder of the modules, /lib/modules/RELEASE in its package. */
  readonly modules: string
}

/** Throws Unobtainable. `series`: the kernel's version has to begin with it, as '6.1'. */
export function obtainParts(series: string): MachineParts {
  const found = PROGRAMS.map(each => ({ ...each, path: findProgram(each.program) }))
  const missing = found.filter(each => each.path === undefined).map(each => each.package)
  if (missing.length > 0)
    throw new Unobtainable(
      `run \`apt-get install -y --no-install-recommends ${missing.join(' ')}\` (as root)`,
    )
  const [qemu, busybox] = found.map(each => each.path ?? '')
  return { qemu: qemu ?? '', busybox: busybox ?? '', kernel: obtainKernel(series) }
}

function findProgram(name: string): string | undefined {
  return (process.env.PATH ?? '')
    .split(':')
    .map(directory => join(directory, name))
    .find(isExecutable)
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

function obtainKernel(series: string): Kernel {
  const listed = run('apt-cache', ['depends', KERNEL_PACKAGE], '/')
  const packages = [...listed.matchAll(/Depends: (linux-image-\S+)/g)].map(match => match[1] ?? '')
  const name = packages.find(each => each.startsWith(`linux-image-${series}.`))
  if (name === undefined) {
    const why = packages.length === 0 ? 'unknown to apt-cache' : `${packages.join(', ')} here`
    throw new Unobtainable(
      `${KERNEL_PACKAGE} is ${why}, not ${series}: run \`apt-get update\` (as root, on Debian 12)`,
    )
  }
  const root = unpacked(name)
  const release = name.slice('linux-image-'.length)
  return {
    release,
    image: join(root, 'boot', `vmlinuz-${release}`),
    modules: join(root, 'lib', 'modules', release),
  }
}

/** The folder into which a package is unpacked; downloaded once. */
function unpacked(name: string): string {
  const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'elasticos-vm')
  const root = join(cache, name)
  if (existsSync(root)) return root
  mkdirSync(cache, { recursive: true })
  const work = mkdtempSync(join(cache, 'work-'))
  try {
    run('apt-get', ['download', name], work)
    const file = readdirSync(work).find(each => each.endsWith('.deb'))
    if (file === undefined) throw new Unobtainable(`apt-get download ${name} brought no package`)
    run('dpkg', ['-x', file, 'root'], work)
    if (!existsSync(root)) renameSync(join(work, 'root'), root)
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
  return root
}

function run(command: string, args: readonly string[], cwd: string): string {
  const options = {
    cwd,
    encoding: 'utf8',
    timeout: DOWNLOAD_TIMEOUT_MS,
    env: { ...process.env, LC_ALL: 'C' },
  } as const
  const done = spawnSync(command, args, options)
  if (done.status === 0) return done.stdout
  const why = done.error?.message ?? done.stderr.trim()
  throw new Unobtainable(`${command} ${args.join(' ')}: ${why}`)
}
