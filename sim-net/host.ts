/**
 * A simulated machine: its clock, its chance, its identity, and the one thread on which its agent runs. It outlives its
 * agents; a crash ends one of them and all of its timers, and a restart begins another.
 *
 * While a host is stalled nothing runs on it: what arrives and what is due waits, and then happens in that order. Each
 * host counts its monotonic time from an origin of its own, so that times of two hosts cannot be compared by mistake.
 */

import type { PeerId } from '../agent/machines/types.js'
import type { Clock, Timer } from '../agent/ports/clock.js'
import type { Secrets } from '../agent/ports/rng.js'
import type { Surroundings } from '../agent/ports/surroundings.js'
import type { Due, VirtualClock } from './clock.js'
import type { SeededRng } from './rng.js'

const BASE58 = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'
const ORIGIN_MS_MAX = 10_000_000

export interface HostOptions {
  /** As another host has it; else its own. */
  readonly identity?: PeerId
  /** Name of its network key. */
  readonly key?: string
  /** Peers that may join; everybody when there are none. */
  readonly allow?: readonly PeerId[]
}

export class SimHost implements Surroundings {
  readonly self: PeerId
  readonly key: string
  readonly allow: readonly PeerId[]
  readonly clock: Clock
  readonly rng: SeededRng
  readonly secrets: Secrets
  /** It does not hear everybody else of its network key. */
  readonly isPicky: boolean
  /** Draws what happens to what it sends. */
  readonly wire: SeededRng
  readonly address: string
  /** Whether an agent runs here. */
  isUp = false
  /** Nothing runs here now. */
  stalled = false
  /** Since when its agent runs, and without a stall. */
  soundSince = 0
  readonly #time: VirtualClock
  /** How far its time of day is off. */
  wallMs = 0
  /** Which of its agents runs; those before it are gone. */
  life = 0
  #stalledUntil = 0
  /** What waits for the stall to end. */
  #waiting: (() => void)[] = []

  constructor(
    readonly number: number,
    readonly name: string,
    time: VirtualClock,
    rng: SeededRng,
    options: HostOptions,
  ) {
    this.#time = time
    this.rng = rng.fork('agent')
    this.wire = rng.fork('wire')
    const own = rng.fork('host')
    this.clock = new HostClock(this, time, own.below(ORIGIN_MS_MAX))
    this.self = options.identity ?? identityFrom(own)
    this.key = options.key ?? ''
    this.allow = options.allow ?? []
    this.isPicky = this.allow.length > 0 || options.identity !== undefined
    this.address = `10.${number >> 16}.${(number >> 8) & 255}.${number & 255}`
    const secrets = rng.fork('secrets')
    this.secrets = bytes => Uint8Array.from({ length: bytes }, () => secrets.below(256))
  }

  allows(peer: PeerId): boolean {
    return this.allow.length === 0 || this.allow.includes(peer)
  }

  /** Runs `act` on this host: now, or when its stall is over; never once the agent that is meant is gone. */
  run(act: () => void): void {
    if (this.stalled) this.#waiting.push(this.#ofThisLife(act))
    else act()
  }

  stall(ms: number): void {
    this.stalled = true
    this.#stalledUntil = Math.max(this.#stalledUntil, this.#time.now() + ms)
    const until = this.#stalledUntil
    this.#time.at(until, () => {
      if (until === this.#stalledUntil) this.#resume()
    })
  }

  /** Sets the time of day; timers do not notice. */
  jumpClock(ms: number): void {
    this.wallMs += ms
  }

  /** Whatever ran here has ended, and so have its timers. */
  endLife(): void {
    this.isUp = false
    this.life++
    this.#waiting = []
  }

  #resume(): void {
    while (this.#waiting.length > 0 && this.#time.now() >= this.#stalledUntil) {
      const waiting = this.#waiting
      this.#waiting = []
      for (const act of waiting) act()
    }
    this.stalled = this.#time.now() < this.#stalledUntil
    this.soundSince = this.#time.now()
  }

  #ofThisLife(act: () => void): () => void {
    const { life } = this
    return () => {
      if (life === this.life) act()
    }
  }
}

class HostClock implements Clock {
  readonly #host: SimHost
  readonly #time: VirtualClock
  readonly #originMs: number

  constructor(host: SimHost, time: VirtualClock, originMs: number) {
    this.#host = host
    this.#time = time
    this.#originMs = originMs
  }

  now(): number {
    return this.#time.now() + this.#originMs
  }

  wall(): number {
    return this.#time.wall() + this.#host.wallMs
  }

  at(time: number, act: () => void): Timer {
    return new HostTimer(this.#host, this.#time, time - this.#originMs, act)
  }
}

class HostTimer implements Timer, Due {
  readonly #host: SimHost
  readonly #life: number
  readonly #timer: Timer
  #act: (() => void) | undefined

  constructor(host: SimHost, clock: VirtualClock, time: number, act: () => void) {
    this.#host = host
    this.#life = host.life
    this.#act = act
    this.#timer = clock.at(time, this)
  }

  cancel(): void {
    this.#act = undefined
    this.#timer.cancel()
  }

  due(): void {
    if (this.#host.stalled) this.#host.run(() => this.#run())
    else this.#run()
  }

  #run(): void {
    if (this.#life === this.#host.life) this.#act?.()
  }
}

/** In the form of an Ed25519 peer id; there is no key behind it. */
function identityFrom(rng: SeededRng): PeerId {
  const digits = Array.from({ length: 44 }, () => BASE58[rng.below(BASE58.length)])
  return `12D3KooW${digits.join('')}` as PeerId
}
