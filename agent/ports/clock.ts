/**
 * The port to time: what an agent knows of it, and all it may use of it. The machine's own is `systemClock`; the
 * simulated one is sim-net/clock.ts.
 *
 * Contract: `now` never goes back, and its origin means nothing to anybody else. A timer acts once, never before its
 * time and never while `at` runs; timers that are due act in the order of their times, and those of one time in the
 * order they were set. A timer alone keeps no process alive.
 */

export interface Timer {
  /** Afterwards it does not act; without effect once it has. */
  cancel(): void
}

export interface Clock {
  /** Monotonic ms. */
  now(): number
  /** ms since 1970, as this machine believes: may jump, forth and back. */
  wall(): number
  /** Acts once when `now` is `time`, or soon if that has passed. */
  at(time: number, act: () => void): Timer
}

/** Acts every `periodMs`; a clock that was late does not make up for what it missed. */
export function every(clock: Clock, periodMs: number, act: () => void): Timer {
  let due = clock.now() + periodMs
  let cancelled = false
  const fire = () => {
    act()
    if (cancelled) return
    due = Math.max(due + periodMs, clock.now())
    timer = clock.at(due, fire)
  }
  let timer = clock.at(due, fire)
  return {
    cancel: () => {
      cancelled = true
      timer.cancel()
    },
  }
}

export function sleep(clock: Clock, ms: number): Promise<void> {
  return new Promise(resolve => {
    clock.at(clock.now() + ms, resolve)
  })
}

export const systemClock: Clock = {
  now: () => performance.now(),
  wall: () => Date.now(),
  at(time, act) {
    // Timers count whole milliseconds from the loop's own idea of now, and so may fire a fraction early.
    const fire = () => {
      const earlyMs = time - performance.now()
      if (earlyMs > 0) timeout = setTimeout(fire, Math.ceil(earlyMs)).unref()
      else act()
    }
    let timeout = setTimeout(fire, Math.ceil(time - performance.now())).unref()
    return { cancel: () => clearTimeout(timeout) }
  },
}
