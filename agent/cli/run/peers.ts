/**
 * Getting participants for a run: through the agent of this machine, or through one started inside this process.
 *
 * The one inside lends nothing (it ends with the run), uses the user's network key like any agent, discovers peers
 * like any agent, and listens on a private control socket, so that `ps --control` works on it.
 */

import type { ControlServer } from '../../control/server.js'
import type { AgentService, HomeAttachment, Logger } from '../../service.js'
import { notice } from '../output.js'
import { runControlPath, uid } from '../paths.js'
import type { RunPlace } from './place.js'
import type { RunPlan } from './plan.js'

/** Any free port: nobody dials an agent that lends nothing, but libp2p identifies it by its address. */
const LISTEN_INSIDE = '/ip4/0.0.0.0/tcp/0'

/** How a run speaks with whoever finds participants for it. */
export interface Peers {
  /** Has the pager attached. Rejects when that fails. */
  attach(home: HomeAttachment): Promise<void>
  /** Participants now, home included; `listener` hears of each change from then on. */
  watch(id: string, listener: (count: number) => void): Promise<number>
  refusals(id: string): Promise<string[]>
  /** Resolves when nothing more can be heard: the agent has ended. */
  readonly gone: Promise<void>
  close(): Promise<void>
}

/** Undefined when nobody but this machine is to take part. */
export async function openPeers(plan: RunPlan, place: RunPlace): Promise<Peers | undefined> {
  const { agent } = place
  switch (agent.kind) {
    case 'none':
      return undefined
    case 'agent':
      return {
        attach: async home => {
          await agent.client.ask('attach', { home })
        },
        watch: (id, listener) => agent.client.watch(id, listener),
        refusals: processId => agent.client.ask('refusals', { processId }),
        gone: new Promise(resolve => agent.client.onClose(resolve)),
        close: async () => agent.client.close(),
      }
    case 'inside': {
      const control = runControlPath(agent.runtimeDir)
      notice(`no agent on this machine, using one inside this run (${control})`)
      return await startInside(plan, place.nodeName, agent.runtimeDir, agent.dataDir, control)
    }
  }
}

async function startInside(
  plan: RunPlan,
  name: string,
  runtimeDir: string,
  dataDir: string,
  control: string,
): Promise<Peers> {
  const [{ startAgent }, { ControlServer }, { defaultKeyPath }] = await Promise.all([
    import('../../agent.js'),
    import('../../control/server.js'),
    import('../../key.js'),
  ])
  const service = await startAgent({
    name,
    dataDir,
    runtimeDir,
    listen: [LISTEN_INSIDE],
    peers: [],
    discovery: true,
    keyFile: defaultKeyPath(uid()),
    allow: [],
    capacityPages: 0,
    processorThousandths: 0,
    spillMaxBytes: 0,
    log: quietLogger(plan.verbose),
  })
  const hello = { name, version: '', pid: process.pid, dataDir, runtimeDir, spillMaxBytes: 0 }
  const server = await ControlServer.listen(control, hello, service).catch(async (error: unknown) => {
    await service.stop()
    throw error
  })
  return insidePeers(service, server)
}

function insidePeers(service: AgentService, server: ControlServer): Peers {
  return {
    attach: home => service.attachHome(home),
    watch: async (id, listener) => {
      service.onParticipants(id, listener)
      return service.participants(id)
    },
    refusals: async id => service.refusals(id),
    gone: new Promise(() => {}),
    close: async () => {
      await Promise.all([server.close(), service.stop()])
    },
  }
}

/** The program's stderr is the user's: an agent inside a run speaks only when asked to. */
function quietLogger(verbose: boolean): Logger {
  const say = (text: string) => {
    if (verbose) notice(text)
  }
  return { error: say, warn: say, info: say, debug: () => {} }
}
