/**
 * One row with agents on hosts of their own: network namespaces on a bridge, where they find each other by discovery.
 */

import { TestCluster } from '../helpers/cluster.js'
import { Hosts, namespacesMissing } from '../helpers/namespaces.js'
import { prepareSubjects } from './matrix.js'
import { PROGRAMS } from './programs.js'
import { type RowOptions, type RowResult, runRow } from './row-run.js'
import { MODES, type Row } from './rows.js'

const HOSTS = 3
const PROGRAM = 'threads'
const MODE = 'jump-7'

/** The row's result, or why it cannot be carried out here. */
export async function runInNamespaces(options: RowOptions): Promise<RowResult | string> {
  const reason = namespacesMissing()
  if (reason !== undefined) return reason
  const hosts = Hosts.make(HOSTS)
  try {
    const cluster = await TestCluster.make()
    try {
      return await stretch(cluster, hosts, options)
    } finally {
      await cluster.stop()
    }
  } finally {
    hosts.remove()
  }
}

async function stretch(cluster: TestCluster, hosts: Hosts, options: RowOptions): Promise<RowResult> {
  for (const [i, name] of ['a', 'b', 'c'].entries())
    await cluster.startAgent(name, {
      prefix: hosts.prefix(i),
      peers: [],
      discovery: true,
      flags: ['--capacity', '512M', '--listen', `/ip4/${hosts.address(i)}/tcp/0`],
    })
  await cluster.whenJoined(HOSTS)
  const program = PROGRAMS.find(each => each.name === PROGRAM)
  const mode = MODES.find(each => each.name === MODE)
  if (program === undefined || mode === undefined) throw new Error(`no row ${PROGRAM} ${MODE}`)
  const row: Row = { program, share: 25, nodes: HOSTS, mode }
  const subject = (await prepareSubjects([program], 'small', cluster, { note() {}, result() {} })).get(
    program,
  )
  if (subject === undefined || subject instanceof Error) throw subject ?? new Error('not prepared')
  return await runRow(cluster, row, subject, { ...options, prefix: hosts.prefix(0) })
}
