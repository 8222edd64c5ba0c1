/**
 * `elasticos top` at work: a snapshot a second, drawn on a terminal, or as lines of JSON; without either, once.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { findAgent } from '../find-agent.js'
import { print } from '../output.js'
import { pictureLines, screen } from './render.js'
import { type Snapshot, snapshotJson, takeSnapshot } from './snapshot.js'
import { LiveTerminal } from './terminal.js'

const PERIOD_MS = 1000

export interface TopOptions {
  readonly control: string | undefined
  readonly json: boolean
  /** Snapshots until it ends by itself. */
  readonly count: number
}

export async function runTop({ control, json, count }: TopOptions): Promise<number> {
  const agent = await findAgent(control)
  const take = () => takeSnapshot(agent, control === undefined)
  try {
    if (json) return await printSnapshots(take, count)
    if (process.stdout.isTTY) return await drawSnapshots(take, count)
    for (const line of pictureLines(await take(), undefined)) print(line)
    return 0
  } finally {
    agent?.close()
  }
}

type Take = () => Promise<Snapshot>

async function printSnapshots(take: Take, count: number): Promise<number> {
  const unread = new Promise<number>(resolve => process.stdout.once('error', () => resolve(0)))
  return await everySecond(take, count, unread, (now, before) => {
    print(JSON.stringify({ time: new Date().toISOString(), ...snapshotJson(now, before) }))
  })
}

async function drawSnapshots(take: Take, count: number): Promise<number> {
  const terminal = new LiveTerminal()
  let redraw = () => {}
  terminal.onResize(() => redraw())
  try {
    return await everySecond(take, count, terminal.ended, (now, before) => {
      redraw = () => terminal.draw(screen(now, before, terminal.size))
      redraw()
    })
  } finally {
    terminal.leave()
  }
}

/** Calls `show` with each snapshot until there were `count`, or `ended` says with which status. */
async function everySecond(
  take: Take,
  count: number,
  ended: Promise<number>,
  show: (now: Snapshot, before: Snapshot | undefined) => void,
): Promise<number> {
  let before: Snapshot | undefined
  for (let shown = 0; ; ) {
    const now = await Promise.race([take(), ended])
    if (typeof now === 'number') return now
    show(now, before)
    before = now
    if (++shown >= count) return 0
    const status = await Promise.race([sleep(PERIOD_MS), ended])
    if (status !== undefined) return status
  }
}
