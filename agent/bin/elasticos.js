#!/usr/bin/env node
// The launcher: plain JavaScript, because it must run before anything has been compiled. It checks the Node version,
// builds dist/ and the pager if they are missing or (in a checkout) older than their sources, and hands over to
// the compiled command line. Limit: static imports only of files that need neither dist/ nor node_modules.

import { ensureBuilt } from './build.js'
import { nodeVersionProblem } from './node-version.js'

/** libp2p uses it; Node has it from 22 on. */
function definePromiseWithResolvers() {
  if (typeof Promise.withResolvers === 'function') return
  Object.defineProperty(Promise, 'withResolvers', {
    configurable: true,
    writable: true,
    value: function withResolvers() {
      let resolve
      let reject
      const promise = new this((onResolve, onReject) => {
        resolve = onResolve
        reject = onReject
      })
      return { promise, resolve, reject }
    },
  })
}

// 125: elasticos failed, before any program was started (the same number `run` uses).
const EXIT_FAILED = 125

async function launch() {
  const problem = nodeVersionProblem(process.versions.node)
  if (problem !== undefined) throw new Error(problem)
  definePromiseWithResolvers()
  ensureBuilt()
  const { main } = await import('../../dist/agent/cli/main.js')
  // The simulator stands above the command line, which therefore cannot import it.
  const loadSimulator = async () => (await import('../../dist/sim-net/simulate.js')).simulator
  process.exitCode = await main(process.argv.slice(2), loadSimulator)
}

launch().catch(error => {
  const detail = process.argv.includes('--verbose') ? error.stack : error.message
  process.stderr.write(`elasticos: ${detail}\n`)
  process.exitCode = EXIT_FAILED
})
