/**
 * The figures of the control plane: agents that find each other, gossip, and otherwise do nothing. They run wherever the
 * kernel puts them.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { type Figure, type Rounds, sampleOf } from '../figure.js'
import type { Measure } from '../measures.js'
import { gossipIn } from './gossip.js'
import { AgentGroup } from './group.js'
import { usageOf } from './usage.js'

const CPU_GOAL_PERCENT = 1
const RSS_GOAL_MB = 120

/** After the last one has joined: compilation, first garbage, the mesh of the gossip. */
const SETTLE_SECONDS = { full: 15, quick: 5 }
const IDLE_SECONDS = { full: 30, quick: 10 }
const GOSSIP_SECONDS = { full: 40, quick: 8 }
const NEWCOMERS = { full: 8, quick: 2 }

const REPORTED = ['ready', 'first-peer', 'join', 'all-ready', 'mesh', 'tcp', 'gossip', 'cpu', 'rss', 'pss']

interface Newcomer {
  /** From the start of its process until it says that it is ready, has a first peer, and all know all. */
  readonly readyMs: number
  readonly firstPeerMs: number
  readonly joinMs: number
}

/** `count` agents that are started together, do nothing, and gossip; the last one of them is started anew a few times. */
export function agents(count: number): Measure {
  const name = `agents/${count}`
  return {
    name,
    reports: REPORTED.map(each => `${name}/${each}`),
    async round(rounds, quick) {
      const length = quick ? 'quick' : 'full'
      const add = (what: string, values: readonly number[], unit: string) =>
        rounds.add(`${name}/${what}`, sampleOf(values, unit))
      const group = await AgentGroup.make()
      try {
        const { readyMs, meshMs } = await startTogether(group, count)
        add('all-ready', [readyMs], 'ms')
        add('mesh', [meshMs], 'ms')
        await sleep(SETTLE_SECONDS[length] * 1000)
        const usage = await usageOf(
          group.names.map(each => group.pid(each)),
          IDLE_SECONDS[length],
        )
        for (const [what, field, unit] of USED)
          add(
            what,
            usage.map(one => one[field]),
            unit,
          )
        const newcomers: Newcomer[] = []
        while (newcomers.length < NEWCOMERS[length]) newcomers.push(await replaceOne(group, count))
        for (const [what, field] of TIMED)
          add(
            what,
            newcomers.map(one => one[field]),
            'ms',
          )
        const { gossipMs, tcpMs } = await gossipIn(group, GOSSIP_SECONDS[length])
        add('gossip', gossipMs, 'ms')
        add('tcp', tcpMs, 'ms')
      } finally {
        await group.stop()
      }
    },
    report: rounds => reportOf(name, rounds),
  }
}

const USED = [
  ['cpu', 'cpuPercent', '%'],
  ['rss', 'rssMb', 'MB'],
  ['pss', 'pssMb', 'MB'],
] as const

const TIMED = [
  ['ready', 'readyMs'],
  ['first-peer', 'firstPeerMs'],
  ['join', 'joinMs'],
] as const

async function startTogether(group: AgentGroup, count: number) {
  const fromMs = performance.now()
  const ready = Array.from({ length: count }, (_, i) => group.start(`agent-${i + 1}`))
  const readyMs = Math.max(...(await Promise.all(ready)))
  await group.untilJoined(count)
  return { readyMs, meshMs: performance.now() - fromMs }
}

async function replaceOne(group: AgentGroup, count: number): Promise<Newcomer> {
  const name = `agent-${count}`
  await group.stopAgent(name)
  await group.untilJoined(count - 1)
  const fromMs = performance.now()
  const readyMs = await group.start(name)
  await group.untilJoined(2, [name], 'or-more')
  const firstPeerMs = performance.now() - fromMs
  await group.untilJoined(count)
  return { readyMs, firstPeerMs, joinMs: performance.now() - fromMs }
}

function reportOf(name: string, rounds: Rounds): Figure[] {
  const goals = { cpu: CPU_GOAL_PERCENT, rss: RSS_GOAL_MB, pss: RSS_GOAL_MB }
  const per = (what: string, by: string, words: string, note: string) =>
    rounds.figure(`${name}/${what}`, `${name}/${what}`, words, note, p50Of => p50Of(`${name}/${by}`))
  const idle = (what: keyof typeof goals, words: string, note: string) =>
    rounds.figure(`${name}/${what}`, `${name}/${what}`, words, note, () => goals[what])
  return [
    rounds.reference(
      `${name}/ready`,
      'one more agent, from the start of its process until it says that it is ready',
    ),
    per('first-peer', 'ready', `${name}/ready`, 'the same, until the first other agent has joined'),
    per('join', 'ready', `${name}/ready`, 'the same, until it knows all and all know it'),
    rounds.reference(`${name}/all-ready`, 'all agents started together, until the last one is ready'),
    per('mesh', 'all-ready', `${name}/all-ready`, 'the same, until each knows all others'),
    rounds.reference(
      `${name}/tcp`,
      'one way over plain TCP between two processes on two hosts, as many bytes as a load',
    ),
    per('gossip', 'tcp', `${name}/tcp`, 'from publishing a load at one agent to its delivery at another'),
    idle('cpu', 'the goal, 1 %', 'processor time of an idle agent; the values are those of the agents'),
    idle('rss', 'the goal, 120 MB', 'resident memory of an idle agent, with all that it shares'),
    idle('pss', 'the goal, 120 MB', 'resident memory of an idle agent, what it shares with others in parts'),
  ]
}
