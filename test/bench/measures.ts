/**
 * The figures of the page plane: wire, pull, jump, scan. Each function measures one round of what it is named after,
 * references first, and adds the samples to `rounds`; `report` makes figures of all rounds.
 */

import { type Figure, type Rounds, sampleOf } from './figure.js'
import { local, programPath, wire } from './native.js'
import { runPair } from './pair.js'

const PAGE_BYTES = 4096

export interface Measure {
  readonly name: string
  /** Names `--only` may ask for besides `name`: what the report holds. */
  readonly reports: readonly string[]
  round(rounds: Rounds, quick: boolean): Promise<void>
  report(rounds: Rounds): Figure[]
}

const SAME_RUN = 'two processes over loopback, pinned as the pagers are, the lane code of the pager'

function numbersOf(stdout: string): number[] {
  return stdout.trim().split('\n').map(Number)
}

async function addWire(rounds: Rounds, names: readonly ('raw' | 'rawTls')[], quick: boolean): Promise<void> {
  for (const only of names) rounds.add(only, await wire(rounds.cpus, { only, samples: quick ? 1000 : 4000 }))
}

export const PULL: Measure = {
  name: 'pull',
  reports: ['raw', 'rawTls', 'localFault', 'pull', 'pull/raw', 'pull/p99'],
  async round(rounds, quick) {
    await addWire(rounds, ['raw', 'rawTls'], quick)
    rounds.add('localFault', await local(rounds.cpus, 'localFault', quick ? 1000 : 4000))
    const limit = 1024
    const [pages, samples] = quick ? [8192, 2000] : [16_384, 10_000]
    const { stdout, stats } = await runPair({
      cpus: rounds.cpus,
      memoryPages: limit,
      command: [programPath('pull'), ...[pages, 2 * limit, samples].map(String)],
    })
    const tookUs = numbersOf(stdout).map(ns => ns / 1000)
    if ((stats.pulls ?? 0) < tookUs.length) throw new Error('pull: fewer pulls than pages asked for')
    rounds.add('pull', sampleOf(tookUs, 'µs'))
  },
  report(rounds) {
    const note = 'seen by the faulting thread at home; evictions that memory at its limit needs are included'
    return [
      rounds.reference('raw', `56 B → 4 KiB, plain TCP; ${SAME_RUN}`),
      rounds.reference('rawTls', `a lane frame → a lane frame with 4 KiB; ${SAME_RUN}`),
      rounds.reference('localFault', "userfaultfd COPY from a buffer by another process on the thread's CPU"),
      rounds.figure(
        'pull',
        'pull',
        'rawTls + localFault',
        note,
        p50Of => p50Of('rawTls') + p50Of('localFault'),
      ),
      rounds.figure('pull/raw', 'pull', 'raw', note, p50Of => p50Of('raw')),
      rounds.figure(
        'pull/p99',
        'pull',
        'rawTls + localFault, p99 of each',
        'p99 against p99',
        p99Of => p99Of('rawTls') + p99Of('localFault'),
        'p99',
      ),
    ]
  },
}

/** What the pager counts for a jump: its statistics after a run of the jump program. */
function jumpNumbers(stats: Readonly<Record<string, unknown>>) {
  const number = (name: string) => Number(stats[name] ?? 0)
  const us = stats.jumpUs as { p50?: number; p99?: number } | undefined
  return {
    jumps: number('jumps'),
    pages: number('pagesWithJumps'),
    jumpsHome: number('jumpsHome'),
    p50: us?.p50 ?? 0,
    p99: us?.p99 ?? 0,
  }
}

/** Headers, registers, what the program uses of the extended state, its rule's state: as seen on the lane. */
const CONTEXT_BYTES = 2288

export const JUMP: Measure = {
  name: 'jump',
  reports: ['context', 'jump', 'jump/raw'],
  async round(rounds, quick) {
    const limit = 1024
    const { stats } = await runPair({
      cpus: rounds.cpus,
      memoryPages: limit,
      jumpEvery: 1,
      command: [programPath('jump'), ...[8192, 2 * limit, quick ? 2000 : 5000].map(String)],
    })
    const { jumps, pages, jumpsHome, p50, p99 } = jumpNumbers(stats)
    if (jumps < 100) throw new Error(`jump: only ${jumps} jumps`)
    // Pages travel both ways, and with about equal numbers of trips.
    const bytes = CONTEXT_BYTES + Math.round((pages / (jumps + jumpsHome)) * PAGE_BYTES)
    rounds.add('jump', { p50, p99, unit: 'µs' })
    await addWire(rounds, ['raw'], quick)
    rounds.add('jumpTls', await wire(rounds.cpus, { only: 'echoTls', samples: quick ? 1000 : 4000, bytes }))
    rounds.add('jumpBytes', { p50: bytes, p99: bytes, unit: 'B' })
    rounds.add('context', await local(rounds.cpus, 'context', quick ? 1000 : 4000))
  },
  report(rounds) {
    const note =
      "the pagers' clock: from home's pager having the fault to the thread set running by the peer's; working set included"
    return [
      rounds.reference(
        'context',
        "fault delivery, interrupt, read, write to another task, on the thread's CPU",
      ),
      rounds.reference('jumpTls', `as many bytes as a jump carries, both ways; ${SAME_RUN}`),
      rounds.reference('jumpBytes', 'context and working set of one jump, mean'),
      rounds.figure(
        'jump',
        'jump',
        'jumpTls / 2 + context',
        note,
        p50Of => p50Of('jumpTls') / 2 + p50Of('context'),
      ),
      rounds.figure('jump/raw', 'jump', 'raw', note, p50Of => p50Of('raw')),
    ]
  },
}

export const SCAN: Measure = {
  name: 'scan',
  reports: ['bulkTls2', 'scan'],
  async round(rounds, quick) {
    const seconds = quick ? 0.3 : 1
    rounds.add('bulkTls2', await wire(rounds.cpus, { only: 'bulkTls2', seconds }))
    const limit = 4096
    const window = 512
    const pages = quick ? 8192 : 24_576
    const { stdout, stats } = await runPair({
      cpus: rounds.cpus,
      memoryPages: limit,
      command: [programPath('scan'), ...[pages, limit, window, 1].map(String)],
    })
    if ((stats.pagesPulled ?? 0) < 0.9 * pages) throw new Error('scan: the memory was not remote')
    const rates = numbersOf(stdout).map(ns => (window * PAGE_BYTES * 1e9) / ns)
    rounds.add('scan', sampleOf(rates, 'B/s', 'more'))
  },
  report(rounds) {
    const note = 'sequential read at home of memory that is all on the peer, each page in sends one out'
    return [
      rounds.reference('bulkTls2', `each direction, both at once; ${SAME_RUN}`),
      rounds.figure('scan', 'scan', 'bulkTls2', note, p50Of => p50Of('bulkTls2')),
    ]
  },
}
