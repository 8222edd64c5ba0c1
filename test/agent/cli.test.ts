/**
 * The command line around its commands: usage errors, help, key commands, doctor, listings without an agent, and the
 * settings of an agent.
 */

import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import test from 'ava'
import fc from 'fast-check'
import { agentSettings } from '../../agent/cli/agent-config.js'
import { printable, tableLines } from '../../agent/cli/output.js'
import { hostNodeName } from '../../agent/cli/values.js'
import { ownLines, Sandbox } from './cli-harness.js'

const KEY_FORM = /^\/key\/swarm\/psk\/1\.0\.0\/\n\/base16\/\n[0-9a-f]{64}\n$/

test('usage errors are one line and status 2', async t => {
  const box = new Sandbox()
  t.teardown(() => box.remove())
  for (const [args, says] of [
    [['runn'], /unknown command 'runn'/],
    [['ps', '--what'], /unknown option '--what'; see `elasticos ps --help`/],
    [['stop'], /missing required argument 'id'/],
    [['stop', 'xyz'], /"xyz" is no elastic process id/],
    [['agent', '--capacity', 'lots'], /--capacity: "lots" is no size/],
    [['agent', '--cpus', '0'], /--cpus "0": give a number of processors, as 2 or 0\.5/],
    [['agent', '--spill-max', '300G'], /--spill-max 300G is too much; give at most 256G/],
    [['agent', '--name', 'a b'], /--name "a b"/],
    [['agent', '--metrics', 'example.org:1'], /--metrics "example.org:1": give HOST:PORT with an IP address/],
    [['agent', '--log-format', 'xml'], /--log-format "xml": give one of json, text/],
    [['agent', '--log-level', 'all'], /--log-level "all": give one of error, warn, info, debug/],
    [['trace', '--', 'true'], /unknown command 'trace'/],
  ] as const) {
    const got = await box.elasticos(args)
    t.is(got.status, 2, args.join(' '))
    t.is(got.stderr.trim().split('\n').length, 1, got.stderr)
    t.regex(got.stderr, says)
  }
})

test('every command has help with an example', async t => {
  const box = new Sandbox()
  t.teardown(() => box.remove())
  const commands = [
    'agent',
    'run',
    'ps',
    'nodes',
    'pages',
    'top',
    'stretch',
    'contract',
    'stop',
    'doctor',
    'demo',
    'clean',
    'key',
  ]
  for (const command of commands) {
    const got = await box.elasticos([command, '--help'])
    t.is(got.status, 0)
    t.regex(got.stdout, new RegExp(`Examples?:\\n {2}elasticos ${command}`), command)
  }
  const all = await box.elasticos(['--help'])
  t.false(/checkpoint|replicas|kmod|simulate/.test(all.stdout))
})

test('key: generate, show, set', async t => {
  const box = new Sandbox()
  t.teardown(() => box.remove())
  const path = box.path('keys', 'network.key')
  t.is((await box.elasticos(['key', 'show', '--key', path])).status, 1)
  const made = await box.elasticos(['key', 'generate', '--key', path])
  t.is(made.status, 0, made.stderr)
  t.is(statSync(path).mode & 0o777, 0o600)
  const shown = await box.elasticos(['key', 'show', '--key', path])
  t.regex(shown.stdout, KEY_FORM)
  t.false(made.stdout.includes(shown.stdout.trim().split('\n').at(-1) ?? ''))
  t.is((await box.elasticos(['key', 'generate', path])).status, 1)

  const other = box.path('other.key')
  t.is((await box.elasticos(['key', 'set', '--key', other], '', shown.stdout)).status, 0)
  t.is(readFileSync(other, 'utf8'), readFileSync(path, 'utf8'))
  const wrong = await box.elasticos(['key', 'set', '--key', other], '', 'not a key')
  t.is(wrong.status, 1)
  t.regex(ownLines(wrong.stderr)[0] ?? '', /no network key/)
  t.is((await box.elasticos(['key', 'set', '--key', other, box.path('none')])).status, 1)

  chmodSync(path, 0o644)
  const open = await box.elasticos(['key', 'show', '--key', path])
  t.is(open.status, 1)
  t.regex(open.stderr, /chmod 600/)
})

test('doctor: JSON, and status 1 when something needed is missing', async t => {
  const box = new Sandbox()
  t.teardown(() => box.remove())
  const good = await box.elasticos(['doctor', '--json'])
  const report = JSON.parse(good.stdout)
  t.true(report.ok, good.stdout)
  t.is(good.status, 0)
  const names = report.checks.map((check: { name: string }) => check.name)
  for (const name of ['node', 'pager', 'userfaultfd', 'runtime directory', 'network key'])
    t.true(names.includes(name))
  const bad = await box.elasticos(['doctor', '--json'], 'weak')
  t.is(bad.status, 1)
  t.false(JSON.parse(bad.stdout).ok)
  const text = await box.elasticos(['doctor'], 'weak')
  t.regex(text.stdout, /FAIL {2}userfaultfd: fake\n {6}mend it: sysctl it/)
  t.false(text.stdout.includes('\u001b'))
})

test('listings without an agent', async t => {
  const box = new Sandbox()
  t.teardown(() => box.remove())
  t.is((await box.elasticos(['ps', '--json'])).stdout, '[]\n')
  const nodes = await box.elasticos(['nodes'])
  t.is(nodes.status, 1)
  t.regex(ownLines(nodes.stderr)[0] ?? '', /no agent listens at .*; start one/)
  const stop = await box.elasticos(['stop', '0123456789abcdef'])
  t.is(stop.status, 1)
  t.regex(stop.stderr, /no elastic process 0123456789abcdef/)
})

test('the configuration file: errors name the line', async t => {
  const box = new Sandbox()
  t.teardown(() => box.remove())
  const path = box.path('agent.toml')
  for (const [text, says] of [
    ['name = "a"\ncolour = "red"\n', /agent\.toml:2: unknown setting colour/],
    ['name = "a"\n\npeer = "x"\n', /agent\.toml:3: peer: /],
    ['name = "a"\nname = \n', /agent\.toml:2: /],
    ['name = "a"\nmetrics = "9420"\n', /agent\.toml:2: metrics: give HOST:PORT with an IP address/],
    ['log-format = "xml"\n', /agent\.toml:1: log-format: /],
    ['cpus = "all"\n', /agent\.toml:1: cpus: .*give a number of processors/],
    ['capacity = "much"\n', /agent\.toml:1: capacity: .*"much" is no size/],
    ['\nspill-max = "999T"\n', /agent\.toml:2: spill-max: /],
    ['# machine\nname = "a b"\n', /agent\.toml:2: name: .*letters, digits/],
    ['listen = [\n  "/ip4/127.0.0.1/tcp/0",\n  "nowhere",\n]\n', /agent\.toml:3: listen: bad multiaddr/],
    ['peer = ["/ip4/192.0.2.7/udp/1"]\n', /agent\.toml:1: peer: bad multiaddr/],
    ['name = "a"\nallow = ["me"]\n', /agent\.toml:2: allow: /],
  ] as const) {
    writeFileSync(path, text)
    const got = await box.elasticos(['agent', '--config', path])
    t.is(got.status, 2)
    t.regex(ownLines(got.stderr)[0] ?? '', says)
  }
  t.is((await box.elasticos(['agent', '--config', box.path('none.toml')])).status, 2)
})

test('an agent whose sockets would have too long paths does not start', async t => {
  const box = new Sandbox()
  t.teardown(() => box.remove())
  // run/pagers/<16 digits>.peer.<8 digits>.sock
  const room = 107 - '/run/pagers/'.length - 35
  const longest = box.path('d'.repeat(room - box.directory.length - 1))
  const settings = (data: string) => agentSettings({ data, discovery: true })
  t.is(settings(longest).runtimeDir, `${longest}/run`)
  t.throws(() => settings(`${longest}d`), {
    message: /^\/.*\/run is 1 bytes too long .*; give a shorter --data$/,
  })
  const got = await box.elasticos(['agent', '--data', `${longest}d`])
  t.is(got.status, 1)
  t.is(got.stdout, '')
  t.regex(got.stderr, /^elasticos: .* give a shorter --data\n$/)
  t.false(existsSync(`${longest}d`))
})

test('who no longer reads standard output is no failure', async t => {
  const box = new Sandbox()
  t.teardown(() => box.remove())
  const child = box.spawn(['key', 'generate', box.path('key')])
  child.stdout?.destroy()
  let stderr = ''
  child.stderr?.on('data', chunk => {
    stderr += chunk
  })
  const [status] = await once(child, 'exit')
  t.is(stderr, '')
  t.is(status, 0)
})

test('a host name that is no node name becomes one', t => {
  t.is(hostNodeName('', 'tower.example.org'), 'tower.example.org')
  t.is(hostNodeName('-run-0123', `${'x'.repeat(70)}`), `${'x'.repeat(54)}-run-0123`)
  t.is(hostNodeName('', 'böse host'), 'b-se-host')
  t.is(hostNodeName('', ''), 'node')
})

test('control characters in a listing are shown, not obeyed', t => {
  const columns = [{ title: 'NAME', cell: (row: string) => row }]
  t.deepEqual(tableLines(columns, ['a\u001b[31m\nb\u009b1m']), ['NAME', 'a\\x1b[31m\\x0ab\\x9b1m'])
  fc.assert(fc.property(fc.string({ unit: 'binary' }), text => !/\p{Cc}/u.test(printable(text))))
})

test('clean leaves the directories of a run that is about to start', async t => {
  const box = new Sandbox()
  t.teardown(() => box.remove())
  const id = '0123456789abcdef'
  const directories = [
    box.path('runtime', 'elasticos', 'runs', id),
    box.path('state', 'elasticos', 'runs', id),
  ]
  const [runtime = ''] = directories
  for (const directory of directories) mkdirSync(directory, { recursive: true })
  writeFileSync(`${runtime}/run.lock`, `${process.pid}\n`)
  t.is((await box.elasticos(['clean'])).stdout, 'nothing to clean\n')
  t.true(directories.every(directory => existsSync(directory)))
  // The same run in a session whose runtime directory is another one keeps its data.
  const other = box.path('state', 'elasticos', 'run', 'runs', id)
  mkdirSync(other, { recursive: true })
  rmSync(runtime, { recursive: true })
  writeFileSync(`${other}/run.lock`, `${process.pid}\n`)
  t.is((await box.elasticos(['clean'])).stdout, 'nothing to clean\n')
  writeFileSync(`${other}/run.lock`, `${2 ** 22 + 1}\n`)
  mkdirSync(runtime)
  writeFileSync(`${runtime}/run.lock`, `${2 ** 22 + 1}\n`)
  await box.elasticos(['clean'])
  t.false(directories.some(directory => existsSync(directory)))
  t.true(existsSync(other), 'what belongs to another session is not touched')
})

test('clean leaves foreign files alone', async t => {
  const box = new Sandbox()
  t.teardown(() => box.remove())
  mkdirSync(box.path('runtime', 'elasticos', 'runs', 'mine'), { recursive: true })
  writeFileSync(box.path('runtime', 'elasticos.sock'), 'no socket')
  const got = await box.elasticos(['clean'])
  t.is(got.stdout, 'nothing to clean\n')
  t.true(existsSync(box.path('runtime', 'elasticos.sock')))
})

/** Leaves a socket nobody listens on at the path that is its argument. */
const STALE_SOCKET = `require('net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))`

test("clean removes the stale control socket of its own session and not the system's", async t => {
  const box = new Sandbox()
  t.teardown(() => box.remove())
  const env = { PATH: process.env.PATH, HOME: box.path('home'), XDG_STATE_HOME: box.path('state') }
  const own = box.path('runtime', 'elasticos.sock')
  // With a /run of its own, as root of its own.
  const script = `mount -t tmpfs none /run && {
    for path in /run/elasticos.sock '${own}'; do "$0" -e "$1" "$path"; done
    XDG_RUNTIME_DIR='${box.path('runtime')}' "$0" "$2" clean; ls /run
    "$0" "$2" clean; ls /run; }`
  const args = [
    '--map-root-user',
    '--mount',
    'sh',
    '-c',
    script,
    process.execPath,
    STALE_SOCKET,
    box.launcher,
  ]
  const got = spawnSync('unshare', args, { env, encoding: 'utf8' })
  if (/unshare failed|mount: /.test(got.stderr)) {
    t.pass('no namespaces here')
    return
  }
  t.is(
    got.stdout,
    `removed socket ${own}: its agent is gone\nelasticos.sock\n` +
      'removed socket /run/elasticos.sock: its agent is gone\n',
    got.stderr,
  )
})
