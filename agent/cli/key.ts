/**
 * `elasticos key`: shows, installs or makes the network key. Who has it may join; `show` here and `set` there is how
 * two machines come together.
 */

import { readFileSync } from 'node:fs'
import { isatty } from 'node:tty'
import type { Command } from 'commander'
import { CliFailure } from './failure.js'
import type { Finish } from './main.js'
import { print, write } from './output.js'
import { uid } from './paths.js'

const KEY_TEXT_BYTES_MAX = 4096

interface Flags {
  readonly key?: string
}

const EXAMPLES = `
Examples:
  elasticos key show                                  print this machine's key
  elasticos key show | ssh other elasticos key set    let the other machine join
  elasticos key set network.key                       the same from a file
  elasticos key generate                              make a new key where there is none`

export function addKeyCommand(program: Command, _finish: Finish): void {
  const key = program
    .command('key')
    .description('the network key: who has it may join')
    .addHelpText('after', EXAMPLES)
  const keyFlag = [
    '--key <FILE>',
    'the key file (default: ~/.config/elasticos/network.key, root: /etc/elasticos/)',
  ] as const
  key
    .command('show')
    .description('print the key: a secret; pipe it where it belongs')
    .option(...keyFlag)
    .option('--verbose', 'say more when something fails')
    .action(async (flags: Flags) => {
      const keys = await import('../key.js')
      write(await keys.showKey(flags.key ?? keys.defaultKeyPath(uid())))
    })
  key
    .command('set')
    .description('install a key from FILE, or from standard input, in place of the present one')
    .argument('[file]', 'a file that holds the output of `elasticos key show`')
    .option(...keyFlag)
    .option('--verbose', 'say more when something fails')
    .action(async (file: string | undefined, flags: Flags) => {
      const keys = await import('../key.js')
      const path = flags.key ?? keys.defaultKeyPath(uid())
      const made = await keys.setKey(path, readKeyText(file))
      print(`${path} now holds key ${keys.keyFingerprint(made)}; agents use it from their next start`)
    })
  key
    .command('generate')
    .description('make a new key in FILE, or where agents look for it; never replaces one')
    .argument('[file]', 'where to put it')
    .option(...keyFlag)
    .option('--verbose', 'say more when something fails')
    .action(async (file: string | undefined, flags: Flags) => {
      const keys = await import('../key.js')
      const path = file ?? flags.key ?? keys.defaultKeyPath(uid())
      const made = await keys.generateKey(path)
      print(`${path} holds the new key ${keys.keyFingerprint(made)}`)
    })
}

function readKeyText(file: string | undefined): string {
  if (file === undefined && isatty(0)) {
    throw new CliFailure('give a FILE, or pipe the output of `elasticos key show` into this command')
  }
  try {
    return readFileSync(file ?? 0, 'utf8').slice(0, KEY_TEXT_BYTES_MAX)
  } catch (error) {
    throw new CliFailure(`cannot read the key from ${file ?? 'standard input'}; does the file exist?`, 1, {
      cause: error,
    })
  }
}
