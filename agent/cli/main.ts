/**
 * The command line. Each command declares its flags in its own file and loads what it needs only when it is called,
 * so that `run` costs no more start-up time than it must.
 *
 * Exit status: 0, 1 for a failure, 2 for wrong usage; `run` has its own numbers (125 for failures of elasticos).
 */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Command, CommanderError } from 'commander'
import { packageRoot } from '../../kmod/pager-host.js'
import { addAgentCommand } from './agent.js'
import { addCleanCommand } from './clean.js'
import { addContractCommand } from './contract.js'
import { addDemoCommand } from './demo.js'
import { addDoctorCommand } from './doctor.js'
import { CliFailure, EXIT_FAILURE, EXIT_RUN_FAILED, EXIT_USAGE, reportFailure } from './failure.js'
import { addKeyCommand } from './key.js'
import { addNodesCommand } from './nodes.js'
import { addPagesCommand } from './pages.js'
import { addPsCommand } from './ps.js'
import { addRunCommand } from './run.js'
import { addSimulateCommand, type Simulator } from './simulate.js'
import { addStopCommand } from './stop.js'
import { addStretchCommand } from './stretch.js'
import { addTopCommand } from './top.js'

/** What is still open this long after a command has finished is not worth waiting for. */
const LINGER_MS = 1000

/** What each command is given: where to put its exit status. */
export type Finish = (status: number) => void

const EXAMPLES = `
Examples:
  elasticos agent                                    on every machine
  elasticos run --memory 512M -- python3 big.py      512 MB here, the other machines' memory for the rest
  elasticos nodes                                    who is there
  elasticos demo                                     see it work, on this machine alone
  elasticos doctor                                   what this machine can do, and how to mend what it cannot

\`elasticos COMMAND --help\` describes each command.`

function packageVersion(): string {
  const manifest: unknown = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8'))
  const isObject = typeof manifest === 'object' && manifest !== null && 'version' in manifest
  return isObject ? String(manifest.version) : 'unknown'
}

/**
 * Carries out one command line (without node and script); resolves to the exit status. Prints its own errors.
 *
 * @param loadSimulator where there is one, `simulate` is a command
 */
export async function main(argv: string[], loadSimulator?: () => Promise<Simulator>): Promise<number> {
  let status = 0
  const finish: Finish = value => {
    status = value
  }
  const failed = argv[0] === 'run' ? EXIT_RUN_FAILED : EXIT_FAILURE
  const verbose = argv.slice(0, separator(argv)).includes('--verbose')
  try {
    await buildProgram(finish, loadSimulator).parseAsync(argv, { from: 'user' })
  } catch (error) {
    status = failureStatus(error, failed)
    if (!(error instanceof CommanderError)) reportFailure(error, verbose)
  }
  setTimeout(() => process.exit(status), LINGER_MS).unref()
  return status
}

function separator(argv: string[]): number {
  const at = argv.indexOf('--')
  return at < 0 ? argv.length : at
}

function failureStatus(error: unknown, failed: number): number {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return 0
    return failed === EXIT_RUN_FAILED ? failed : EXIT_USAGE
  }
  if (error instanceof CliFailure && failed !== EXIT_RUN_FAILED) return error.status
  return failed
}

function buildProgram(finish: Finish, loadSimulator: (() => Promise<Simulator>) | undefined): Command {
  const program = new Command('elasticos')
  program
    .description(
      'Stretches one unmodified Linux process over the memory and the processors of several machines.',
    )
    .version(packageVersion(), '--version', 'print the version')
    .helpOption('-h, --help', 'describe a command')
    .enablePositionalOptions()
    .addHelpText('after', EXAMPLES)
  const inherited = {
    writeErr: (text: string) => process.stderr.write(text),
    outputError: (text: string, write: (text: string) => void) => {
      const line = text
        .trim()
        .replace(/^error: /, '')
        .replace(/\s*\n\s*/g, ' ')
      write(`elasticos: ${line}; see \`elasticos ${currentCommand(program)}--help\`\n`)
    },
  }
  program.exitOverride().configureOutput(inherited)
  for (const add of [
    addAgentCommand,
    addRunCommand,
    addPsCommand,
    addNodesCommand,
    addPagesCommand,
    addTopCommand,
    addStretchCommand,
    addContractCommand,
    addStopCommand,
    addKeyCommand,
    addDoctorCommand,
    addDemoCommand,
    addCleanCommand,
  ]) {
    add(program, finish)
  }
  if (loadSimulator !== undefined) addSimulateCommand(program, finish, loadSimulator)
  return program
}

function currentCommand(program: Command): string {
  const name = program.args[0]
  return program.commands.some(command => command.name() === name) ? `${name} ` : ''
}
