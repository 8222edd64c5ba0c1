/**
 * The elastic processes whose home is this node: attaching their pagers, and finding them again after a restart.
 *
 * Limits: 256 processes at a time.
 */

import type { Member } from '../machines/membership.js'
import { type PeerId, type ProcessId, toProcessId } from '../machines/types.js'
import { AgentError, type HomeAttachment } from '../service.js'
import type { Context } from './context.js'
import { type HomeMessage, HomeProcess } from './home.js'
import type { StretchedHere } from './ownership-news.js'
import { PagerError } from './pagers.js'
import type { HomeRecord, Records } from './records.js'
import { removeSocketOnceDead } from './remains.js'

const HOMES_MAX = 256

export class Homes {
  readonly #context: Context
  readonly #records: Records
  readonly #homes = new Map<ProcessId, HomeProcess>()
  readonly #attaching = new Map<ProcessId, Promise<void>>()

  constructor(context: Context, records: Records) {
    this.#context = context
    this.#records = records
  }

  get(id: string): HomeProcess | undefined {
    return this.#homes.get(id as ProcessId)
  }

  all(): HomeProcess[] {
    return [...this.#homes.values()]
  }

  stretched(): StretchedHere[] {
    return this.all().map(home => home.stretched())
  }

  /** Connects to the home pager; once for each process however often it is asked. */
  async attach(attachment: HomeAttachment, members: () => readonly Member[]): Promise<void> {
    const id = toProcessId(attachment.id)
    if (id === undefined) throw new AgentError('no-pager', `bad process id ${attachment.id}`)
    if (this.#homes.has(id)) return
    const running = this.#attaching.get(id)
    if (running !== undefined) return running
    const attached = this.#attach({ ...attachment, id }, members).finally(() => this.#attaching.delete(id))
    this.#attaching.set(id, attached)
    return attached
  }

  /** Attaches what an agent before this one had attached and what still runs. */
  async restore(members: () => readonly Member[]): Promise<void> {
    for (const id of this.#records.ids('home')) {
      const record = this.#records.home(id)
      try {
        if (record === undefined) throw new Error('its record is malformed')
        await this.#attach(record.attachment, members, record)
        this.#context.log.info(`${id}: found its home pager again`)
      } catch (error) {
        this.#context.log.debug(`${id}: not attached again: ${String(error)}`)
        // A pager that is merely slow, or out of reach for the moment, is found at the next start.
        if (!(error instanceof PagerError) || error.code === 'gone') this.#records.remove(id, 'home')
      }
    }
  }

  onMessage(peer: PeerId, processId: ProcessId, message: HomeMessage): void {
    const home = this.#homes.get(processId)
    if (home !== undefined) {
      home.onMessage(peer, message)
      return
    }
    if (message.kind === 'grant') {
      this.#context.send(peer, { kind: 'release', processId, leaseId: message.leaseId, homeEnded: false })
    }
  }

  detach(): void {
    for (const home of this.#homes.values()) home.detach()
    this.#homes.clear()
  }

  async #attach(
    attachment: HomeAttachment & { readonly id: ProcessId },
    members: () => readonly Member[],
    record?: HomeRecord,
  ): Promise<void> {
    if (this.#homes.size >= HOMES_MAX) {
      throw new AgentError('too-many', `this agent has ${HOMES_MAX} elastic processes already`)
    }
    const { id, pagerSocket } = attachment
    const client = await this.#context.pagers.connect(pagerSocket)
    if (client.describe.id !== id || client.describe.role !== 'home') {
      client.close()
      throw new AgentError('no-pager', `the pager at ${pagerSocket} is not the home pager of ${id}`)
    }
    const onEnd = () => {
      this.#homes.delete(id)
      void removeSocketOnceDead(pagerSocket)
    }
    const home = new HomeProcess(
      this.#context,
      this.#records,
      attachment,
      client,
      members,
      onEnd,
      record?.choices,
    )
    this.#homes.set(id, home)
    home.start(record?.participants ?? [])
  }
}
