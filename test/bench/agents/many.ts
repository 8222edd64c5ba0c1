/**
 * What an agent costs among a hundred, while ten elastic processes run: one that is home of all ten, one that lends to
 * them all, and one that has no part in them are real ones; the others are a crowd (crowd.ts).
 *
 * A hundred agents tell their loads every ten seconds at most, and each passes on what it hears to three. A crowd of a
 * few that tell theirs once a second makes the measured ones hear, check and pass on as much. What is not in the figures:
 * the memory of a hundred connections, and the ten sends a second with which an agent tells its own load to all.
 */

import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Readable, Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { Figure } from '../figure.js'
import type { Measure } from '../measures.js'
import { programPath } from '../native.js'
import type { CrowdOptions } from './crowd.js'
import { AgentGroup } from './group.js'
import { usageOf } from './usage.js'

const CPU_GOAL_PERCENT = 1
/**
 * A hundred agents tell their loads after 0.7 to 1 times ten seconds, 12 a second in all; a few after as much of five
 * seconds, unless they are more impatient.
 */
const CROWD = { agents: 8, times: 7 }
const CROWD_TIMEOUT_MS = 180_000
const IDLE_SECONDS = { full: 60, quick: 15 }
const SETTLE_MS = 15_000
const PROCESSES = 10
const PAGES = 2048
const MEMORY = '4M'
const STRETCHED_MS = 90_000
const PROGRAM = fileURLToPath(new URL('crowd.js', import.meta.url))
const ROLES = ['home', 'lender', 'other'] as const
/** The others have nothing to lend, so that there is one lender. */
const LENDS = { home: '1M', lender: '1G', other: '1M' }

export const MANY: Measure = {
  name: 'agents/100',
  reports: ROLES.flatMap(role => [`agents/100/cpu/${role}`, `agents/100/rss/${role}`]),
  async round(rounds, quick) {
    const length = quick ? 'quick' : 'full'
    const group = await AgentGroup.make()
    const crowd = startCrowd(group)
    try {
      await once(crowd.stdout, 'data', { signal: AbortSignal.timeout(CROWD_TIMEOUT_MS) })
      for (const role of ROLES) await group.start(role, { flags: ['--capacity', LENDS[role]] })
      await group.untilJoined(ROLES.length + CROWD.agents)
      const runs = Array.from({ length: PROCESSES }, () =>
        group.cluster.run(
          'home',
          ['--memory', MEMORY, '--participants', '2', '--participants-min', '2', '--wait', '60s'],
          [programPath('linger'), String(PAGES)],
          { timeoutMs: 600_000 },
        ),
      )
      await whenStretched(group)
      await sleep(SETTLE_MS)
      const usage = await usageOf(
        ROLES.map(role => group.pid(role)),
        IDLE_SECONDS[length],
      )
      for (const [i, role] of ROLES.entries()) {
        const { cpuPercent = 0, rssMb = 0 } = usage[i] ?? {}
        rounds.add(`agents/100/cpu/${role}`, { p50: cpuPercent, p99: cpuPercent, unit: '%' })
        rounds.add(`agents/100/rss/${role}`, { p50: rssMb, p99: rssMb, unit: 'MB' })
      }
      for (const run of runs) run.child.kill('SIGTERM')
      await Promise.all(runs.map(run => run.outcome))
    } finally {
      crowd.kill('SIGKILL')
      await group.stop()
    }
  },
  report: rounds =>
    ROLES.flatMap((role): Figure[] => {
      const cpu = `agents/100/cpu/${role}`
      const note = `processor time of an agent among a hundred with ten elastic processes: ${NOTES[role]}`
      return [
        rounds.figure(cpu, cpu, 'the goal, 1 %', note, () => CPU_GOAL_PERCENT),
        rounds.reference(`agents/100/rss/${role}`, `its resident memory: ${NOTES[role]}`),
      ]
    }),
}

const NOTES = { home: 'home of all ten', lender: 'lends to all ten', other: 'has no part in them' }

function startCrowd(group: AgentGroup): ChildProcessByStdio<Writable, Readable, null> {
  const { prefix, address: host } = group.place('crowd')
  const names = Array.from({ length: CROWD.agents }, (_, i) => `crowd-${i + 1}`)
  const options: CrowdOptions = { keyFile: group.cluster.keyFile, host, names, times: CROWD.times }
  const [command = '', ...words] = [...prefix, process.execPath, PROGRAM, JSON.stringify(options)]
  return spawn(command, words, { stdio: ['pipe', 'pipe', 'inherit'] })
}

async function whenStretched(group: AgentGroup): Promise<void> {
  const deadline = performance.now() + STRETCHED_MS
  for (;;) {
    const processes = await group.cluster.processes('home')
    if (processes.filter(process => process.participants.length > 0).length === PROCESSES) return
    if (performance.now() > deadline) throw new Error('the ten processes are not stretched')
    await sleep(100)
  }
}
