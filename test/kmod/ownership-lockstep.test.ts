/**
 * The pager's engines (C++) and their TypeScript twins get the same random steps and must send the same frames and come to
 * the same tables, after every one of them. Seeded; 3 and 4 nodes, with and without copies, with lost nodes, and with
 * frames that no honest node would send.
 */

import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'

import test, { type ExecutionContext } from 'ava'

import type { Version } from '../../kmod/ownership/types.js'
import { HOME, nodeIndex, pageNumber } from '../../placement/ids.js'
import { PAGER, ROOT } from '../helpers/native.js'
import { SEED } from '../helpers/seed.js'
import { Walk, type WalkOptions } from './ownership-walk.js'
import { FIRST } from './ownership-world.js'

const STEPS = 15_000
const PLAIN = { pages: 24, forged: 0, evictions: 6, drops: 1, disk: true, losses: false, hints: 0 }
const WALKS: Readonly<Record<string, WalkOptions>> = {
  'three nodes fight over four pages': { ...PLAIN, nodes: 3, stay: false, pages: 4 },
  'four nodes': { ...PLAIN, nodes: 4, stay: false },
  'four nodes, wide prefetch': { ...PLAIN, nodes: 4, stay: false, pages: 60, disk: false },
  'three nodes, copies': { ...PLAIN, nodes: 3, stay: true, evictions: 25 },
  'four nodes, copies and drops': { ...PLAIN, nodes: 4, stay: true, pages: 8, evictions: 25, drops: 3 },
  'nodes and lanes are lost': { ...PLAIN, nodes: 4, stay: false, losses: true },
  'four nodes, hints': { ...PLAIN, nodes: 4, stay: false, evictions: 15, hints: 3 },
  'four nodes, hints, wide prefetch, losses': {
    ...PLAIN,
    nodes: 4,
    stay: false,
    pages: 60,
    disk: false,
    losses: true,
    hints: 3,
  },
  'forged frames': { ...PLAIN, nodes: 3, stay: false, pages: 12, forged: 25, losses: true, hints: 3 },
  'forged frames, copies': { ...PLAIN, nodes: 4, stay: true, pages: 12, forged: 25 },
}

function compare(t: ExecutionContext, walk: Pick<Walk, 'steps' | 'answers'>): void {
  // Not in /tmp, which may be memory: the spill refuses that.
  const directory = mkdtempSync(join(ROOT, 'kmod', 'pager', 'build', 'lockstep-'))
  try {
    const pager = spawnSync(PAGER, ['engine-lockstep', directory], {
      input: `${walk.steps.join('\n')}\n`,
      encoding: 'utf8',
      timeout: 120_000,
      maxBuffer: 1 << 28,
    })
    const answers = pager.stdout.split('\n').slice(0, -1)
    const at = walk.answers.findIndex((answer, i) => answer !== answers[i])
    const before = walk.steps.slice(Math.max(0, at - 20), at + 1).join('\n')
    t.is(at, -1, `seed ${SEED}, step ${at}:\n${before}\npager${answers[at]}\ntwin ${walk.answers[at]}`)
    t.is(pager.status, 0, `${pager.error ?? ''}${pager.stderr}`)
    t.is(answers.length, walk.answers.length)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

/** What has to have happened in the answers of a walk for it to be worth anything: how often, at least. */
const SIGHTS: readonly [string, RegExp, number][] = [
  ['a GET waits', / \d=\d+,\d+,\d+,[1-9]/, 10_000],
  ['asked by a hint', /\d>\du:2:2:/, 100],
  ['moved on', /:4:\d:0(?=[ /])/, 500],
  ['pinned', /:16:0:0(?=[ /])/, 200],
  ['a drop', />\du:6:/, 200],
  ['offered', />\db:4:0:.*:32:/, 100],
  ['an offer is taken', />0u:3:0:.*:4:[1-9]:0.* \d\.\d+=1,/, 100],
  ['a copy is kept', / \d\.\d+=5,/, 200],
  ['on the disk', / \d\.\d+=2,/, 100],
  ['no lane', />want-lane:/, 500],
  ['a page is watched', / 0\.\d+=4,\d+,\d,\d+,(5|7|13|15),/, 100],
  ['the run is lost', / lost$/, 1],
]

for (const [name, options] of Object.entries(WALKS)) {
  test(`pager and twin agree on who owns what: ${name}`, t => {
    t.timeout(240_000)
    compare(t, new Walk(options, SEED, STEPS))
  })
}

test('pager and twin agree when more GETs wait than may', t => {
  const walk = new Walk({ ...PLAIN, nodes: 2, stay: false }, SEED, 0)
  const page = pageNumber(FIRST)
  walk.access(nodeIndex(1), page, 'read', 0)
  const version = 0 as Version
  const get = {
    type: 'get',
    first: page,
    count: 1,
    demand: page,
    version,
    keep: false,
    byHint: false,
  } as const
  for (let i = 0; i < 4100; i++) walk.forge(HOME, nodeIndex(1), get)
  walk.settle()
  compare(t, walk)
})

test('the walks see what they must', t => {
  const seen = new Map<string, number>()
  for (const options of Object.values(WALKS))
    for (const answer of new Walk(options, SEED, STEPS).answers)
      for (const [what, pattern] of SIGHTS)
        if (pattern.test(answer)) seen.set(what, (seen.get(what) ?? 0) + 1)
  t.deepEqual(
    SIGHTS.filter(([what, , least]) => (seen.get(what) ?? 0) < least).map(([what]) => what),
    [],
    JSON.stringify([...seen]),
  )
  t.log(JSON.stringify([...seen]))
})
