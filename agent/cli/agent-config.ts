/**
 * Settings of `elasticos agent`: flags over the configuration file over defaults.
 *
 * The file is TOML with the names of the flags as keys. Unknown keys and wrong types are refused with the line they are
 * on. Relative paths in it are relative to its own directory.
 */

import { mkdirSync, readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { parse, TomlError } from 'smol-toml'
import { z } from 'zod'
import { SOCKET_PATH_BYTES_MAX } from '../../kmod/pager-client.js'
import { peerSocketPath } from '../../kmod/pager-host.js'
import { bytes, pagesIn } from '../../placement/units.js'
import { defaultKeyPath } from '../key.js'
import { type HostPort, parseHostPort } from '../metrics/host-port.js'
import { requireEndpoint, requirePeerId } from '../net/address.js'
import { AgentError } from '../service.js'
import { LOG_FORMATS, LOG_LEVELS, type LogFormat, type LogLevel } from './agent-log.js'
import { CliFailure, EXIT_USAGE } from './failure.js'
import { defaultControlPath, defaultDataDir, isMemoryFileSystem, runtimeDirFor, uid } from './paths.js'
import {
  defaultMemoryPages,
  defaultProcessorThousandths,
  defaultSpillMaxBytes,
  hostNodeName,
  processorsFlag,
  sizeFlag,
  spillMaxFlag,
} from './values.js'

/** Not registered with IANA for anything; peers on other machines are found by discovery, which tells the port. */
const DEFAULT_PORT = 7420
/** All ids have its length. */
const SOME_PROCESS_ID = '0'.repeat(16)
const NAME_FORM = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/

/** Flags as typed. */
export interface AgentFlags {
  readonly name?: string
  readonly data?: string
  readonly control?: string
  readonly listen?: readonly string[]
  readonly peer?: readonly string[]
  /** False with --no-discovery. */
  readonly discovery: boolean
  readonly key?: string
  readonly allow?: readonly string[]
  readonly capacity?: string
  readonly cpus?: string
  readonly spillMax?: string
  readonly metrics?: string
  readonly logFormat?: string
  readonly logLevel?: string
  readonly config?: string
  readonly verbose?: boolean
}

export interface AgentSettings {
  readonly name: string
  readonly dataDir: string
  readonly runtimeDir: string
  readonly control: string
  readonly listen: string[]
  readonly peers: string[]
  readonly discovery: boolean
  readonly keyFile: string
  readonly allow: string[]
  readonly capacityPages: number
  readonly processorThousandths: number
  readonly spillMaxBytes: number
  /** Where to answer Prometheus; undefined: nowhere. */
  readonly metrics: HostPort | undefined
  readonly logFormat: LogFormat
  readonly logLevel: LogLevel
}

const METRICS_FORM = 'give HOST:PORT with an IP address, as in 127.0.0.1:9420'

/** A text that `check` takes, as it takes what a flag gives; what it says otherwise is said of the line. */
function checked(check: (text: string) => unknown) {
  return z.string().superRefine((text, context) => {
    try {
      check(text)
    } catch (error) {
      if (!(error instanceof CliFailure) && !(error instanceof AgentError)) throw error
      context.addIssue({ code: 'custom', message: error.message })
    }
  })
}

const fileSchema = z.strictObject({
  name: checked(nameFlag).optional(),
  data: z.string().optional(),
  control: z.string().optional(),
  listen: z.array(checked(text => requireEndpoint(text, '--listen'))).optional(),
  peer: z.array(checked(text => requireEndpoint(text, '--peer'))).optional(),
  discovery: z.boolean().optional(),
  key: z.string().optional(),
  allow: z.array(checked(requirePeerId)).optional(),
  capacity: checked(text => sizeFlag('capacity', text)).optional(),
  cpus: z
    .union([z.string(), z.number()])
    .transform(String)
    .pipe(checked(text => processorsFlag('cpus', text)))
    .optional(),
  'spill-max': checked(text => spillMaxFlag('spill-max', text)).optional(),
  metrics: z
    .string()
    .refine(text => parseHostPort(text) !== undefined, METRICS_FORM)
    .optional(),
  'log-format': z.enum(LOG_FORMATS).optional(),
  'log-level': z.enum(LOG_LEVELS).optional(),
})
type FileSettings = z.infer<typeof fileSchema>

/** Settings of an agent. Makes its data directory. Throws CliFailure with one line. */
export function agentSettings(flags: AgentFlags): AgentSettings {
  const file: FileSettings = flags.config === undefined ? {} : readConfig(flags.config)
  const name = nameFlag(flags.name ?? file.name ?? hostNodeName())
  const ownData = flags.data ?? file.data
  const dataDir = resolve(ownData ?? defaultDataDir())
  const runtimeDir = runtimeDirFor(ownData === undefined ? undefined : dataDir)
  checkSocketPaths(runtimeDir, name, ownData !== undefined)
  makeDirectory(dataDir)
  const capacity = flags.capacity ?? file.capacity
  const cpus = flags.cpus ?? file.cpus
  const spillMax = flags.spillMax ?? file['spill-max']
  return {
    name,
    dataDir,
    runtimeDir,
    control: resolve(flags.control ?? file.control ?? defaultControlPath()),
    listen: [...(flags.listen ?? file.listen ?? [`/ip4/0.0.0.0/tcp/${DEFAULT_PORT}`])],
    peers: [...(flags.peer ?? file.peer ?? [])],
    discovery: flags.discovery && (file.discovery ?? true),
    keyFile: resolve(flags.key ?? file.key ?? defaultKeyPath(uid())),
    allow: [...(flags.allow ?? file.allow ?? [])],
    capacityPages:
      capacity === undefined ? defaultMemoryPages() : pagesIn(bytes(sizeFlag('--capacity', capacity))),
    processorThousandths: cpus === undefined ? defaultProcessorThousandths() : processorsFlag('--cpus', cpus),
    spillMaxBytes:
      spillMax === undefined ? defaultSpillMaxBytes(dataDir) : spillMaxFlag('--spill-max', spillMax),
    metrics: metricsFlag(flags.metrics ?? file.metrics),
    logFormat: choiceFlag('--log-format', LOG_FORMATS, flags.logFormat ?? file['log-format'] ?? 'json'),
    logLevel: choiceFlag(
      '--log-level',
      LOG_LEVELS,
      flags.logLevel ?? (flags.verbose ? 'debug' : (file['log-level'] ?? 'info')),
    ),
  }
}

function nameFlag(name: string): string {
  if (NAME_FORM.test(name)) return name
  throw new CliFailure(
    `--name ${JSON.stringify(name)}: use letters, digits, '.', '_' and '-', at most 63`,
    EXIT_USAGE,
  )
}

function metricsFlag(text: string | undefined): HostPort | undefined {
  if (text === undefined) return undefined
  const address = parseHostPort(text)
  if (address === undefined)
    throw new CliFailure(`--metrics ${JSON.stringify(text)}: ${METRICS_FORM}`, EXIT_USAGE)
  return address
}

function choiceFlag<T extends string>(flag: string, choices: readonly T[], text: string): T {
  const choice = choices.find(one => one === text)
  if (choice !== undefined) return choice
  throw new CliFailure(`${flag} ${JSON.stringify(text)}: give one of ${choices.join(', ')}`, EXIT_USAGE)
}

/** The kernel bounds the path of a socket: without room for a pager's an agent could start, and never lend. */
function checkSocketPaths(runtimeDir: string, name: string, hasOwnData: boolean): void {
  const longest = Buffer.byteLength(peerSocketPath(runtimeDir, SOME_PROCESS_ID, name))
  if (longest <= SOCKET_PATH_BYTES_MAX) return
  const remedy = hasOwnData ? 'give a shorter --data' : 'set XDG_RUNTIME_DIR to a shorter directory'
  const excess = longest - SOCKET_PATH_BYTES_MAX
  throw new CliFailure(`${runtimeDir} is ${excess} bytes too long for the sockets of pagers; ${remedy}`)
}

function makeDirectory(dataDir: string): void {
  let inMemory: boolean
  try {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 })
    inMemory = isMemoryFileSystem(dataDir)
  } catch (error) {
    throw new CliFailure(`cannot use ${dataDir} for data; give a --data directory you may write`, 1, {
      cause: error,
    })
  }
  if (!inMemory) return
  throw new CliFailure(
    `${dataDir} is on tmpfs, which is memory: pages spilled there would free nothing; give a --data directory on a disk`,
  )
}

/** Reads and checks a configuration file. Exported for tests. */
export function readConfig(path: string): FileSettings {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    throw new CliFailure(`cannot read the configuration file ${path}; check --config`, EXIT_USAGE, {
      cause: error,
    })
  }
  const settings = parseToml(path, text)
  const parsed = fileSchema.safeParse(settings)
  if (parsed.success) return withAbsolutePaths(parsed.data, dirname(resolve(path)))
  const issue = parsed.error.issues[0]
  const key = issue?.code === 'unrecognized_keys' ? issue.keys[0] : issue?.path[0]
  const what =
    issue?.code === 'unrecognized_keys'
      ? `unknown setting ${String(key)}`
      : `${String(key)}: ${issue?.message}`
  const wrong = issue?.path.length === 2 ? elementAt(settings, issue.path) : undefined
  throw new CliFailure(
    `${path}${lineOf(text, String(key), wrong)}: ${what}; see \`elasticos agent --help\``,
    EXIT_USAGE,
  )
}

function parseToml(path: string, text: string): unknown {
  try {
    return parse(text)
  } catch (error) {
    if (!(error instanceof TomlError)) throw error
    const why = error.message.split('\n')[0]
    throw new CliFailure(`${path}:${error.line}: ${why}`, EXIT_USAGE, { cause: error })
  }
}

/** The text of a list that is wrong. */
function elementAt(settings: unknown, [key, index]: readonly PropertyKey[]): string | undefined {
  const element = (settings as Record<PropertyKey, readonly unknown[]>)[key as string]?.[Number(index)]
  return typeof element === 'string' ? element : undefined
}

/** `:7` when `key` is set on line 7 of the file, or its list has `element` there. */
function lineOf(text: string, key: string, element: string | undefined): string {
  const lines = text.split('\n')
  const pattern = new RegExp(`^\\s*\\[?["']?${key.replace(/[^\w-]/g, '.')}["']?\\s*[\\].=]`)
  const first = lines.findIndex(line => pattern.test(line))
  if (first < 0) return ''
  const within =
    element === undefined ? -1 : lines.findIndex((line, at) => at >= first && line.includes(element))
  return `:${Math.max(first, within) + 1}`
}

function withAbsolutePaths(file: FileSettings, base: string): FileSettings {
  const absolute = { ...file }
  for (const field of ['data', 'control', 'key'] as const) {
    const path = file[field]
    if (path !== undefined) absolute[field] = resolve(base, path)
  }
  return absolute
}
