/**
 * A pager that stretches nothing: it speaks the protocol of kmod/pager-messages.ts and runs the program as an ordinary
 * child. For tests of everything around the pager; FAKE_PAGER in the environment chooses how it misbehaves.
 */

import { spawn } from 'node:child_process'
import { rmSync } from 'node:fs'
import { createServer, Socket } from 'node:net'
import { constants } from 'node:os'
import { parseArgs } from 'node:util'
import { FrameSplitter } from '../../kmod/pager-frame.js'
import {
  decodePagerCommand,
  encodePagerEvent,
  type PagerCommand,
  type PagerEvent,
  type PagerStats,
} from '../../kmod/pager-messages.js'

const HERE = { node: 'here', resident: 3, spilled: 2, remote: 0, inFlight: 0 }
const MAP = {
  nodes: [HERE, { node: 'b', resident: 0, spilled: 0, remote: 1, inFlight: 0 }],
  ranges: [
    { first: 0x555, pages: 2, place: 0, spilled: true },
    { first: 0x557, pages: 1, place: 1, spilled: false },
  ],
  leftOut: { ranges: 1, pages: 3 },
}

const misbehaviour = process.env.FAKE_PAGER ?? ''
const [verb, ...rest] = process.argv.slice(2)
const dashes = rest.indexOf('--')
const text = { type: 'string' } as const
const { values } = parseArgs({
  args: dashes < 0 ? rest : rest.slice(0, dashes),
  options: {
    id: text,
    socket: text,
    'memory-pages': text,
    'spill-dir': text,
    'spill-max-bytes': text,
    policy: text,
    'jump-every': text,
    'run-fd': text,
    name: text,
    node: text,
    listen: text,
  },
})
const command = dashes < 0 ? [] : rest.slice(dashes + 1)
const clients = new Set<Socket>()
let applicationPid = 0

if (verb === 'facts') {
  const facts = {
    protocolVersion: 1,
    pageSize: 4096,
    kernel: 'x',
    cpuVendor: 'x',
    cpuFeatures: [],
    xcr0: '0x7',
    arch: 'x86_64',
  }
  process.stdout.write(JSON.stringify(facts))
} else if (verb === 'doctor') {
  const ok = misbehaviour !== 'weak'
  process.stdout.write(JSON.stringify([{ name: 'userfaultfd', ok, detail: 'fake', remedy: 'sysctl it' }]))
} else home()

function tell(event: PagerEvent): void {
  for (const client of clients) client.write(encodePagerEvent(event))
}

function stats(): PagerStats {
  const participants = [{ node: values.name ?? '', peakPages: 3, jumpsTo: 0, threadsPeak: 1 }]
  return {
    mode: 'stretched',
    policy: values.policy ?? '',
    pagesTouched: 9000,
    pulls: 1,
    residentPages: 7,
    participants,
  }
}

function home(): void {
  const run = new Socket({ fd: 3, readable: true, writable: true })
  if (misbehaviour === 'silent-death') process.kill(process.pid, 'SIGKILL')
  const socketPath = values.socket ?? ''
  const server = createServer(client => serve(client)).listen(socketPath)
  server.once('listening', () => serve(run))
  process.once('exit', () => rmSync(socketPath, { force: true }))
  run.once('close', () => process.exit(0))
}

function serve(client: Socket): void {
  const splitter = new FrameSplitter()
  clients.add(client)
  client.on('error', () => client.destroy())
  client.once('close', () => clients.delete(client))
  client.on('data', (chunk: Buffer) => {
    const bodies = splitter.push(chunk)
    if (bodies.kind === 'malformed') return client.destroy()
    for (const body of bodies.message) {
      const decoded = decodePagerCommand(body)
      if (decoded.kind === 'malformed') client.destroy()
      else obey(decoded.message, client)
    }
    return undefined
  })
}

function obey(order: PagerCommand, client: Socket): void {
  switch (order.kind) {
    case 'hello':
      if (misbehaviour === 'refuse') {
        client.write(
          encodePagerEvent({
            kind: 'exited',
            how: 'failed',
            code: 0,
            childrenLeft: 0,
            message: 'no userfaultfd here; mend it',
          }),
        )
        setTimeout(() => process.exit(1), 10)
      } else client.write(encodePagerEvent(describe()))
      break
    case 'start':
      start()
      break
    case 'signal':
      process.kill(applicationPid, order.signal)
      break
    case 'stats-request':
      client.write(encodePagerEvent({ kind: 'stats', stats: stats() }))
      break
    case 'pages-request':
      client.write(encodePagerEvent({ kind: 'pages', map: MAP }))
      break
    case 'terminate':
      process.kill(applicationPid, 'SIGKILL')
      break
    default:
      break
  }
}

function describe(): PagerEvent {
  return {
    kind: 'describe',
    describe: {
      role: 'home',
      pagerPid: process.pid,
      appPid: applicationPid,
      node: 0,
      lanePort: 0,
      memoryPages: Number(values['memory-pages']),
      epoch: 0,
      uid: process.getuid?.() ?? 0,
      startedAtMs: 0,
      id: values.id ?? '',
      program: command[0] ?? '',
      nodeName: values.name ?? '',
    },
  }
}

function end(event: PagerEvent): void {
  tell({ kind: 'stats', stats: stats() })
  tell(event)
  if (misbehaviour !== 'linger') setTimeout(() => process.exit(0), 10)
}

function start(): void {
  if (misbehaviour === 'garbage') {
    for (const client of clients) client.write(Buffer.alloc(64, 0xff))
    return
  }
  const child = spawn(command[0] ?? '', command.slice(1), { stdio: 'inherit' })
  process.once('exit', () => child.kill('SIGKILL'))
  child.once('error', (error: NodeJS.ErrnoException) => {
    const how = error.code === 'ENOENT' ? 'not-found' : 'cannot-execute'
    end({ kind: 'exited', how, code: 0, childrenLeft: 0, message: `${command[0]}: ${error.code}` })
  })
  child.once('spawn', () => {
    applicationPid = child.pid ?? 0
    tell({ kind: 'started', appPid: applicationPid })
    tell({ kind: 'log', level: 'warning', text: 'a warning of the pager' })
    if (misbehaviour === 'death') setTimeout(() => process.kill(process.pid, 'SIGKILL'), 50)
  })
  child.once('exit', (code, signal) => {
    if (signal === null) end({ kind: 'exited', how: 'exit', code: code ?? 0, childrenLeft: 0, message: '' })
    else end({ kind: 'exited', how: 'signal', code: constants.signals[signal], childrenLeft: 0, message: '' })
  })
}
