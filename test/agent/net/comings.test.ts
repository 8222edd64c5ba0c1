/**
 * Peers that come and go a hundred times leave nothing behind: no descriptor, and no memory beyond what the runtime keeps
 * for itself. Both sides are in this process, so that what either of them leaves behind counts.
 */

import { readdirSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import test from 'ava'
import { count } from '../../conformance/peer-network-agent.js'
import { RealBench } from './real-bench.js'

const WARM = 20
const ROUNDS = 100
/** Identities that come back, as those of real agents do. */
const IDENTITIES = 5
const DESCRIPTORS_SLACK = 4
/** A stream that stays holds 20 KiB and more on each side. */
const BYTES_PER_ROUND_MAX = 20_000

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

function used() {
  collect()
  collect()
  return { heap: process.memoryUsage().heapUsed, descriptors: readdirSync('/proc/self/fd').length }
}

test('peers that come and go leave nothing behind', async t => {
  t.timeout(380_000)
  const bench = new RealBench('tcp')
  t.teardown(() => bench.close())
  const stays = await bench.start({ name: 'stays', identity: 0 })
  const round = async (i: number) => {
    const guest = await bench.start({
      name: 'guest',
      identity: 1 + (i % IDENTITIES),
      incarnation: i + 1,
      peers: [stays],
    })
    const before = count(stays, 'lost', guest.self)
    await bench.until('joined', () => count(guest, 'joined', stays.self) === 1)
    await guest.stop()
    await bench.until('lost', () => count(stays, 'lost', guest.self) > before)
  }
  for (let i = 0; i < WARM; i++) await round(i)
  const before = used()
  for (let i = 0; i < ROUNDS; i++) await round(WARM + i)
  await bench.until('sockets are closed', () => used().descriptors <= before.descriptors + DESCRIPTORS_SLACK)
  const grown = used().heap - before.heap
  t.log(`the heap has grown by ${(grown / 1024).toFixed(0)} KiB`)
  t.true(grown < ROUNDS * BYTES_PER_ROUND_MAX, `${grown} bytes`)
})
