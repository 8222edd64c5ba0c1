/**
 * Many whole agents in one process, with pagers that only say what their machine is: they find the others, gossip as all
 * agents do, and lend next to nothing. Started with one argument, the options; says a line once all are started, and ends
 * with its standard input.
 */

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startAgent } from '../../../agent/agent.js'
import { systemPagers } from '../../../agent/executor/pagers.js'

export interface CrowdOptions {
  readonly keyFile: string
  readonly host: string
  readonly names: readonly string[]
}

const QUIET = { error: () => {}, warn: () => {}, info: () => {}, debug: () => {} }

async function crowd({ keyFile, host, names }: CrowdOptions): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'el-crowd-'))
  process.on('exit', () => rmSync(directory, { recursive: true, force: true }))
  const facts = await systemPagers.facts()
  for (const name of names) {
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
      spillMaxBytes: 1,
      log: QUIET,
    }
    await startAgent(options, { ...systemPagers, facts: () => Promise.resolve(facts) })
  }
  process.stdout.write('started\n')
  process.stdin.on('end', () => process.exit(0)).resume()
}

await crowd(JSON.parse(process.argv[2] ?? '') as CrowdOptions)
