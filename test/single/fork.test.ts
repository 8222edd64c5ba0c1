/**
 * A child has the memory of the moment of its fork, lazily: whatever parent, child and grandchildren do with it
 * before the child has looked, no byte is wrong (programs/fork_snapshot.c). And what it does not look at, because it
 * executes another program, is not brought home for it.
 */

import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import { type TestCluster, until } from '../helpers/cluster.js'
import { taggedPids } from '../helpers/processes.js'
import { buildProgram } from '../helpers/programs.js'
import { startCluster } from '../matrix/matrix.js'

const TIMEOUT_MS = 240_000
const PAGES = 4000
/** A quarter of the array. */
const MEMORY = ['--memory', '4M']
const ALONE = [...MEMORY, '--participants', '1']
const TWO = [...MEMORY, '--participants-min', '2', '--wait', '15s']

const WAYS = [
  'overwrite backwards unmap drop move protect map-over',
  'child-drops child-unmaps child-moves child-protects child-threads child-vforks',
  'grandchildren daemonise locks threads many nested wipes',
].map(ways => ways.split(' '))

const SETTINGS: readonly { name: string; flags: readonly string[] }[] = [
  { name: 'alone, the rest on disk', flags: ALONE },
  { name: 'two agents', flags: TWO },
  { name: 'two agents, a jump at every seventh remote fault', flags: [...TWO, '--jump-every', '7'] },
  { name: 'two agents, a jump at every remote fault', flags: [...TWO, '--jump-every', '1'] },
]

let cluster: TestCluster

test.before(async t => {
  t.timeout(TIMEOUT_MS)
  cluster = await startCluster(2)
})

test.after.always(async t => {
  t.deepEqual(await cluster?.stop(), [])
})

for (const { name, flags } of SETTINGS) {
  for (const ways of WAYS) {
    test.serial(`${name}: ${ways.join(', ')}`, async t => {
      t.timeout(TIMEOUT_MS)
      const program = buildProgram('fork_snapshot', cluster.directory)
      const command = [program, String(PAGES), ...ways]
      const end = await cluster.run('a', flags, command, { timeoutMs: TIMEOUT_MS }).outcome
      t.is(end.stdout.toString(), 'all right\n', end.stderr)
      t.is(end.status, 0)
      if (flags.includes('--jump-every')) t.true((end.stats?.jumps ?? 0) > 0)
    })
  }
}

for (const { name, flags } of SETTINGS.slice(0, 2)) {
  for (const [way, title] of [
    ['leave', 'a program ends'],
    ['replace', 'a program executes another'],
  ] as const) {
    test.serial(`${name}: ${title} while its child has everything still to get`, async t => {
      t.timeout(TIMEOUT_MS)
      const program = buildProgram('fork_snapshot', cluster.directory)
      const found = join(cluster.directory, `${way}-${flags.length}`)
      const command = [program, String(PAGES), way, found]
      const end = await cluster.run('a', flags, command, { timeoutMs: TIMEOUT_MS }).outcome
      t.is(end.status, way === 'leave' ? 3 : 0, end.stderr)
      const deadline = performance.now() + 30_000
      while (!(existsSync(found) && readFileSync(found, 'utf8') !== '') && performance.now() < deadline)
        await sleep(50)
      t.is(readFileSync(found, 'utf8'), 'the child: all right\n')
      while (cluster.pagers().length > 0 && performance.now() < deadline) await sleep(50)
      t.deepEqual(cluster.pagers(), [])
    })
  }
}

test.serial('children that execute another program bring nothing home', async t => {
  t.timeout(TIMEOUT_MS)
  const program = buildProgram('fork_snapshot', cluster.directory)
  const command = [program, String(PAGES), 'execute']
  const end = await cluster.run('a', TWO, command, { timeoutMs: TIMEOUT_MS }).outcome
  t.is(end.stdout.toString(), 'all right\n', end.stderr)
  const { pagesPushed = 0, pagesPulled = PAGES } = end.stats ?? {}
  t.true(pagesPushed > PAGES / 2, 'nothing is away')
  t.true(pagesPulled < PAGES / 4, `${pagesPulled} pages came home`)
})

const PIPELINES = `
a=(); for i in $(seq 1 60000); do a[$i]="word number $i"; done
printf '%s\\n' "\${a[@]}" | sort -r | head -3
x=$(printf '%s\\n' "\${a[@]}" | wc -l); echo $x
(for i in 1 5 9; do (echo "\${a[$i]}" | tr a-z A-Z); done)
for i in $(seq 1 20); do y=$(echo "\${a[$i]}" | cut -d' ' -f3); [ "$y" = "$i" ] || echo bad $i; done
while read -r l; do n=$((n+1)); done < <(printf '%s\\n' "\${a[@]}"); echo $n`

const WORKERS = `
import multiprocessing, os
numbers = [i * 7 % 1000003 for i in range(100000)]
table = {str(i): i for i in range(20000)}
def work(part):
    total = sum(numbers[part::8]), sum(v for v in table.values() if v % 8 == part)
    numbers[part] = -1
    return total
context = multiprocessing.get_context('fork')
with context.Pool(4) as pool:
    print(pool.map(work, range(8)))
queue = context.Queue()
def tell(n):
    queue.put((n, numbers[n], len(table)))
told = [context.Process(target=tell, args=(n,)) for n in range(6)]
for each in told: each.start()
numbers[:] = [0] * len(numbers)
print(sorted(queue.get() for each in told))
for each in told: each.join()
print(sum(numbers), sum(table.values()))`

for (const [title, memory, command] of [
  ['bash: pipelines, subshells and substitutions', '6M', ['bash', '-c', PIPELINES]],
  ['python: multiprocessing by fork', '8M', ['python3', '-c', WORKERS]],
] as const) {
  const installed = spawnSync(command[0], ['-c', '']).status === 0
  const when = installed ? test.serial : test.serial.skip
  when(title, async t => {
    t.timeout(TIMEOUT_MS)
    const alone = spawnSync(command[0], command.slice(1), { timeout: TIMEOUT_MS })
    t.is(alone.status, 0)
    const flags = ['--memory', memory, ...TWO.slice(2)]
    const end = await cluster.run('a', flags, [...command], { timeoutMs: TIMEOUT_MS }).outcome
    t.is(end.stdout.toString(), alone.stdout.toString(), end.stderr)
    t.is(end.status, 0)
    t.true((end.stats?.pushes ?? 0) > 0)
  })
}

/** Userfaultfds that the holder keeps for when the pager dies. */
function heldDescriptors(): number {
  for (const pid of taggedPids(cluster.directory)) {
    if (!readFileSync(`/proc/${pid}/comm`, 'utf8').startsWith('elasticos-hold')) continue
    const links = readdirSync(`/proc/${pid}/fd`).map(fd => readlinkSync(`/proc/${pid}/fd/${fd}`))
    return links.filter(link => link.includes('userfaultfd')).length
  }
  return 0
}

async function held(count: number): Promise<number> {
  const deadline = performance.now() + 20_000
  while (heldDescriptors() !== count && performance.now() < deadline) await sleep(20)
  return heldDescriptors()
}

test.serial('a child that has all its memory takes no descriptors any more', async t => {
  t.timeout(TIMEOUT_MS)
  const program = buildProgram('fork_races', cluster.directory)
  const file = join(cluster.directory, 'seen')
  const run = cluster.run('a', ALONE, [program, 'complete', file], { timeoutMs: TIMEOUT_MS })
  await until('the child', () => run.stdout === 'has all\n', TIMEOUT_MS)
  t.is(await held(1), 1, "the program's")
  writeFileSync(file, '')
  const end = await run.outcome
  t.is(end.stdout.toString(), 'has all\ndone\n', end.stderr)
})

test.serial('the death of the pager is the death of children, which read no zeros before it', async t => {
  t.timeout(TIMEOUT_MS)
  const pipe = join(cluster.directory, 'never')
  const script = `mkfifo ${pipe}; (read x <${pipe}) & echo up; wait; wait`
  const run = cluster.run('a', ALONE, ['bash', '-c', script], { timeoutMs: TIMEOUT_MS })
  t.is(await held(2), 2, "the program's and the child's")
  const pager = cluster.pagers().find(each => each.role === 'home')
  process.kill(pager?.pid ?? 0, 'SIGKILL')
  const end = await run.outcome
  t.is(end.status, 125)
  const deadline = performance.now() + 10_000
  const left = () => taggedPids(cluster.directory).filter(pid => isBash(pid))
  while (left().length > 0 && performance.now() < deadline) await sleep(50)
  t.deepEqual(left(), [])
})

function isBash(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8') === 'bash\n'
  } catch {
    return false
  }
}
