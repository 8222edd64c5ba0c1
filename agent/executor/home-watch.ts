/**
 * Looks once a second at what the home pagers here say of themselves. The limit of a run without `--memory` follows what
 * this machine has to spare, of which each such run has an equal part; a participant that has been of no use for a while is let go.
 *
 * Limits: one question at a time to each pager; one that does not answer keeps what it has.
 */

import { IdleParticipants } from '../machines/idle.js'
import type { SeatState } from '../machines/lease-home.js'
import { PressureLimit } from '../machines/pressure.js'
import type { PeerId } from '../machines/types.js'
import type { Clock } from '../ports/clock.js'
import type { HomeAttachment, Logger } from '../service.js'
import { memoryFor } from './capacity.js'
import type { PagerConnection, PagerStats } from './pagers.js'

export const WATCH_MS = 1_000

/** What there is to know of a home here. */
export interface WatchedHome {
  readonly attachment: HomeAttachment
  readonly client: PagerConnection
  seats(): readonly { readonly peer: PeerId; readonly name: string; readonly state: SeatState }[]
  rest(peer: PeerId): void
}

interface Machines {
  readonly limit: PressureLimit
  readonly idle: IdleParticipants
  isAsked: boolean
}

export class HomeWatch {
  readonly #clock: Clock
  readonly #log: Logger
  readonly #pageSize: number
  readonly #proc: string
  /** By process; those of homes that are gone, or not of interest, go with the next look. */
  #machines = new Map<string, Machines>()

  /** @param proc where the kernel tells of the machine's memory */
  constructor(clock: Clock, log: Logger, pageSize: number, proc = '/proc') {
    this.#clock = clock
    this.#log = log
    this.#pageSize = pageSize
    this.#proc = proc
  }

  /** To be called every WATCH_MS. Resolves when all have answered. */
  async look(homes: readonly WatchedHome[]): Promise<void> {
    const before = this.#machines
    this.#machines = new Map()
    const following = homes.filter(home => home.attachment.memoryFollows === true).length
    const looks = homes.filter(isOfInterest).map(home => {
      const { id } = home.attachment
      const fresh = { limit: new PressureLimit(), idle: new IdleParticipants(), isAsked: false }
      const machines = before.get(id) ?? fresh
      this.#machines.set(id, machines)
      return this.#lookAt(home, machines, following)
    })
    await Promise.all(looks)
  }

  async #lookAt(home: WatchedHome, machines: Machines, following: number): Promise<void> {
    const { id, memoryFollows } = home.attachment
    if (machines.isAsked) return
    machines.isAsked = true
    // Not when it has answered: that takes a while, now longer and now shorter.
    const now = this.#clock.now()
    try {
      const stats = await home.client.requestStats()
      if (memoryFollows === true) this.#follow(home, machines.limit, stats, following, now)
      this.#letGo(home, machines.idle, stats, now)
    } catch (error) {
      this.#log.debug(`${id}: no statistics: ${String(error)}`)
    } finally {
      machines.isAsked = false
    }
  }

  /** As if it had the machine's memory divided by as many as are `following` for itself. */
  #follow(
    { attachment, client }: WatchedHome,
    machine: PressureLimit,
    stats: PagerStats,
    following: number,
    now: number,
  ): void {
    const { residentPages } = stats
    const memory = memoryFor(client.describe.pagerPid, this.#pageSize, this.#proc)
    const limitPages = this.#limitPages(stats)
    if (memory === undefined || residentPages === undefined || limitPages === undefined) return
    const availablePages = memory.availablePages / following
    const totalPages = memory.totalPages / following
    const sample = { ...memory, availablePages, totalPages, residentPages, limitPages }
    const pages = machine.onSample(sample, now)
    if (pages === undefined) return
    this.#log.debug(`${attachment.id}: memory limit from ${limitPages} to ${pages} pages`)
    client.send({ kind: 'limit', pages })
  }

  /** Two of one name count as one: both stay while one of them has something. */
  #letGo(home: WatchedHome, machine: IdleParticipants, stats: PagerStats, now: number): void {
    const { residentPages, running, participants = [] } = stats
    const limitPages = this.#limitPages(stats)
    if (residentPages === undefined || limitPages === undefined) return
    const up = home.seats().filter(seat => seat.state === 'up')
    const held = up.map(({ name }) => {
      const parts = participants.filter(each => each.node === name)
      const sum = (field: 'pages' | 'threads') => parts.reduce((all, each) => all + (each[field] ?? 1), 0)
      return { name, pages: sum('pages'), threads: sum('threads') }
    })
    const sample = { isRunning: running === true, residentPages, limitPages, participants: held }
    const idle = new Set(machine.onSample(sample, now))
    for (const { peer, name } of up) {
      if (!idle.has(name)) continue
      this.#log.info(`${home.attachment.id}: ${name} has nothing to do for it and is let go`)
      home.rest(peer)
    }
  }

  #limitPages({ memoryLimitBytes }: PagerStats): number | undefined {
    return memoryLimitBytes === undefined ? undefined : Math.floor(memoryLimitBytes / this.#pageSize)
  }
}

function isOfInterest(home: WatchedHome): boolean {
  return home.attachment.memoryFollows === true || home.seats().length > 0
}
