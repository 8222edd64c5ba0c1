/**
 * What the control groups of a process have to spare: of each one with a limit, from its own up to the topmost that can
 * be seen (Documentation/admin-guide/cgroup-v2.rst; cgroup-v1/memory.rst for machines that still have that).
 *
 * Limits: a group that is not mounted here, as above a container's own, cannot be seen. Of what a group holds only its
 * inactive file pages count as available, for they go without a trace.
 */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Memory, Stalls } from '../machines/pressure.js'

interface Hierarchy {
  readonly limits: readonly string[]
  readonly used: string
  /** In memory.stat, of the group and those below it. */
  readonly inactive: string
}

const V2: Hierarchy = {
  limits: ['memory.max', 'memory.high'],
  used: 'memory.current',
  inactive: 'inactive_file',
}
const V1: Hierarchy = {
  limits: ['memory.limit_in_bytes'],
  used: 'memory.usage_in_bytes',
  inactive: 'total_inactive_file',
}

/** Of the groups of process `pid` that limit it. What cannot be read limits nothing. */
export function groupMemory(pid: number | 'self', pageSize: number, proc = '/proc'): (Memory & Stalls)[] {
  const mounts = readText(join(proc, `${pid}`, 'mountinfo')).split('\n')
  const lines = readText(join(proc, `${pid}`, 'cgroup')).split('\n')
  return lines.flatMap(line => {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? []
    if (path === undefined || (controllers !== '' && controllers !== 'memory')) return []
    const hierarchy = controllers === '' ? V2 : V1
    const directories = groupDirectories(mounts, hierarchy, path)
    return directories.flatMap(directory => limitOf(directory, hierarchy, pageSize))
  })
}

/** Of the group at `path` and those above it. */
function groupDirectories(mounts: readonly string[], hierarchy: Hierarchy, path: string): string[] {
  const type = hierarchy === V2 ? / - cgroup2 / : / - cgroup .*\bmemory\b/
  const [, , , root = '', mountPoint = ''] = mounts.find(line => type.test(line))?.split(' ') ?? []
  if (mountPoint === '') return []
  const below = path === root || path.startsWith(root === '/' ? root : `${root}/`)
  const names = below ? path.slice(root.length).split('/').filter(Boolean) : []
  return [...names.keys(), names.length].map(depth => join(mountPoint, ...names.slice(0, depth)))
}

function limitOf(directory: string, hierarchy: Hierarchy, pageSize: number): (Memory & Stalls)[] {
  const numberIn = (file: string) => Number.parseInt(readText(join(directory, file)), 10)
  const limits = hierarchy.limits.map(numberIn).filter(limit => limit >= 0)
  const used = numberIn(hierarchy.used)
  if (limits.length === 0 || Number.isNaN(used)) return []
  const stat = readText(join(directory, 'memory.stat'))
  const inactive = Number(new RegExp(`^${hierarchy.inactive} (\\d+)$`, 'm').exec(stat)?.[1] ?? 0)
  const limit = Math.min(...limits)
  const [totalPages, availablePages] = [limit, Math.max(0, limit - used + inactive)].map(bytes =>
    Math.floor(bytes / pageSize),
  ) as [number, number]
  return [{ totalPages, availablePages, ...stallsIn(join(directory, 'memory.pressure')) }]
}

/** As in a file of pressure stall information; nobody waits where there is none. */
export function stallsIn(path: string): Stalls {
  const text = readText(path)
  const percent = (kind: string) =>
    Number(new RegExp(`^${kind} avg10=(\\d+\\.\\d+) `, 'm').exec(text)?.[1] ?? 0)
  return { some: percent('some'), full: percent('full') }
}

export function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
