/**
 * What an agent and its elastic processes do, as Prometheus reads it (text format 0.0.4). Pure. The names are documented
 * in docs/cli.md.
 *
 * Limits: 256 processes, those that the service lists first.
 */

import { PAGE_BYTES } from '../../placement/units.js'
import type { AgentCounts, NodeInfo, ProcessInfo } from '../service.js'

const PROCESSES_MAX = 256

export interface Sample {
  readonly nodes: readonly NodeInfo[]
  readonly processes: readonly ProcessInfo[]
  readonly counts: AgentCounts
  /** The latest that a timer has fired since the last sample. */
  readonly loopLagMs: number
  readonly residentBytes: number
}

type Labels = Readonly<Record<string, string>>
type Series = readonly [labels: Labels, value: number]

interface Metric {
  readonly name: string
  readonly type: 'gauge' | 'counter'
  readonly help: string
  readonly series: readonly Series[]
}

/** Counters of a pager's statistics: their field, the metric's name, and what it counts. */
const PROCESS_COUNTERS = [
  ['firstTouches', 'first_touches', 'pages touched for the first time'],
  ['pulls', 'pulls', 'requests for pages that were elsewhere'],
  ['pagesPulled', 'pages_pulled', 'pages that came by them'],
  ['pushes', 'pushes', 'batches of pages moved to another node'],
  ['pagesPushed', 'pages_pushed', 'pages in them'],
  ['pagesSpilled', 'pages_spilled', 'pages written to the disk'],
  ['pagesUnspilled', 'pages_unspilled', 'pages read from the disk'],
  ['jumps', 'jumps', 'threads that went to another node'],
  ['jumpsHome', 'jumps_home', 'threads that came home'],
  ['bytesSent', 'sent_bytes', 'bytes sent on lanes'],
  ['bytesReceived', 'received_bytes', 'bytes received on lanes'],
  ['lanesResumed', 'lanes_resumed', 'connections that broke and were made anew'],
  ['framesRefused', 'frames_refused', 'frames that were refused'],
] as const

/** The whole answer to one scrape. */
export function metricsText(sample: Sample): string {
  const metrics = [...agentMetrics(sample), ...processMetrics(sample.processes.slice(0, PROCESSES_MAX))]
  return `${metrics.flatMap(linesOf).join('\n')}\n`
}

function agentMetrics({ nodes, processes, counts, loopLagMs, residentBytes }: Sample): Metric[] {
  const self = nodes.find(node => node.self)
  const states = ['joined', 'suspected', 'seen-not-joined'] as const
  const others = (state: string) => nodes.filter(node => !node.self && node.state === state).length
  const inRole = (role: string) => processes.filter(process => process.role === role).length
  return [
    gauge(
      'nodes',
      'other machines that this agent sees',
      states.map(state => [{ state }, others(state)]),
    ),
    gauge('lent_capacity_bytes', 'memory that this agent lends', [[{}, pageBytes(self?.capacityPages)]]),
    gauge('lent_free_bytes', 'what of it nobody has', [[{}, pageBytes(self?.freePages)]]),
    gauge('processes', 'elastic processes that this machine takes part in', [
      [{ role: 'home' }, inRole('home')],
      [{ role: 'participant' }, inRole('participant')],
    ]),
    gauge('leases', 'leases that this agent has given, and those its processes have', [
      [{ side: 'given' }, counts.leasesGiven],
      [{ side: 'taken' }, counts.leasesTaken],
    ]),
    counter('messages_received', 'messages of other agents', [[{}, counts.messagesReceived]]),
    counter('messages_sent', 'messages to other agents', [[{}, counts.messagesSent]]),
    gauge('event_loop_lag_seconds', 'the latest that a timer of the agent has fired since the last scrape', [
      [{}, loopLagMs / 1000],
    ]),
    gauge('agent_resident_bytes', 'resident memory of the agent', [[{}, residentBytes]]),
  ]
}

function processMetrics(processes: readonly ProcessInfo[]): Metric[] {
  const labels = ({ id, role }: ProcessInfo) => ({ id, role })
  const field = (process: ProcessInfo, name: string): Series[] => {
    const value = process.stats?.[name]
    return typeof value === 'number' ? [[labels(process), value]] : []
  }
  return [
    gauge(
      'process_info',
      'always 1',
      processes.map(one => [{ ...labels(one), home: one.home, program: one.program }, 1]),
    ),
    gauge(
      'process_nodes',
      'machines that take part',
      processes.map(one => [labels(one), one.participants.length]),
    ),
    gauge(
      'process_resident_bytes',
      'its memory on this machine',
      processes.map(one => [labels(one), pageBytes(one.residentPages)]),
    ),
    gauge(
      'process_memory_limit_bytes',
      'the most of it that is to be on this machine',
      processes.flatMap(one => field(one, 'memoryLimitBytes')),
    ),
    ...PROCESS_COUNTERS.map(([name, metric, help]) =>
      counter(
        `process_${metric}`,
        help,
        processes.flatMap(one => field(one, name)),
      ),
    ),
  ]
}

function gauge(name: string, help: string, series: readonly Series[]): Metric {
  return { name: `elasticos_${name}`, type: 'gauge', help, series }
}

function counter(name: string, help: string, series: readonly Series[]): Metric {
  return { name: `elasticos_${name}_total`, type: 'counter', help, series }
}

function pageBytes(pages: number | undefined): number {
  return (pages ?? 0) * PAGE_BYTES
}

function linesOf({ name, type, help, series }: Metric): string[] {
  const values = series.map(([labels, value]) => `${name}${labelText(labels)} ${value}`)
  return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...values]
}

function labelText(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escaped(value)}"`)
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`
}

function escaped(value: string): string {
  return value.replace(/[\\"]/g, '\\$&').replace(/\n/g, '\\n')
}
