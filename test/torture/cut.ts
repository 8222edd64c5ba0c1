/**
 * Cuts TCP connections between two pagers from outside: the kernel resets them, as one that has restarted would
 * (`ss --kill`: root, and a kernel with INET_DIAG_DESTROY).
 */

import { spawnSync } from 'node:child_process'

const RESET_TIMEOUT_MS = 5000

function ss(args: readonly string[]): string[] {
  const { stdout } = spawnSync('ss', ['-H', '-t', '-n', ...args], {
    encoding: 'utf8',
    timeout: RESET_TIMEOUT_MS,
  })
  return (stdout ?? '').split('\n').filter(line => line !== '')
}

/** Both addresses of each connection of a process, as `ss` takes them. */
export function connectionsOf(pid: number): [string, string][] {
  return ss(['-p', 'state', 'established']).flatMap(line => {
    const [, , here = '', there = ''] = line.split(/\s+/)
    return line.includes(`pid=${pid},`) ? [[here, there] as [string, string]] : []
  })
}

/** False where that is not possible, or the connection is gone. */
export function reset([here, there]: readonly [string, string]): boolean {
  return ss(['-K', 'src', here, 'dst', there]).length > 0
}
