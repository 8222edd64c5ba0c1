/**
 * `npm run torture -- [--seconds N] [--seed S]`: a program that verifies every page it writes, on three agents under
 * random limits, policies and jumps, while participants leave in order and come back and pagers stall; round after
 * round until the time is over. Ends with 0 only if every round was right and left nothing behind.
 */

import { parseArgs } from 'node:util'
import { TestCluster } from '../helpers/cluster.js'
import { buildProgram } from '../helpers/programs.js'
import { agentStart, Dice, plan, round } from './round.js'

const USAGE = 'usage: npm run torture -- [--seconds N] [--seed S]'
const ROUND_SECONDS_MIN = 5
const ROUND_SECONDS_MAX = 20

interface Wish {
  readonly seconds: number
  readonly seed: number
}

/** Throws an Error with one line. */
function readWish(args: string[]): Wish {
  const { values } = parseArgs({ args, options: { seconds: { type: 'string' }, seed: { type: 'string' } } })
  const number = (flag: string, text: string | undefined, otherwise: number) => {
    const value = text === undefined ? otherwise : Number(text)
    if (!Number.isSafeInteger(value) || value < 1) throw new Error(`${flag} wants a whole number from 1`)
    return value
  }
  return {
    seconds: number('--seconds', values.seconds, 60),
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

async function main(): Promise<number> {
  let wish: Wish
  try {
    wish = readWish(process.argv.slice(2))
  } catch (error) {
    console.error(`torture: ${error instanceof Error ? error.message : error}\n${USAGE}`)
    return 2
  }
  const end = performance.now() + wish.seconds * 1000
  console.log(`torture: seed ${wish.seed}, ${wish.seconds} seconds`)
  const dice = new Dice(wish.seed)
  for (let rounds = 1; ; rounds++) {
    const left = Math.round((end - performance.now()) / 1000)
    if (left < ROUND_SECONDS_MIN) {
      console.log(`torture: ${rounds - 1} rounds, all right`)
      return 0
    }
    const seed = rounds === 1 ? wish.seed : dice.number(1, 2 ** 31 - 1)
    const seconds = Math.min(left, new Dice(seed).number(ROUND_SECONDS_MIN, ROUND_SECONDS_MAX))
    console.log(`torture: round ${rounds}, seed ${seed}, ${seconds} seconds`)
    const problems = await oneRound(seed, seconds, text => console.log(`  ${text}`))
    if (problems.length === 0) continue
    for (const problem of problems) console.log(`torture: WRONG: ${problem}`)
    console.log(`torture: repeat with: npm run torture -- --seed ${seed} --seconds ${seconds}`)
    return 1
  }
}

process.exitCode = await main()
