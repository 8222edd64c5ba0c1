/**
 * One round of the torture: a program that verifies all of its memory runs on three agents, while participants are
 * stopped in order and started again, agents are killed, pagers are stalled, and connections between them are cut.
 * Whatever is drawn at random comes from the round's seed.
 *
 * Limits: what is drawn repeats, the moments at which it meets the program do not. Connections can be cut by root only.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import {
  type AgentStart,
  type RunOutcome,
  type TestCluster,
  type TestPager,
  until,
} from '../helpers/cluster.js'
import { leftovers, snapshot } from '../helpers/leftovers.js'
import { alive, census, type ProcessSeen } from '../helpers/processes.js'
import { connectionsOf, reset } from './cut.js'
import type { Dice } from './dice.js'

/** Shorter than the four seconds after which a silent node counts as lost, with time for a busy machine to notice. */
const STALL_MS_MAX = 2000
const JOIN_TIMEOUT_MS = 90_000
/** From the end of the program's own time to the end of the run: every page is verified once more. */
const FINISH_MS = 120_000
const CLEAN_WITHIN_MS = 10_000
const MEGABYTES = 24
const CAPACITIES = ['8M', '16M', '64M'] as const
const POLICIES = [
  'always-pull',
  'multinode-adaptive-lru',
  'multinode-adaptive-lru:window=10,threshold=0.6',
] as const

export type Note = (text: string) => void

export interface Plan {
  /** What each agent lends, in the order of their names. */
  readonly capacities: readonly string[]
  readonly threads: number
  readonly seed: number
  readonly seconds: number
  readonly flags: readonly string[]
}

export function plan(dice: Dice, seconds: number): Plan {
  const flags = ['--memory', `${dice.number(5, 20)}M`, '--policy', dice.of(POLICIES)]
  const jumpEvery = dice.of([0, 0, 1, 7, 20, 100])
  if (jumpEvery > 0) flags.push('--jump-every', String(jumpEvery))
  const capacities = [dice.of(CAPACITIES), dice.of(CAPACITIES), dice.of(CAPACITIES)]
  return { capacities, threads: dice.number(1, 6), seed: dice.number(1, 1 << 30), seconds, flags }
}

/** How agent `name` is started, each time. */
export function agentStart({ capacities }: Plan, name: string): AgentStart {
  return { flags: ['--capacity', capacities['abc'.indexOf(name)] ?? '64M'] }
}

/** Runs `plan` on agents a, b and c, which are there already. Resolves to what was wrong: one line each. */
export async function round(
  cluster: TestCluster,
  program: string,
  plan: Plan,
  dice: Dice,
  note: Note,
): Promise<string[]> {
  const { threads, seed, seconds, flags } = plan
  await cluster.whenJoined(3)
  const before = snapshot(cluster)
  const command = [program, threads, seed, seconds, MEGABYTES].map(String)
  const all = ['--participants-min', '3', '--wait', '60s', ...flags]
  const running = cluster.run('a', all, command, { timeoutMs: seconds * 1000 + FINISH_MS })
  const during = new Map<number, ProcessSeen>()
  let ended = false
  const outcome = running.outcome.finally(() => {
    ended = true
  })
  const problems: string[] = []
  await until('the program', () => ended || running.stdout !== '', JOIN_TIMEOUT_MS)
  while (!ended) {
    for (const each of census(cluster.directory)) during.set(each.pid, each)
    await disturb(cluster, plan, dice, note).catch((error: Error) => problems.push(error.message))
    await Promise.race([outcome, sleep(dice.number(100, 1500))])
  }
  const end = await outcome
  problems.push(...judge(end))
  for (const name of ['a', 'b', 'c'])
    if (!cluster.agents.has(name)) await cluster.startAgent(name, agentStart(plan, name))
  if (problems.length === 0)
    problems.push(...(await leftovers(cluster, before, [...during.values()], CLEAN_WITHIN_MS)))
  const { pulls = 0, pushes = 0, pagesSpilled = 0, jumps = 0, lanesResumed = 0 } = end.stats ?? {}
  const moved = `${pulls} pulls, ${pushes} pushes, ${pagesSpilled} pages spilled, ${jumps} jumps`
  note(`${end.stdout.toString().trim()}; ${moved}, ${lanesResumed} connections resumed`)
  return problems
}

function judge(end: RunOutcome): string[] {
  const said = end.stdout.toString()
  const problems: string[] = []
  if (end.status !== 0) problems.push(`exit status ${end.status ?? end.signal}`)
  if (!/^begins\nright: \d+ steps\n$/.test(said)) problems.push(`standard output: ${said.slice(0, 500)}`)
  if (end.stderr !== '') problems.push(`standard error: ${end.stderr.slice(0, 500)}`)
  if (end.status === 0 && end.stats?.mode !== 'stretched') problems.push('it was not stretched')
  return problems
}

/** One thing that a run has to bear. */
async function disturb(cluster: TestCluster, plan: Plan, dice: Dice, note: Note): Promise<void> {
  const pagers = cluster.pagers()
  if (pagers.length === 0) return
  const pager = dice.of(pagers)
  switch (dice.of(['stall', 'stall', 'cut', 'cut', 'participant', 'participant', 'agent'])) {
    case 'stall':
      return await stall(pager, dice.number(10, STALL_MS_MAX), note)
    case 'cut':
      return cut(pager, dice, note)
    case 'participant':
      return await comeOrGo(cluster, plan, dice.of(['b', 'c']), 'SIGTERM', note)
    case 'agent':
      return await comeOrGo(cluster, plan, dice.of(['a', 'b', 'c']), 'SIGKILL', note)
  }
}

async function stall(pager: TestPager, stallMs: number, note: Note): Promise<void> {
  note(`the pager on ${pager.node} stalls for ${stallMs} ms`)
  try {
    process.kill(pager.pid, 'SIGSTOP')
    await sleep(stallMs)
  } finally {
    if (alive(pager.pid)) process.kill(pager.pid, 'SIGCONT')
  }
}

/** Some connections of a pager's lanes. */
function cut(pager: TestPager, dice: Dice, note: Note): void {
  const cutNow = connectionsOf(pager.pid).filter(() => dice.number(0, 1) === 0)
  note(`${cutNow.filter(reset).length} connections of the pager on ${pager.node} are cut`)
}

/** An agent that is killed leaves its pagers to the one that is started next. */
async function comeOrGo(
  cluster: TestCluster,
  plan: Plan,
  name: string,
  signal: 'SIGTERM' | 'SIGKILL',
  note: Note,
): Promise<void> {
  if (cluster.agents.has(name)) {
    note(`${name} is ${signal === 'SIGKILL' ? 'killed' : 'told to stop'}`)
    await cluster.stopAgent(name, signal)
  } else {
    note(`${name} is started`)
    await cluster.startAgent(name, agentStart(plan, name))
  }
}
