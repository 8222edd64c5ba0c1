/**
 * A running process is contracted to its home and stretched again, by the command line, and gives the output it gives
 * alone. The lender's agent runs with no more privileges than the systemd unit in agent/systemd/ leaves it.
 */

import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { TestCluster, until } from '../helpers/cluster.js'
import { ROOT } from '../helpers/native.js'
import { buildProgram } from '../helpers/programs.js'

const TIMEOUT_MS = 180_000
const SEARCH = ['20000', '200']

let cluster: TestCluster

/** What puts a command under the capabilities of the unit; nothing for an ordinary user, who has none. */
function asService(): string[] {
  if (process.getuid?.() !== 0) return []
  const unit = readFileSync(join(ROOT, 'agent', 'systemd', 'elasticos-agent.service'), 'utf8')
  const names = /^CapabilityBoundingSet=(.+)$/m.exec(unit)?.[1]?.split(' ') ?? []
  const bounds = names.map(name => name.toLowerCase().replace(/^cap_/, '+'))
  return ['setpriv', '--no-new-privs', `--bounding-set=-all,${bounds.join(',')}`]
}

test.before(async t => {
  t.timeout(TIMEOUT_MS)
  cluster = await TestCluster.make()
  await cluster.startAgents(2, name => (name === 'b' ? { prefix: asService() } : {}))
})

test.after.always(async t => {
  t.deepEqual(await cluster?.stop(), [])
})

interface Shown {
  readonly nodes: readonly { readonly node: string; readonly remote: number; readonly resident: number }[]
  readonly ranges: readonly { readonly pages: number; readonly node: string }[]
  readonly leftOut: { readonly pages: number }
}

async function elasticos(...args: string[]): Promise<string> {
  const end = await cluster.cli([...args, '--control', cluster.agent('a').control])
  if (end.status !== 0) throw new Error(`${args.join(' ')}: ${end.stderr}`)
  return end.stdout.toString()
}

test.serial('contract and stretch while it runs', async t => {
  t.timeout(TIMEOUT_MS)
  const program = buildProgram('linear_search', cluster.directory)
  const alone = spawnSync(program, SEARCH, { encoding: 'utf8' })
  const flags = ['--memory', '6M', '--participants-min', '2', '--wait', '15s', '--jump-every', '40']
  const running = cluster.run('a', flags, [program, ...SEARCH], { timeoutMs: TIMEOUT_MS })
  let id = ''
  await until('it is there', async () => {
    id = (await cluster.processes('a'))[0]?.id ?? ''
    return id !== ''
  })
  const shown = async () => JSON.parse(await elasticos('pages', id, '--json')) as Shown
  const atB = async () => (await shown()).nodes.find(node => node.node === 'b')?.remote
  await until('pages at b', async () => ((await atB()) ?? 0) > 1000, TIMEOUT_MS)
  const { nodes, ranges, leftOut } = await shown()
  const counted = nodes.reduce(
    (sum, node) => sum + Object.values(node).reduce<number>((n, v) => n + (Number(v) || 0), 0),
    0,
  )
  const listed = ranges.reduce((sum, range) => sum + range.pages, leftOut.pages)
  t.is(listed, counted)

  t.is(await elasticos('contract', id, 'b'), `${id} is contracted: b let go\n`)
  t.is(await atB(), undefined)
  await new Promise(resolve => setTimeout(resolve, 1_500))
  t.deepEqual((await cluster.processes('a'))[0]?.participants, ['a'])
  t.is(await elasticos('stretch', id, 'b'), `${id} is stretched over b\n`)
  await until('pages at b again', async () => ((await atB()) ?? 0) > 0, TIMEOUT_MS)

  const end = await running.outcome
  t.is(end.status, 0, end.stderr)
  t.is(end.stdout.toString(), alone.stdout)
  t.true(Number(end.stats?.jumps) > 0)
})
