/**
 * Processes as /proc shows them, and whether a test left some behind.
 *
 * Whatever a test cluster starts carries its directory in an environment variable. A shell process has no environment
 * at all and lives in namespaces of its own; it is known as a descendant, hence seen only by a census that is taken
 * while its pager lives. A pid counts with its start time: numbers are reused.
 */

import { readdirSync, readFileSync } from 'node:fs'

export const TAG = 'ELASTICOS_TEST_CLUSTER'

export interface ProcessSeen {
  readonly pid: number
  /** Clock ticks after boot: with the pid it names one process for ever (proc(5)). */
  readonly startTicks: string
  readonly text: string
}

interface Stat {
  readonly parent: number
  readonly state: string
  readonly startTicks: string
  readonly name: string
}

function stat(pid: number): Stat | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const end = text.lastIndexOf(')')
    const fields = text.slice(end + 2).split(' ')
    const name = text.slice(text.indexOf('(') + 1, end)
    return { parent: Number(fields[1]), state: fields[0] ?? '', startTicks: fields[19] ?? '', name }
  } catch {
    return undefined
  }
}

/** True for a process that still runs; a zombie does not. */
export function alive(pid: number): boolean {
  const seen = stat(pid)
  return seen !== undefined && seen.state !== 'Z' && seen.state !== 'X'
}

/** argv of a process; empty when it is gone. */
export function commandLine(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1)
  } catch {
    return []
  }
}

function allPids(): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter(pid => pid > 0)
}

/** Living processes that were started for the cluster in `directory`. */
export function taggedPids(directory: string): number[] {
  const entry = `${TAG}=${directory}`
  return allPids().filter(pid => {
    try {
      return readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').includes(entry) && alive(pid)
    } catch {
      return false
    }
  })
}

/** Processes of a cluster and all their descendants, as they are at this moment. */
export function census(directory: string): ProcessSeen[] {
  const parents = new Map<number, number>()
  for (const pid of allPids()) parents.set(pid, stat(pid)?.parent ?? 0)
  const found = new Set(taggedPids(directory))
  for (let grew = true; grew; ) {
    grew = false
    for (const [pid, parent] of parents) {
      if (!found.has(parent) || found.has(pid)) continue
      found.add(pid)
      grew = true
    }
  }
  return [...found].flatMap(pid => {
    const seen = stat(pid)
    if (seen === undefined) return []
    return [{ pid, startTicks: seen.startTicks, text: `${pid} (${seen.name}) ${commandLine(pid).join(' ')}` }]
  })
}

/** Those of `seen` that still exist; a zombie whose parent lives on counts too: somebody forgot to wait for it. */
export function stillThere(seen: readonly ProcessSeen[]): ProcessSeen[] {
  return seen.filter(each => {
    const now = stat(each.pid)
    if (now === undefined || now.startTicks !== each.startTicks) return false
    return now.state !== 'Z' || now.parent > 1
  })
}
