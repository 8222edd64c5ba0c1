// Compiled tests only: `npm test` builds first. Tests that start processes take turns on small machines, hence few
// workers; the timeout is of silence (no test finishing), not of the whole run.
import { availableParallelism } from 'node:os'

export default {
  files: ['dist/test/**/*.test.js'],
  concurrency: Math.max(1, Math.min(4, Math.floor(availableParallelism() / 2))),
  timeout: '3m',
  workerThreads: false,
}
