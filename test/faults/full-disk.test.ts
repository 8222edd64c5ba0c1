/**
 * A disk that is really full: home's data directory is a small file system of its own, and writes to the spill file fail
 * with ENOSPC. The program gets what there is elsewhere, goes on when there is room again, and else ends with one line.
 */

import { closeSync, openSync, rmSync, writeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import { type Running, TestCluster, until } from '../helpers/cluster.js'
import { Mounts, mountsMissing } from '../helpers/mounts.js'
import { runCommand } from '../helpers/native-tests.js'
import { buildProgram } from '../helpers/programs.js'
import { contract, wrongWord } from './scene.js'

const RUN_FAILED = 125
const MEMORY = ['--memory', '6M'] as const
const LENDS = ['--capacity', '64M']
const DISK = '24M'
const MEBIBYTE_PAGES = 256
/** A thread waits for room four times as long. */
const FULL_MS = 500
/** Twice what the disk is left alone for after a failed write. */
const STAYS_MS = 2000
const WITHIN_MS = 60_000

const missing = mountsMissing()
const maybe = missing === undefined ? test.serial : test.serial.skip
if (missing !== undefined) console.log(`skipped, no mounts: ${missing}`)

interface SmallDisk {
  readonly cluster: TestCluster
  /** Words in front of what runs on `a`. */
  readonly prefix: string[]
  readonly mounts: Mounts
  /** Takes all that is free. */
  fill(): void
  free(): void
}

interface Grower {
  readonly running: Running
  order(mebibytes: number): void
  /** It has that much more, and all of it is right. */
  expectRight(mebibytes: number): Promise<void>
}

/** An agent `a` on a disk of 24 MiB, which it believes to be larger. */
async function startOnSmallDisk(t: ExecutionContext): Promise<SmallDisk> {
  const cluster = await TestCluster.make()
  const [image, data] = [cluster.path('image'), cluster.path('a')]
  const make = `truncate -s ${DISK} ${image} && mkfs.ext4 -q -m 0 -O ^has_journal ${image} && mkdir ${data}`
  const mounts = await Mounts.make(`${make} && mount -o loop ${image} ${data}`)
  t.teardown(async () => {
    const left = await cluster.stop()
    mounts.remove()
    if (left.length > 0) throw new Error(`left over: ${left.join('; ')}`)
  })
  const prefix = mounts.prefix(cluster.directory)
  await cluster.startAgent('a', { flags: [...LENDS, '--spill-max', '1G'], prefix })
  const ballast = mounts.path(`${data}/ballast`)
  const fill = () => fillDisk(ballast)
  return { cluster, prefix, mounts, fill, free: () => rmSync(ballast, { force: true }) }
}

function fillDisk(path: string): void {
  const file = openSync(path, 'w')
  try {
    for (const bytes of [1 << 20, 4096])
      try {
        for (;;) writeSync(file, Buffer.alloc(bytes, 1))
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
      }
  } finally {
    closeSync(file)
  }
}

maybe('the disk is full and nobody lends: the run ends with the cause', async t => {
  const { cluster, prefix } = await startOnSmallDisk(t)
  const program = buildProgram('copier', cluster.directory)
  const end = await cluster.run('a', MEMORY, [program, '40', cluster.path('copy'), '1'], { prefix }).outcome
  t.is(end.status, RUN_FAILED)
  t.regex(end.stderr, /^elasticos: no room for page 0x[0-9a-f]+: memory limit, lenders and spill space .+\n$/)
  t.true(Number(end.stats?.spillsFailed) > 0)
  const again = await cluster.run('a', MEMORY, [program, '12', cluster.path('copy'), '1'], { prefix }).outcome
  t.is(again.status, 0, again.stderr)
  t.is(wrongWord(cluster.path('copy')), undefined)
})

/** The grower on `a`, and how it is told to take more. */
async function startGrower(
  t: ExecutionContext,
  { cluster, prefix }: SmallDisk,
  flags: readonly string[],
): Promise<Grower> {
  const program = buildProgram('grower', cluster.directory)
  const pipe = cluster.path('orders')
  t.is(runCommand('mkfifo', [pipe]).status, 0)
  const orders = openSync(pipe, 'r+')
  t.teardown(() => closeSync(orders))
  const running = cluster.run('a', [...MEMORY, ...flags], [program, pipe], { prefix })
  let pages = 0
  let said = ''
  const order = (mebibytes: number) => writeSync(orders, `${mebibytes}\n`)
  const expectRight = async (mebibytes: number) => {
    pages += mebibytes * MEBIBYTE_PAGES
    said += `${pages} pages are right\n`
    await until(said, () => running.stdout === said, WITHIN_MS)
  }
  order(0)
  await expectRight(0)
  return { running, order, expectRight }
}

maybe('a thread that finds the disk full goes on when that is freed', async t => {
  const disk = await startOnSmallDisk(t)
  const { running, order, expectRight } = await startGrower(t, disk, [])
  for (let i = 0; i < 3; i++) {
    disk.fill()
    order(6)
    await sleep(FULL_MS)
    disk.free()
    await expectRight(6)
  }
  running.child.kill('SIGTERM')
  const end = await running.outcome
  t.is(end.stderr, '')
  t.true(Number(end.stats?.spillsFailed) > 0)
})

maybe('what a participant holds comes back when the disk is freed, or when another one lends', async t => {
  const disk = await startOnSmallDisk(t)
  const { cluster, mounts } = disk
  await cluster.startAgent('b', { flags: LENDS })
  await cluster.whenJoined(2)
  const flags = ['--participants-min', '2', '--wait', '15s']
  const { running, order, expectRight } = await startGrower(t, disk, flags)
  const holder = () => cluster.pagers().find(pager => pager.node === 'b')?.pid
  disk.fill()
  order(12)
  await expectRight(12)
  const first = holder()
  await contract(cluster, 'b', mounts.path(''))
  await sleep(STAYS_MS)
  t.is(holder(), first, 'there is no room for what it holds')
  disk.free()
  await until('all to be on the disk', () => holder() !== first, WITHIN_MS)
  await until('b to lend again', () => holder() !== undefined, WITHIN_MS)
  order(0)
  await expectRight(0)

  disk.fill()
  order(10)
  await expectRight(10)
  const second = holder()
  await contract(cluster, 'b', mounts.path(''))
  await cluster.startAgent('c', { flags: LENDS })
  await until('all to be elsewhere', () => holder() !== second, WITHIN_MS)
  order(0)
  await expectRight(0)
  running.child.kill('SIGTERM')
  const end = await running.outcome
  t.is(end.stderr, '')
  t.true(Number(end.stats?.spillsFailed) > 0)
})
