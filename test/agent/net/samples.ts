/** One message of each kind that agents send each other, and loads. */

import type { Load } from '../../../agent/machines/membership.js'
import type { PeerId, ProcessId } from '../../../agent/machines/types.js'
import type { PeerMessage } from '../../../agent/net/messages.js'
import { FACTS } from '../fake-pagers.js'

const processId = '0123456789abcdef' as ProcessId
const peer = '12D3KooWJZmiUz1J3727T3pvRhDXvw62XTs8Uz2vhnjQUAdLWvZp' as PeerId
const terms = { pages: 5, threads: 1, ttlMs: 10_000 }
const refusal = { code: 'full', detail: '3 pages free' } as const
const laneKey = new Uint8Array(32).fill(7)
const room = { freePages: 1, capacityPages: 2, cpus: 3, processes: 4 }
const addresses = ['/ip4/1.2.3.4/tcp/5']

export const LOAD: Load = { name: 'n', incarnation: 1, sequence: 2, addresses, nextMs: 9, ...room }

export const MESSAGES: readonly PeerMessage[] = [
  { kind: 'hello', instance: '0'.repeat(32), load: LOAD },
  { kind: 'known', agents: [{ peer, addresses: ['/ip4/192.0.2.7/tcp/7420'] }] },
  { kind: 'twin-seen', instance: 'f'.repeat(32) },
  { kind: 'twin-claim', claim: new Uint8Array(200) },
  { kind: 'twin-told', claim: new Uint8Array(200), addresses: ['/ip4/192.0.2.7/tcp/7420'] },
  { kind: 'leaving' },
  {
    kind: 'offer',
    processId,
    leaseId: 2 ** 47,
    program: '/usr/bin/sört',
    homeName: 'h',
    node: 1,
    epoch: 1,
    pages: 9,
    threads: 1,
    facts: FACTS,
    laneKey,
  },
  { kind: 'grant', processId, leaseId: 1, terms, host: '::1', port: 4001 },
  { kind: 'refuse', processId, leaseId: 1, refusal },
  { kind: 'lease-update', processId, leaseId: 1, terms, reason: 'less memory' },
  { kind: 'release', processId, leaseId: 1, homeEnded: true },
  { kind: 'members', processId, members: [{ node: 0, name: 'h', peer }] },
  { kind: 'lane-ask', processId, leaseId: 1, fromNode: 2, laneKey },
  { kind: 'lane-agree', processId, leaseId: 1, terms, host: '', port: 1 },
  { kind: 'lane-refuse', processId, leaseId: 1, refusal },
  { kind: 'pager-ended', processId, leaseId: 1 },
  { kind: 'probe', probeId: 1, processId, leaseId: 1 },
  { kind: 'probe-for', probeId: 1, peer, processId, leaseId: 1 },
  { kind: 'probe-answer', probeId: 1, state: 'stalls' },
  { kind: 'ping', pingId: 2 ** 47 },
  { kind: 'pong', pingId: 2 ** 47 },
  { kind: 'owned', summaries: [{ processId, ranges: [{ first: 9, pages: 3, birth: 2, moves: 5 }] }] },
]
