/**
 * Whole agents, many in one process: they find the others and gossip as all agents do, and lend next to nothing. They
 * are impatient: a few of them say as much as many.
 *
 * Started with one argument, the options; says a line when all of them know one another, and ends with its standard
 * input. They come one after the other: handshakes of all with all at once would take this one process longer than
 * their time limit.
 */

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { startAgent } from '../../../agent/agent.js'
import { systemPagers } from '../../../agent/executor/pagers.js'
import { Rng, systemRng } from '../../../agent/ports/rng.js'
import { SYSTEM } from '../../../agent/ports/surroundings.js'

export interface CrowdOptions {
  readonly keyFile: string
  readonly host: string
  readonly names: readonly string[]
  /** How many times as often they tell their load. */
  readonly times: number
}

const POLL_MS = 20
const QUIET = { error: () => {}, warn: () => {}, info: () => {}, debug: () => {} }

/** Agents wait for a part of their periods that is drawn: here for a smaller one. */
class Impatient extends Rng {
  readonly #times: number

  constructor(times: number) {
    super()
    this.#times = times
  }

  next(): number {
    return systemRng.next()
  }

  below(limit: number): number {
    return systemRng.below(limit)
  }

  override between(least: number, most: number): number {
    return super.between(least, most) / this.#times
  }
}

async function crowd({ keyFile, host, names, times }: CrowdOptions): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'el-crowd-'))
  process.on('exit', () => rmSync(directory, { recursive: true, force: true }))
  process.stdin.on('end', () => process.exit(0)).resume()
  const surroundings = { ...SYSTEM, rng: new Impatient(times) }
  for (const [others, name] of names.entries()) {
    const dataDir = join(directory, name)
    const options = {
      name,
      dataDir,
      runtimeDir: join(dataDir, 'run'),
      listen: [`/ip4/${host}/tcp/0`],
      peers: [],
      discovery: true,
      keyFile,
      allow: [],
      capacityPages: 1,
      processorThousandths: 1,
      spillMaxBytes: 1,
      log: QUIET,
    }
    const agent = await startAgent(options, systemPagers, surroundings)
    while (agent.nodes().filter(node => node.state === 'joined').length <= others) await sleep(POLL_MS)
  }
  process.stdout.write('started\n')
}

await crowd(JSON.parse(process.argv[2] ?? '') as CrowdOptions)
