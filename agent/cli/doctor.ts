/**
 * `elasticos doctor`: what this machine can do, what it cannot, and the line that mends it. Status 1 if `run` cannot
 * work.
 */

import type { Command } from 'commander'
import type { Finish } from './main.js'
import { coloured, print } from './output.js'

interface Flags {
  readonly json?: boolean
  readonly data?: string
}

export function addDoctorCommand(program: Command, finish: Finish): void {
  program
    .command('doctor')
    .description('check what this machine can do, and say how to mend what it cannot')
    .option('--data <DIR>', "check this data directory instead of the default (for the agent's --data)")
    .option('--json', 'print JSON')
    .option('--verbose', 'say more when something fails')
    .addHelpText(
      'after',
      '\nExits with 1 if `elasticos run` cannot work here.\n\nExample:\n  elasticos doctor',
    )
    .action(async (flags: Flags) => {
      const { examine } = await import('./examine.js')
      const checks = await examine(flags.data)
      const ok = checks.every(check => check.ok || !check.needed)
      finish(ok ? 0 : 1)
      if (flags.json === true) return print(JSON.stringify({ ok, checks }, null, 2))
      for (const check of checks) {
        const mark = check.ok
          ? coloured('green', 'ok  ')
          : check.needed
            ? coloured('red', 'FAIL')
            : coloured('yellow', 'weak')
        print(`${mark}  ${check.name}: ${check.detail}`)
        if (!check.ok && check.remedy !== '') print(`      mend it: ${check.remedy}`)
      }
      print(
        ok
          ? 'elasticos can run here'
          : coloured('red', 'elasticos cannot run here until the failures are mended'),
      )
    })
}
