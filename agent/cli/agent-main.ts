/**
 * `elasticos agent` at work: agent, control socket, metrics, and an orderly end.
 *
 * SIGTERM and SIGINT hand back
 * what is held for others and end; a second one ends at once.
 */

import { ControlServer, removeStaleSocket } from '../control/server.js'
import type { HostPort } from '../metrics/host-port.js'
import { MetricsServer } from '../metrics/server.js'
import type { AgentService, Logger } from '../service.js'
import { type AgentFlags, agentSettings } from './agent-config.js'
import { stderrLogger } from './agent-log.js'
import { EXIT_FAILURE } from './failure.js'
import { print } from './output.js'

const SIGNAL_STATUS_BASE = 128

export async function runAgent(flags: AgentFlags): Promise<number> {
  const settings = agentSettings(flags)
  const { control: controlPath, metrics: metricsAt, logFormat, logLevel, ...rest } = settings
  const log = stderrLogger(settings.name, logFormat, logLevel)
  const ending = endingSignal()
  // Asked before the agent starts, so that a second one by mistake disturbs nobody.
  await removeStaleSocket(controlPath)
  // Loaded last: libp2p takes half a second, which a wrong flag need not cost.
  const { startAgent } = await import('../agent.js')
  const service = await startAgent({ ...rest, log })
  const { name, dataDir, runtimeDir, spillMaxBytes } = settings
  const hello = { name, version: '', pid: process.pid, dataDir, runtimeDir, spillMaxBytes }
  const stopAndThrow = async (error: unknown): Promise<never> => {
    await service.stop()
    throw error
  }
  const control = await ControlServer.listen(controlPath, hello, service).catch(stopAndThrow)
  const metrics = await openMetrics(metricsAt, service).catch(async (error: unknown) => {
    await control.close()
    return await stopAndThrow(error)
  })
  if (metrics !== undefined) log.info(`metrics at port ${metrics.port} of ${metricsAt?.host}`)
  print(readyLine(settings.name, controlPath, service))
  const signal = await ending
  log.info(`stopping (${signal})`)
  await Promise.all([control.close(), metrics?.close()])
  return await stopped(service, log)
}

async function openMetrics(at: HostPort | undefined, service: AgentService) {
  return at === undefined ? undefined : await MetricsServer.listen(at, service)
}

function readyLine(name: string, control: string, service: AgentService): string {
  const self = service.nodes().find(node => node.self)
  const addresses = self?.addresses.join(' ') ?? ''
  return `elasticos agent ${name} ready: ${self?.peerId ?? ''}, control ${control}, listening ${addresses}`
}

/** The first SIGTERM or SIGINT; a second one ends the process where it stands. */
function endingSignal(): Promise<NodeJS.Signals> {
  return new Promise(resolve => {
    let seen = false
    const take = (signal: NodeJS.Signals, number: number) => {
      if (seen) process.exit(SIGNAL_STATUS_BASE + number)
      seen = true
      resolve(signal)
    }
    process.on('SIGTERM', take)
    process.on('SIGINT', take)
  })
}

async function stopped(service: AgentService, log: Logger): Promise<number> {
  try {
    await service.stop()
    return 0
  } catch (error) {
    log.error(`stopping failed: ${error instanceof Error ? error.message : String(error)}`)
    return EXIT_FAILURE
  }
}
