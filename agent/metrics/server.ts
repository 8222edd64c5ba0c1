/**
 * Answers GET /metrics over HTTP, and nothing else: one request a connection.
 *
 * Whoever may connect may read; there is nothing to send. Limits: 16 connections, 8 KiB of headers, no body, 10 s for a
 * connection from its first byte to the last; one sample a second, which asks every pager on this machine.
 */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { AgentError, type AgentService } from '../service.js'
import type { HostPort } from './host-port.js'
import { metricsText } from './text.js'

const CONNECTIONS_MAX = 16
const HEADER_BYTES_MAX = 8192
const CONNECTION_MS_MAX = 10_000
const SAMPLE_MS = 1_000
const LAG_TIMER_MS = 500

/** The latest that a timer has fired since it was last asked. */
class LoopLag {
  #dueAt = performance.now() + LAG_TIMER_MS
  #worstMs = 0
  readonly #timer = setInterval(() => this.#look(), LAG_TIMER_MS)

  take(): number {
    const worst = this.#worstMs
    this.#worstMs = 0
    return worst
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  #look(): void {
    const now = performance.now()
    this.#worstMs = Math.max(this.#worstMs, now - this.#dueAt)
    this.#dueAt = now + LAG_TIMER_MS
  }
}

export class MetricsServer {
  readonly #service: AgentService
  readonly #server: Server
  readonly #lag = new LoopLag()
  #sampled: { at: number; text: Promise<string> } | undefined

  private constructor(service: AgentService, connectionMsMax: number) {
    this.#service = service
    const limits = { maxHeaderSize: HEADER_BYTES_MAX, headersTimeout: connectionMsMax }
    this.#server = createServer({ ...limits, requestTimeout: connectionMsMax }, (request, response) => {
      void this.#answer(request, response)
    })
    this.#server.maxConnections = CONNECTIONS_MAX
    this.#server.on('connection', socket => {
      const timer = setTimeout(() => socket.destroy(), connectionMsMax)
      socket.once('close', () => clearTimeout(timer))
    })
  }

  /** Throws AgentError `cannot-listen`. */
  static async listen(
    { host, port }: HostPort,
    service: AgentService,
    connectionMsMax = CONNECTION_MS_MAX,
  ): Promise<MetricsServer> {
    const metrics = new MetricsServer(service, connectionMsMax)
    const server = metrics.#server
    try {
      await new Promise<void>((resolve, reject) => {
        // Stays after that: a later error (out of descriptors) must not end the agent.
        server.on('error', reject)
        server.listen(port, host, resolve)
      })
    } catch (error) {
      metrics.#lag.stop()
      const code = (error as NodeJS.ErrnoException).code ?? String(error)
      const text = `cannot listen for --metrics at ${host} port ${port} (${code}); give another HOST:PORT`
      throw new AgentError('cannot-listen', text, { cause: error })
    }
    return metrics
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  async close(): Promise<void> {
    this.#lag.stop()
    const closed = new Promise<void>(resolve => this.#server.close(() => resolve()))
    this.#server.closeAllConnections()
    await closed
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.setHeader('Connection', 'close')
    const [path] = (request.url ?? '').split('?')
    if (path !== '/metrics') {
      response.writeHead(404, { 'Content-Type': 'text/plain' }).end('only /metrics is here\n')
      return
    }
    if (request.method !== 'GET') {
      response.writeHead(405, { Allow: 'GET', 'Content-Type': 'text/plain' }).end('only GET\n')
      return
    }
    try {
      const text = await this.#text()
      response.writeHead(200, { 'Content-Type': 'text/plain; version=0.0.4; charset=utf-8' }).end(text)
    } catch (error) {
      response.writeHead(500, { 'Content-Type': 'text/plain' }).end(`no sample: ${String(error)}\n`)
    }
  }

  #text(): Promise<string> {
    const now = performance.now()
    if (this.#sampled === undefined || now - this.#sampled.at >= SAMPLE_MS)
      this.#sampled = { at: now, text: this.#sample() }
    return this.#sampled.text
  }

  async #sample(): Promise<string> {
    const processes = await this.#service.processes()
    return metricsText({
      nodes: this.#service.nodes(),
      processes,
      counts: this.#service.counts(),
      loopLagMs: this.#lag.take(),
      residentBytes: process.memoryUsage.rss(),
    })
  }
}
