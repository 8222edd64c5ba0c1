/**
 * A memory limit that moves in mid-run, by the control command that agents send, and by an agent whose machine is short
 * of memory and then is not: what is here follows it, down and up, and the program finds its memory as it left it.
 */

import { spawnSync } from 'node:child_process'
import {
  closeSync,
  constants,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { PAGE_BYTES } from '../../placement/units.js'
import { makeCluster, until } from '../helpers/cluster.js'
import { Mounts, mountsMissing } from '../helpers/mounts.js'
import { Pagers } from '../helpers/pagers.js'
import { buildProgram } from '../helpers/programs.js'

const TIMEOUT_MS = 120_000
const PAGES = 6000
/** All of it fits. */
const HIGH = 8192
const LOW = 1024
/** Of which a quarter is as much as the programs have read at once. */
const DIRECT_LOW = 1280
const MOVE_MS = 20
const READ_PAGES = 600
const SYS_IO_SUBMIT = 209

const directory = mkdtempSync('/var/tmp/el-limit-')
const program = buildProgram('moving_limit', directory)
test.after.always(() => rmSync(directory, { recursive: true, force: true }))

async function stats({ home }: Pagers) {
  const { residentPages = 0, memoryLimitBytes = 0, faults } = await home.requestStats()
  return { residentPages, memoryLimitBytes, faults: Number(faults) }
}

function hasDirectIo(): boolean {
  try {
    closeSync(openSync(join(directory, 'probe'), constants.O_RDWR | constants.O_CREAT | constants.O_DIRECT))
    return true
  } catch {
    return false
  }
}

/** The limit, and with it what is here, comes to `pages` while the program runs on. */
async function moveTo(t: ExecutionContext, pagers: Pagers, pages: number): Promise<void> {
  pagers.home.send({ kind: 'limit', pages })
  const follows = async () => {
    const { residentPages } = await stats(pagers)
    return pages < PAGES ? residentPages <= pages : residentPages >= PAGES
  }
  await until(`what is here to follow a limit of ${pages} pages`, follows, TIMEOUT_MS / 3)
  t.is((await stats(pagers)).memoryLimitBytes, pages * PAGE_BYTES)
}

async function hasNewFaults(pagers: Pagers): Promise<void> {
  const { faults } = await stats(pagers)
  await until('more faults', async () => (await stats(pagers)).faults > faults + LOW, TIMEOUT_MS / 3)
}

for (const participants of [0, 1]) {
  const where = participants === 0 ? 'the disk' : 'a lender'
  test.serial(`what is here follows the limit, and what finds no room goes to ${where}`, async t => {
    t.timeout(TIMEOUT_MS)
    const options = { participants, memoryPages: HIGH, jumpEvery: 0 }
    const pagers = await Pagers.start([program, String(PAGES)], options)
    t.teardown(() => pagers.stop())
    const ended = pagers.run()
    await until('all of it to be here', async () => (await stats(pagers)).residentPages >= PAGES, TIMEOUT_MS)
    await moveTo(t, pagers, LOW)
    await hasNewFaults(pagers)
    t.true((await stats(pagers)).residentPages <= LOW)
    pagers.home.send({ kind: 'limit', pages: LOW - 1 })
    await moveTo(t, pagers, HIGH)
    await moveTo(t, pagers, 2 * LOW)
    writeFileSync(join(pagers.directory, 'done'), '')
    const end = await ended
    t.is(end.status, 0, end.message)
    t.is(end.stdout.toString(), `${PAGES} pages\n`)
    t.true(Number(participants === 0 ? end.stats.pagesSpilled : end.stats.pagesPushed) > 0)
  })
}

const DIRECT = [
  ['direct_io', 'threads'],
  ['direct_io', 'large'],
  ['aio', 'reads'],
  ['aio', 'calls'],
] as const

for (const [name, part] of DIRECT) {
  test.serial(`${name} ${part}: pages into which the disk reads stay, however the limit moves`, async t => {
    t.timeout(TIMEOUT_MS)
    const built = buildProgram(name, directory)
    const alone = spawnSync(built, [part, join(directory, 'file')], { encoding: 'utf8', timeout: TIMEOUT_MS })
    if (alone.stdout.includes('Invalid argument')) {
      t.pass('no direct I/O here')
      return
    }
    const options = { participants: 0, memoryPages: HIGH, jumpEvery: 0 }
    const pagers = await Pagers.start([built, part, 'file'], options)
    t.teardown(() => pagers.stop())
    let moves = 0
    const timer = setInterval(() => {
      pagers.home.send({ kind: 'limit', pages: moves++ % 2 === 0 ? DIRECT_LOW : HIGH })
    }, MOVE_MS)
    const end = await pagers.run().finally(() => clearInterval(timer))
    t.is(end.status, 0, end.message)
    t.is(end.stdout.toString(), alone.stdout)
    t.log(`${moves} moves`)
  })
}

for (const part of ['vectors', 'requests']) {
  test.serial(`a direct read that was accepted once is accepted at a lower limit: ${part}`, async t => {
    t.timeout(TIMEOUT_MS)
    if (!hasDirectIo()) {
      t.pass('no direct I/O here')
      return
    }
    const built = buildProgram('large_reads', directory)
    const options = { participants: 0, memoryPages: HIGH, jumpEvery: 0 }
    const pagers = await Pagers.start([built, part, 'file', String(READ_PAGES)], options)
    t.teardown(() => pagers.stop())
    const ended = pagers.run()
    await until('a first read', async () => existsSync(join(pagers.directory, 'begun')), TIMEOUT_MS / 3)
    for (let look = 0; look < 50; look++) {
      pagers.home.send({ kind: 'limit', pages: LOW })
      await new Promise(resolve => setTimeout(resolve, MOVE_MS))
    }
    t.is((await stats(pagers)).memoryLimitBytes, 4 * READ_PAGES * PAGE_BYTES)
    writeFileSync(join(pagers.directory, 'done'), '')
    const end = await ended
    t.is(end.stdout.toString(), `${READ_PAGES} pages\n`)
    t.is(end.status, 0, end.message)
  })
}

test.serial('the limit is lowered while a thread waits within io_submit', async t => {
  t.timeout(TIMEOUT_MS)
  const built = buildProgram('large_reads', directory)
  const pagers = await Pagers.start([built, 'waits', 'fifo'], {
    participants: 0,
    memoryPages: HIGH,
    jumpEvery: 0,
  })
  t.teardown(() => pagers.stop())
  const ended = pagers.run()
  const fifo = join(pagers.directory, 'fifo')
  await until('the pipe', async () => existsSync(fifo), TIMEOUT_MS / 3)
  const writes = openSync(fifo, 'r+') // does not wait for the other end
  t.teardown(() => closeSync(writes))
  const started = pagers.events(0).find(event => event.kind === 'started')
  const call = () => readFileSync(`/proc/${started?.appPid}/syscall`, 'utf8')
  await until('io_submit', async () => call().startsWith(`${SYS_IO_SUBMIT} `), TIMEOUT_MS / 3)
  pagers.home.send({ kind: 'limit', pages: LOW })
  t.is((await stats(pagers)).memoryLimitBytes, LOW * PAGE_BYTES)
  writeSync(writes, 'x')
  const end = await ended
  t.is(end.stdout.toString(), 'x\n')
  t.is(end.status, 0, end.message)
})

const missing = mountsMissing()
const maybe = missing === undefined ? test.serial : test.serial.skip
if (missing !== undefined) console.log(`skipped, no mounts: ${missing}`)

maybe(
  'a run without --memory gives way while its machine is short of memory; another keeps its limit',
  async t => {
    t.timeout(2 * TIMEOUT_MS)
    const cluster = await makeCluster(t)
    const meminfo = cluster.path('meminfo')
    const said = readFileSync('/proc/meminfo', 'utf8')
    const total = Number(/^MemTotal:\s+(\d+)/m.exec(said)?.[1])
    const say = (kib: number) =>
      writeFileSync(meminfo, said.replace(/^MemAvailable:.*$/m, `MemAvailable:       ${Math.floor(kib)} kB`))
    say(total * 0.75)
    const mounts = await Mounts.make(`mount --bind ${meminfo} /proc/meminfo`)
    t.teardown(() => mounts.remove())
    await cluster.startAgent('a', { prefix: mounts.prefix(cluster.directory) })
    const command = [program, String(PAGES)]
    const options = { timeoutMs: 2 * TIMEOUT_MS }
    const runs = [
      cluster.run('a', [], command, options),
      cluster.run('a', ['--memory', '32M'], command, options),
    ] as const
    const resident = async () => {
      const all = await cluster.processes('a')
      return all.map(({ stats: { residentPages, memoryLimitBytes } = {} }) => ({
        pages: Number(residentPages),
        isFixed: memoryLimitBytes === 32 << 20,
      }))
    }
    const become = (what: string, holds: (pages: number) => boolean) =>
      until(
        `the one that follows to ${what}`,
        async () => {
          const [follows, fixed, ...others] = (await resident()).sort(
            (a, b) => Number(a.isFixed) - Number(b.isFixed),
          )
          if (follows === undefined || fixed === undefined || others.length > 0) return false
          return !follows.isFixed && fixed.isFixed && holds(follows.pages) && fixed.pages >= PAGES
        },
        TIMEOUT_MS / 2,
      )
    await become('be here', pages => pages >= PAGES)
    say(1000)
    await become('give way', pages => pages < PAGES / 2)
    say(total * 0.75)
    await become('come back', pages => pages >= PAGES)
    writeFileSync(cluster.path('done'), '')
    for (const run of runs) {
      const end = await run.outcome
      t.is(end.status, 0, end.stderr)
      t.is(end.stdout.toString(), `${PAGES} pages\n`)
    }
  },
)
