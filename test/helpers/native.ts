/**
 * Where the native programs are that tests run. `ELASTICOS_PAGER` names another pager: CI uses it to repeat the tests with the
 * sanitizer build.
 */

import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The checkout's root directory (this file runs from dist/test/helpers). */
export const ROOT = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))))

const PLAIN_PAGER = join(ROOT, 'kmod', 'pager', 'build', 'elasticos-pager')

/** The pager under test. */
export const PAGER = process.env.ELASTICOS_PAGER ?? PLAIN_PAGER

/** The pager that runs as a guest: always an ordinary build. */
export const GUEST = process.env.ELASTICOS_GUEST ?? PLAIN_PAGER
