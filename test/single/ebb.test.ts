/**
 * A run that needs a lender for a while: when it does not any more its pages come home by themselves, the lender is let
 * go and has its memory back; and it is asked again when the run needs it again.
 */

import { writeFileSync } from 'node:fs'
import test from 'ava'
import { makeCluster, until } from '../helpers/cluster.js'
import { buildProgram } from '../helpers/programs.js'

const TIMEOUT_MS = 240_000
const STEP_MS = 80_000
const PAGES = 6000

test('pages come home when there is room, and who holds nothing is let go until room is wanted', async t => {
  t.timeout(TIMEOUT_MS)
  const cluster = await makeCluster(t)
  const program = buildProgram('ebb', cluster.directory)
  await cluster.startAgents(2, { flags: ['--capacity', '64M'] })
  const flags = ['--memory', '16M', '--participants-min', '2', '--wait', '30s']
  const run = cluster.run('a', flags, [program, String(PAGES)], { timeoutMs: TIMEOUT_MS })
  const heldByB = async () => {
    const [shown] = await cluster.processes('a')
    const participants = (shown?.stats?.participants ?? []) as { node: string; pages: number }[]
    return participants.reduce((sum, each) => sum + (each.node === 'b' ? each.pages : 0), 0)
  }
  const takesPart = () => cluster.pagers().some(pager => pager.role === 'peer')
  const become = (what: string, holds: () => boolean | Promise<boolean>) => until(what, holds, STEP_MS)

  await become('pages to be lent', async () => (await heldByB()) > PAGES / 6)
  writeFileSync(cluster.path('free'), '')
  await become('pages to come home', async () => (await heldByB()) === 0)
  t.true(takesPart())
  await become('the lender to be let go', () => !takesPart())
  writeFileSync(cluster.path('again'), '')
  await become('the lender to be asked again', takesPart)
  writeFileSync(cluster.path('done'), '')
  const end = await run.outcome
  t.is(end.status, 0, end.stderr)
  t.is(end.stdout.toString(), `${PAGES} pages\n`)
})
