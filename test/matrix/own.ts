/**
 * Programs of the matrix that are of test/programs: each is about something that stretching has to take care of, and
 * verifies what it reads back. All of them have memory of several times 4M, so that there is something to push away.
 */

import { join } from 'node:path'
import { compiled, type MatrixProgram, type Scale } from './program.js'

/** A program and its arguments at both scales. */
function own(name: string, small: readonly number[], full: readonly number[]): MatrixProgram {
  return {
    name: name.replaceAll('_', '-'),
    prepare: (directory, scale) => compiled(directory, name, scale === 'full' ? full : small),
  }
}

/** One that makes a file in the directory, which its first argument names. */
function ownWithFile(name: string, small: readonly number[], full: readonly number[]): MatrixProgram {
  return {
    name: name.replaceAll('_', '-'),
    prepare: (directory, scale) =>
      compiled(directory, name, [join(directory, `${name}.dat`), ...(scale === 'full' ? full : small)]),
  }
}

/** One case of a program that has several, with a file as well. */
function ownCase(name: string, which: string): MatrixProgram {
  return {
    name: name.replaceAll('_', '-'),
    prepare: directory => compiled(directory, name, [which, join(directory, `${name}.dat`)]),
  }
}

const threadsArguments = (scale: Scale) => (scale === 'full' ? [6000, 32] : [3200, 32])

export const OWN: readonly MatrixProgram[] = [
  {
    name: 'threads',
    threads: true,
    prepare: (directory, scale) => compiled(directory, 'threads', threadsArguments(scale)),
  },
  {
    name: 'static',
    threads: true,
    prepare: (directory, scale) => compiled(directory, 'threads', threadsArguments(scale), ['-static']),
  },
  {
    name: 'static-pie',
    threads: true,
    prepare: (directory, scale) => compiled(directory, 'threads', threadsArguments(scale), ['-static-pie']),
  },
  own('counter', [90_000, 3000], [150_000, 6000]),
  own('linear_search', [3200, 24], [6000, 12]),
  own('pthreads', [3000, 10], [6000, 30]),
  own('vectors', [3000, 10], [6000, 20]),
  own('clocks', [3000, 800], [6000, 3000]),
  own('timers', [3000, 15], [6000, 50]),
  own('signals', [3000, 20], [6000, 40]),
  own('unwinding', [3000, 10], [6000, 30]),
  own('statics', [3, 1500], [6, 1800]),
  own('maps', [2400], [6000]),
  own('mremap', [2000], [4000]),
  ownWithFile('shared_maps', [2500, 5], [5000, 20]),
  ownWithFile('filemap', [2500], [5000]),
  own('calls', [1500], [3000]),
  ownCase('direct_io', 'threads'),
  ownCase('aio', 'reads'),
  own('fork', [3000], [5000]),
  own('exec', [3000], [6000]),
]
