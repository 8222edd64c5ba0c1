/** `elasticos simulate` as a command: what it prints, its exit status, and what it says when something did not hold. */

import { spawnSync } from 'node:child_process'
import test from 'ava'

const MAIN_URL = new URL('../../agent/cli/main.js', import.meta.url).href
const SIMULATE_URL = new URL('../../sim-net/simulate.js', import.meta.url).href

/** Runs the command line with the real simulator, or with one whose every run has a violation. */
function simulate(args: readonly string[], broken = false) {
  const change = broken
    ? `start: options => ({ ...simulator.start(options), seconds: 1, step: () => false, result: () => ({
        seed: options.seed, hash: '0', violationsLeft: 2, virtualSeconds: 1, messages: 1, processes: 1, failed: 0,
        pulls: 0, jumps: 0, violations: [{ at: 1500, kind: 'owner', text: 'page 1\\u001b[2J', seed: options.seed }] }) })`
    : ''
  const code = `
    import { main } from '${MAIN_URL}'
    import { simulator } from '${SIMULATE_URL}'
    process.exitCode = await main(['simulate', ...process.argv.slice(1)], async () => ({ ...simulator, ${change} }))`
  return spawnSync(process.execPath, ['--input-type=module', '-e', code, '--', ...args], {
    encoding: 'utf8',
    timeout: 120_000,
  })
}

test('JSON of one seed, the same twice', t => {
  const args = ['--agents', '4', '--seconds', '4', '--seed', '7', '--faults', 'churn', '--json']
  const [one, again] = [simulate(args), simulate(args)].map(({ status, stdout, stderr }) => {
    t.is(status, 0, stderr)
    t.is(stderr, '')
    return JSON.parse(stdout)
  })
  t.deepEqual({ ...one, wallMs: 0 }, { ...again, wallMs: 0 })
  t.regex(one.hash, /^[0-9a-f]{16}$/)
  t.deepEqual(one.violations, [])
  t.true(one.virtualSeconds >= 4 && one.messages > 0 && one.wallMs > 0)
  t.like(one, { seed: 7, agents: 4, faults: 'churn' })
  t.is(one.command, 'elasticos simulate --agents 4 --seconds 4 --seed 7 --faults churn')
})

test('several seeds: each of them, and all together', t => {
  const { status, stdout } = simulate(['--agents', '3', '--seconds', '2', '--seeds', '3..4', '--json'])
  t.is(status, 0)
  const all = JSON.parse(stdout)
  t.deepEqual(
    all.runs.map(({ seed }: { seed: number }) => seed),
    [3, 4],
  )
  t.is(all.messages, all.runs[0].messages + all.runs[1].messages)
  t.regex(all.hash, /^[0-9a-f]{16}$/)
  t.deepEqual(all.violations, [])
})

test('what did not hold is named with the command that repeats it', t => {
  const { status, stdout } = simulate(['--agents', '5', '--seconds', '9', '--seeds', '1..2'], true)
  t.is(status, 1)
  t.is(
    stdout,
    `seed 1: 3 violations
  at 1.500 s, owner: page 1\\x1b[2J
  to repeat it: elasticos simulate --agents 5 --seconds 9 --seed 1 --faults calm
seed 2: 3 violations
  at 1.500 s, owner: page 1\\x1b[2J
  to repeat it: elasticos simulate --agents 5 --seconds 9 --seed 2 --faults calm
2 seeds: 2 with violations
${stdout.split('\n').slice(7).join('\n')}`,
  )
})

test('wrong usage is one line and exit status 2', t => {
  for (const args of [
    ['--seeds', '5'],
    ['--seeds', '5..4'],
    ['--seed', '1', '--seeds', '1..2'],
    ['--faults', 'rain'],
    ['--agents', '0'],
    ['--seeds', '1..2', '--plot', 'x.svg'],
  ]) {
    const { status, stderr, stdout } = simulate(args)
    t.is(status, 2, args.join(' '))
    t.is(stdout, '')
    t.regex(stderr, /^elasticos: [^\n]+\n$/)
  }
})
