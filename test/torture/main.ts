/**
 * `npm run torture -- [--seconds N | --kills N] [--seed S]`: a program that verifies every page it writes, on three agents under
 * random limits, policies and jumps, while participants leave in order and come back and pagers stall; round after
 * round until the time is over. Ends with 0 only if every round was right and left nothing behind.
 */

import { parseArgs } from 'node:util'
import { TestCluster } from '../helpers/cluster.js'
import { buildProgram } from '../helpers/programs.js'
import { Dice } from './dice.js'
import { killOnce } from './kills.js'
import { agentStart, plan, round } from './round.js'

const USAGE = 'usage: npm run torture -- [--seconds N | --kills N] [--seed S]'
const ROUND_SECONDS_MIN = 5
const ROUND_SECONDS_MAX = 20

interface Wish {
  readonly seconds: number
  readonly kills: number | undefined
  readonly seed: number
}

/** Throws an Error with one line. */
function readWish(args: string[]): Wish {
  const { values } = parseArgs({
    args,
    options: { seconds: { type: 'string' }, kills: { type: 'string' }, seed: { type: 'string' } },
  })
  const number = (flag: string, text: string | undefined, otherwise: number) => {
    const value = text === undefined ? otherwise : Number(text)
    if (!Number.isSafeInteger(value) || value < 1) throw new Error(`${flag} wants a whole number from 1`)
    return value
  }
  return {
    seconds: number('--seconds', values.seconds, 60),
    kills: values.kills === undefined ? undefined : number('--kills', values.kills, 1),
    seed: number('--seed', values.seed, Date.now() % 2 ** 31),
  }
}

/** One round with agents of its own. Resolves to what was wrong. */
async function oneRound(seed: number, seconds: number, note: (text: string) => void): Promise<string[]> {
  const dice = new Dice(seed)
  const cluster = await TestCluster.make()
  const problems: string[] = []
  try {
    const chosen = plan(dice, seconds)
    note(`${chosen.threads} threads, ${chosen.flags.join(' ')}, capacities ${chosen.capacities.join(' ')}`)
    await cluster.startAgents(3, name => agentStart(chosen, name))
    const program = buildProgram('torture', cluster.directory)
    problems.push(...(await round(cluster, program, chosen, dice, note)))
  } catch (error) {
    problems.push(error instanceof Error ? error.message : String(error))
  }
  if (problems.length > 0)
    for (const name of ['a', 'b', 'c']) note(`the log of ${name} ends:\n${cluster.log(name).slice(-3000)}`)
  problems.push(...(await cluster.stop()).map(each => `still there at the end: ${each}`))
  return problems
}

/** Resolves to the exit status. */
async function rounds({ seconds, seed: firstSeed }: Wish): Promise<number> {
  const end = performance.now() + seconds * 1000
  console.log(`torture: seed ${firstSeed}, ${seconds} seconds`)
  const dice = new Dice(firstSeed)
  for (let done = 0; ; done++) {
    const left = Math.round((end - performance.now()) / 1000)
    if (left < ROUND_SECONDS_MIN) {
      console.log(`torture: ${done} rounds, all right`)
      return 0
    }
    const seed = done === 0 ? firstSeed : dice.number(1, 2 ** 31 - 1)
    const secondsHere = Math.min(left, new Dice(seed).number(ROUND_SECONDS_MIN, ROUND_SECONDS_MAX))
    console.log(`torture: round ${done + 1}, seed ${seed}, ${secondsHere} seconds`)
    const problems = await oneRound(seed, secondsHere, text => console.log(`  ${text}`))
    if (problems.length === 0) continue
    for (const problem of problems) console.log(`torture: WRONG: ${problem}`)
    console.log(`torture: repeat with: npm run torture -- --seed ${seed} --seconds ${secondsHere}`)
    return 1
  }
}

/** Resolves to the exit status. */
async function kills(count: number, seed: number): Promise<number> {
  console.log(`torture: seed ${seed}, ${count} kills`)
  const dice = new Dice(seed)
  const cluster = await TestCluster.make()
  let wrong = 0
  try {
    await cluster.startAgents(2, { flags: ['--capacity', '64M'] })
    for (let done = 1; done <= count; done++) {
      const problems = await killOnce(cluster, dice)
      for (const problem of problems) console.log(`torture: WRONG: kill ${done}: ${problem}`)
      wrong += problems.length > 0 ? 1 : 0
      if (done % 50 === 0) console.log(`torture: ${done} kills, ${wrong} wrong`)
    }
  } finally {
    for (const each of await cluster.stop()) console.log(`torture: still there at the end: ${each}`)
  }
  console.log(`torture: ${count} kills, ${wrong === 0 ? 'all right' : `${wrong} wrong`}`)
  return wrong === 0 ? 0 : 1
}

async function main(): Promise<number> {
  let wish: Wish
  try {
    wish = readWish(process.argv.slice(2))
  } catch (error) {
    console.error(`torture: ${error instanceof Error ? error.message : error}\n${USAGE}`)
    return 2
  }
  return wish.kills === undefined ? await rounds(wish) : await kills(wish.kills, wish.seed)
}

process.exitCode = await main()
