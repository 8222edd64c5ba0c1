/**
 * An agent's control socket: answers the command line of its own user.
 *
 * Who may connect: the socket has mode 0600 from the moment it exists (the umask is set around bind) and its default
 * directory 0700, so the kernel lets in only the agent's own uid and root. Node gives no access to SO_PEERCRED, and
 * /proc/net/unix does not name a connection's other end; the file modes are the check. The pager, which can read
 * SO_PEERCRED, checks it on its own sockets, and only through those can a request touch a process.
 *
 * A socket file nobody listens on is left over from an agent that was killed and is replaced; a live one is an error.
 * Limits: 64 connections, 32 requests under way on each, lines of 1 MiB.
 */

import { chmodSync, lstatSync, mkdirSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { dirname } from 'node:path'
import { PagerClient, PagerError } from '../../kmod/pager-client.js'
import { homeSocketPath } from '../../kmod/pager-host.js'
import type { AgentService } from '../service.js'
import { ControlClient } from './client.js'
import { ControlError } from './errors.js'
import { type ControlRequest, decodeLine, requestSchema } from './messages.js'
import { type AgentHello, type ControlReply, encodeLine, LineSplitter } from './reply.js'

const CONNECTIONS_MAX = 64
const REQUESTS_MAX = 32
const UNSENT_BYTES_MAX = 4 << 20
const PROCESSES_REMEMBERED_MAX = 4096
/** A pager ends at once; a client waits for ten seconds. */
const STOP_MS = 5_000

export class ControlServer {
  readonly #server: Server
  readonly #connections = new Set<Socket>()
  readonly #path: string

  private constructor(server: Server, path: string) {
    this.#server = server
    this.#path = path
  }

  /** Listens at `path`. Throws ControlError `in-use`, `no-permission`, `path-too-long`, `gone`. */
  static async listen(path: string, hello: AgentHello, service: AgentService): Promise<ControlServer> {
    await removeStaleSocket(path)
    const sockets = new Map<string, string>()
    const server = createServer()
    const control = new ControlServer(server, path)
    server.maxConnections = CONNECTIONS_MAX
    server.on('connection', socket => {
      control.#connections.add(socket)
      socket.once('close', () => control.#connections.delete(socket))
      new Connection(socket, hello, service, sockets)
    })
    await bind(server, path)
    return control
  }

  /** Stops listening, drops all connections and removes the socket file. */
  async close(): Promise<void> {
    for (const socket of this.#connections) socket.destroy()
    await new Promise<void>(resolve => this.#server.close(() => resolve()))
    rmSync(this.#path, { force: true })
  }
}

/** Leaves `path` free, or throws ControlError because somebody lives there. */
export async function removeStaleSocket(path: string): Promise<void> {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
  const stat = lstatSync(path, { throwIfNoEntry: false })
  if (stat === undefined) return
  if (!stat.isSocket()) {
    throw new ControlError('in-use', `${path} exists and is no socket; remove it or give another --control`)
  }
  try {
    const client = await ControlClient.connect(path)
    client.close()
  } catch (error) {
    if (!(error instanceof ControlError) || error.code !== 'absent') throw error
    rmSync(path, { force: true })
    return
  }
  throw new ControlError(
    'in-use',
    `an agent already listens at ${path}; stop it, or give --control and --data`,
  )
}

function bind(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    // Stays after the bind: a later error (out of descriptors) must not end the agent.
    server.on('error', (error: NodeJS.ErrnoException) => {
      const code = error.code === 'EACCES' || error.code === 'EPERM' ? 'no-permission' : 'gone'
      const remedy = 'give a --control path in a directory you may write'
      reject(new ControlError(code, `cannot listen at ${path} (${error.code}); ${remedy}`, { cause: error }))
    })
    const umaskBefore = process.umask(0o177)
    try {
      server.listen(path, () => {
        chmodSync(path, 0o600)
        resolve()
      })
    } finally {
      process.umask(umaskBefore)
    }
  })
}

class Connection {
  readonly #socket: Socket
  readonly #hello: AgentHello
  readonly #service: AgentService
  /** Pager sockets by process id, of all homes attached through this control socket. */
  readonly #pagerSockets: Map<string, string>
  readonly #unwatch: (() => void)[] = []
  #underWay = 0

  constructor(socket: Socket, hello: AgentHello, service: AgentService, pagerSockets: Map<string, string>) {
    this.#socket = socket
    this.#hello = hello
    this.#service = service
    this.#pagerSockets = pagerSockets
    const splitter = new LineSplitter()
    socket.setEncoding('utf8')
    socket.on('data', (chunk: string) => {
      const lines = splitter.push(chunk)
      if (lines === undefined) socket.destroy()
      else for (const line of lines) this.#take(line)
    })
    socket.on('error', () => socket.destroy())
    socket.once('close', () => {
      for (const stop of this.#unwatch) stop()
    })
  }

  #take(line: string): void {
    const message = decodeLine(requestSchema, line)
    if (message === undefined || this.#underWay >= REQUESTS_MAX) {
      this.#socket.destroy()
      return
    }
    this.#underWay++
    this.#answer(message.request)
      .then(answer => this.#send({ n: message.n, answer }))
      .catch((error: unknown) => {
        this.#send({ n: message.n, refused: error instanceof Error ? error.message : String(error) })
      })
      .finally(() => {
        this.#underWay--
      })
  }

  async #answer(request: ControlRequest): Promise<unknown> {
    switch (request.op) {
      case 'hello':
        return this.#hello
      case 'nodes':
        return this.#service.nodes()
      case 'processes':
        return await this.#service.processes()
      case 'attach': {
        await this.#service.attachHome(request.home)
        if (this.#pagerSockets.size >= PROCESSES_REMEMBERED_MAX) this.#pagerSockets.clear()
        this.#pagerSockets.set(request.home.id, request.home.pagerSocket)
        return null
      }
      case 'watch':
        return { participants: this.#watch(request.processId) }
      case 'refusals':
        return this.#service.refusals(request.processId)
      case 'pages':
        return await this.#atPager(request.processId, pager => pager.requestPages())
      case 'leases':
        return await this.#service.leases(request.processId)
      case 'contract':
        return await this.#service.contract(request.processId, request.node)
      case 'stretch':
        return await this.#service.stretch(request.processId, request.node)
      case 'automatic':
        await this.#service.automatic(request.processId)
        return null
      case 'stop':
        await this.#stop(request.processId, request.reason)
        return null
    }
  }

  #watch(processId: string): number {
    if (this.#unwatch.length >= REQUESTS_MAX)
      throw new ControlError('refused', 'too many processes are watched')
    const tell = (count: number) => this.#send({ event: 'participants', processId, count })
    this.#unwatch.push(this.#service.onParticipants(processId, tell))
    return this.#service.participants(processId)
  }

  async #stop(processId: string, reason: string): Promise<void> {
    const end = (pager: PagerClient) =>
      new Promise<boolean>(resolve => {
        pager.onClose(() => resolve(true))
        pager.send({ kind: 'terminate', reason })
        setTimeout(() => resolve(false), STOP_MS).unref()
      })
    const ended = await this.#atPager(processId, end).catch((error: unknown) => {
      if (error instanceof PagerError && error.code === 'timeout') return false
      throw error
    })
    if (ended) return
    const pager = (await this.#service.processes()).find(
      ({ id, role }) => id === processId && role === 'home',
    )
    const force = pager === undefined ? '' : `; kill -9 ${pager.pid} ends it`
    throw new ControlError('refused', `the pager of ${processId} does not end${force}`)
  }

  /** Talks to the home pager of a process; the pager checks who this is. */
  async #atPager<T>(processId: string, talk: (pager: PagerClient) => Promise<T>): Promise<T> {
    const path = this.#pagerSockets.get(processId) ?? homeSocketPath(this.#hello.runtimeDir, processId)
    let pager: PagerClient
    try {
      pager = await PagerClient.connect(path, 'observer')
    } catch (error) {
      if (!(error instanceof PagerError) || error.code !== 'gone') throw error
      const message = `no elastic process ${processId} has its home here; see \`elasticos ps\``
      throw new ControlError('refused', message, { cause: error })
    }
    try {
      return await talk(pager)
    } finally {
      pager.close()
    }
  }

  #send(reply: ControlReply): void {
    if (this.#socket.destroyed) return
    this.#socket.write(encodeLine(reply))
    if (this.#socket.writableLength > UNSENT_BYTES_MAX) this.#socket.destroy()
  }
}
