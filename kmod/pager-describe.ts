/** Who a pager is: its answer to HELLO, and the fields of that message. */

import type { Fields } from './pager-frame.js'

export type PagerRole = 'home' | 'peer'
const PAGER_ROLES: readonly PagerRole[] = ['home', 'peer']

/** `appPid` and `lanePort` are 0 where there is none. */
export interface Describe {
  readonly role: PagerRole
  readonly pagerPid: number
  readonly appPid: number
  readonly node: number
  readonly lanePort: number
  readonly memoryPages: number
  readonly epoch: number
  readonly uid: number
  readonly startedAtMs: number
  readonly id: string
  readonly program: string
  readonly nodeName: string
}

/** Its numbers and strings. */
export function describeFields(describe: Describe): [number[], string[]] {
  const { role, pagerPid, appPid, node, lanePort, memoryPages, epoch, uid, startedAtMs } = describe
  const nums = [pagerPid, appPid, node, lanePort, memoryPages, epoch, uid, startedAtMs]
  return [
    [PAGER_ROLES.indexOf(role), ...nums],
    [describe.id, describe.program, describe.nodeName],
  ]
}

export function readDescribe(fields: Fields): Describe {
  return {
    role: fields.choice(PAGER_ROLES),
    pagerPid: fields.count(1),
    appPid: fields.count(),
    node: fields.count(),
    lanePort: fields.port(),
    memoryPages: fields.count(),
    epoch: fields.count(),
    uid: fields.count(),
    startedAtMs: fields.count(),
    id: fields.name(),
    program: fields.text(),
    nodeName: fields.name(),
  }
}
