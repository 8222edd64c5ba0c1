/**
 * Has the memory limits of runs without `--memory` follow what this machine has to spare: asks their home pagers once
 * a second how much they hold, and tells them what they may.
 *
 * Limits: one question at a time to each pager; one that does not answer keeps the limit it has.
 */

import { PressureLimit } from '../machines/pressure.js'
import type { Clock } from '../ports/clock.js'
import type { HomeAttachment, Logger } from '../service.js'
import { machineMemory, memoryStalls } from './capacity.js'
import type { PagerConnection } from './pagers.js'

export const FOLLOW_MS = 1_000

/** What there is to know of a home here. */
export interface LimitedHome {
  readonly attachment: HomeAttachment
  readonly client: PagerConnection
}

export class Limits {
  readonly #clock: Clock
  readonly #log: Logger
  readonly #pageSize: number
  readonly #proc: string
  /** In the order of their homes; those of homes that are gone go with the next look. */
  #machines = new Map<string, PressureLimit>()
  readonly #asked = new Set<string>()

  /** @param proc where the kernel tells of the machine's memory */
  constructor(clock: Clock, log: Logger, pageSize: number, proc = '/proc') {
    this.#clock = clock
    this.#log = log
    this.#pageSize = pageSize
    this.#proc = proc
  }

  /** To be called every FOLLOW_MS. Resolves when all have answered. */
  async look(homes: readonly LimitedHome[]): Promise<void> {
    const followers = homes.filter(home => home.attachment.memoryFollows === true)
    const machines = followers.map(({ attachment: { id } }) => {
      const machine = this.#machines.get(id) ?? new PressureLimit()
      return [id, machine] as const
    })
    this.#machines = new Map(machines)
    await Promise.all(followers.map(home => this.#follow(home)))
  }

  async #follow({ attachment: { id }, client }: LimitedHome): Promise<void> {
    if (this.#asked.has(id)) return
    this.#asked.add(id)
    try {
      const { residentPages, memoryLimitBytes } = await client.requestStats()
      const memory = machineMemory(this.#pageSize, this.#proc)
      if (memory === undefined || residentPages === undefined || memoryLimitBytes === undefined) return
      const limitPages = Math.floor(memoryLimitBytes / this.#pageSize)
      const sample = { ...memory, ...memoryStalls(this.#proc), residentPages, limitPages }
      const pages = this.#machines.get(id)?.onSample(sample, this.#clock.now())
      if (pages === undefined) return
      this.#log.debug(`${id}: memory limit from ${limitPages} to ${pages} pages`)
      client.send({ kind: 'limit', pages })
    } catch (error) {
      this.#log.debug(`${id}: its memory limit stays: ${String(error)}`)
    } finally {
      this.#asked.delete(id)
    }
  }
}
