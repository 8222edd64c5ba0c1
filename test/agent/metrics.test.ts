/**
 * Metrics: every line is in Prometheus' text format, every series once; only GET /metrics is answered, within bounds.
 */

import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import { parseHostPort } from '../../agent/metrics/host-port.js'
import { MetricsServer } from '../../agent/metrics/server.js'
import { metricsText } from '../../agent/metrics/text.js'
import type { ProcessInfo } from '../../agent/service.js'
import { ROOT } from '../helpers/native.js'
import { FakeService } from './fake-service.js'

const VALUE =
  /^(elasticos_[a-z_]+)(\{(?:[a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)+\})? (\d+(?:\.\d+)?(?:e[+-]\d+)?)$/

const PROCESS: ProcessInfo = {
  id: '0123456789abcdef',
  program: '/bin/a "b"\\c\nd',
  role: 'home',
  home: 'n',
  pid: 7,
  residentPages: 2,
  participants: ['n', 'b'],
  stats: { pulls: 3, bytesSent: 2 ** 40, policy: 'always-pull', jumps: 'many' },
}

function sample(processes: ProcessInfo[]) {
  const service = new FakeService()
  const rest = { counts: service.counts(), loopLagMs: 1.5, residentBytes: 10 }
  return { nodes: service.nodes(), processes, ...rest }
}

/** Series and their values; fails on a line that is none, has no HELP and TYPE, or comes twice. */
function read(t: ExecutionContext, text: string): Map<string, number> {
  const values = new Map<string, number>()
  const told = new Set<string>()
  t.true(text.endsWith('\n'))
  for (const line of text.slice(0, -1).split('\n')) {
    const [, kind, name = ''] = /^# (HELP|TYPE) (elasticos_[a-z_]+) ./.exec(line) ?? []
    if (kind !== undefined) {
      t.false(told.has(`${kind} ${name}`), line)
      told.add(`${kind} ${name}`)
      continue
    }
    const [, metric = '', labels = '', value] = VALUE.exec(line) ?? []
    t.true(told.has(`HELP ${metric}`) && told.has(`TYPE ${metric}`), line)
    t.false(values.has(metric + labels), line)
    values.set(metric + labels, Number(value))
  }
  return values
}

test('the text', t => {
  const values = read(t, metricsText(sample([PROCESS])))
  t.is(values.get('elasticos_nodes{state="joined"}'), 0)
  t.is(values.get('elasticos_lent_capacity_bytes'), 8192)
  t.is(values.get('elasticos_messages_received_total'), 5)
  t.is(values.get('elasticos_peer_offences_total{kind="flood"}'), 6)
  t.is(values.get('elasticos_peers_shut_out_total'), 1)
  t.is(values.get('elasticos_event_loop_lag_seconds'), 0.0015)
  const labels = '{id="0123456789abcdef",role="home"}'
  t.is(values.get(`elasticos_process_pulls_total${labels}`), 3)
  t.is(values.get(`elasticos_process_sent_bytes_total${labels}`), 2 ** 40)
  t.is(values.get(`elasticos_process_resident_bytes${labels}`), 8192)
  t.false(values.has(`elasticos_process_jumps_total${labels}`))
})

test('every name is documented, and every documented one is there', t => {
  const stats = new Proxy({}, { get: () => 1 })
  const values = read(t, metricsText(sample([{ ...PROCESS, stats }])))
  const names = new Set([...values.keys()].map(series => series.replace(/^elasticos_|\{.*$/g, '')))
  const page = readFileSync(join(ROOT, 'docs', 'cli.md'), 'utf8')
  const [, table = ''] = /\n### Metrics\n([\s\S]*?)\n### /.exec(page) ?? []
  const rows = table.split('\n').filter(line => line.startsWith('| `'))
  const documented = rows.flatMap(row => {
    const [first = '', , , what = ''] = row.split(' | ')
    const quoted = (text: string) => [...text.matchAll(/`([A-Za-z_]+)`/g)].map(([, name = '']) => name)
    const named = quoted(first)
    return named.includes('process_NAME_total') ? quoted(what).map(name => `process_${name}_total`) : named
  })
  t.deepEqual([...names].sort(), documented.sort())
})

test('whatever programs and machines are called', t => {
  const any = fc.record({
    program: fc.string({ unit: 'binary' }),
    home: fc.string(),
    pulls: fc.double({ min: 0, noNaN: true, noDefaultInfinity: true }),
  })
  fc.assert(
    fc.property(any, ({ program, home, pulls }) => {
      read(t, metricsText(sample([{ ...PROCESS, program, home, stats: { pulls } }])))
    }),
  )
})

test('addresses', t => {
  t.deepEqual(parseHostPort(':9420'), { host: '127.0.0.1', port: 9420 })
  t.deepEqual(parseHostPort('localhost:0'), { host: '127.0.0.1', port: 0 })
  t.deepEqual(parseHostPort('0.0.0.0:1'), { host: '0.0.0.0', port: 1 })
  t.deepEqual(parseHostPort('[::1]:1'), { host: '::1', port: 1 })
  for (const bad of [
    '',
    '9420',
    'a:1',
    '1.2.3:4',
    '::1:4',
    '[1.2.3.4]:5',
    '127.0.0.1:65536',
    '127.0.0.1:',
    ':-1',
  ])
    t.is(parseHostPort(bad), undefined, bad)
})

async function serve(t: ExecutionContext, connectionMs?: number) {
  const service = new FakeService()
  const server = await MetricsServer.listen({ host: '127.0.0.1', port: 0 }, service, connectionMs)
  t.teardown(() => server.close())
  return { service, server, url: `http://127.0.0.1:${server.port}` }
}

test('only GET /metrics is answered', async t => {
  const { service, server, url } = await serve(t)
  service.processesNow = [PROCESS]
  const answer = await fetch(`${url}/metrics`)
  t.is(answer.status, 200)
  t.is(answer.headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8')
  t.true(read(t, await answer.text()).has('elasticos_agent_resident_bytes'))
  t.is((await fetch(`${url}/`)).status, 404)
  t.is((await fetch(`${url}/metrics/..%2f`)).status, 404)
  const post = await fetch(`${url}/metrics`, { method: 'POST', body: 'x'.repeat(1 << 20) }).catch(
    () => undefined,
  )
  t.true(post === undefined || post.status === 405)
  t.is((await fetch(`${url}/metrics`, { headers: { much: 'x'.repeat(9_000) } })).status, 431)
  await t.throwsAsync(MetricsServer.listen({ host: '127.0.0.1', port: server.port }, service), {
    message: /^cannot listen for --metrics at 127\.0\.0\.1 port \d+ \(EADDRINUSE\); give another HOST:PORT$/,
  })
})

function opened(port: number): Socket {
  const socket = connect(port, '127.0.0.1')
  socket.on('error', () => {})
  socket.resume()
  return socket
}

test('slow clients are dropped, and too many', async t => {
  const { server, url } = await serve(t, 400)
  const slow = opened(server.port)
  slow.write('GET /metrics HTTP/1.1\r\nHost: x\r\nSlow: ')
  await new Promise(resolve => slow.once('close', resolve))
  const idle = Array.from({ length: 20 }, () => opened(server.port))
  await Promise.all(idle.map(socket => new Promise(resolve => socket.once('close', resolve))))
  t.is((await fetch(`${url}/metrics`)).status, 200)
})
