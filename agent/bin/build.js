// Builds what a checkout or a package lacks: dist/ (TypeScript) and the pager (C++). Run by `npm ci` as the install
// script, by `npm test` with `--with-tests`, and by the launcher before every command, where it costs some dozen
// stat calls when all is fresh.
//
// Two builds never run at once: the work is done in a child under flock(1) on the checkout's own directory, which
// the kernel releases however that child ends, and which leaves no file behind.

import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

import { buildPager, isFresh, newestMs, pagerIsFresh, writeStamp } from '../../kmod/build.js'

const self = fileURLToPath(import.meta.url)
const root = dirname(dirname(dirname(self)))
const stampPath = join(root, 'dist', '.built')
const sourceFolders = ['agent', 'placement', 'kmod', 'checkpoint', 'sim-net']

function newestSourceMs() {
  const paths = [...sourceFolders, 'tsconfig.json', 'tsconfig.build.json'].map(name => join(root, name))
  return newestMs(paths, /\.ts$/)
}

/** Path of the TypeScript compiler, wherever npm put it. Throws one line when the packages are not installed. */
function findCompiler() {
  const require = createRequire(import.meta.url)
  try {
    const manifestPath = require.resolve('typescript/package.json')
    return join(dirname(manifestPath), require(manifestPath).bin.tsc)
  } catch {
    throw new Error(`the npm packages are not installed: run \`npm ci\` in ${root}`)
  }
}

/** @param {string} project tsconfig.build.json (what the program needs) or tsconfig.json (tests too) */
function buildDist(project) {
  const sourceMs = newestSourceMs()
  const args = [findCompiler(), '-p', join(root, project)]
  const compiled = spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8' })
  if (compiled.status !== 0) {
    throw new Error(`the TypeScript build failed:\n${compiled.stdout ?? ''}${compiled.stderr ?? ''}`)
  }
  removeOrphans()
  writeStamp(stampPath, sourceMs)
}

/** Deletes compiled files whose source is gone, so that a removed test does not run on from dist/. */
function removeOrphans() {
  for (const entry of readdirSync(join(root, 'dist'), { recursive: true })) {
    const source = entry.replace(/\.js(\.map)?$/, '.ts')
    if (source !== entry && !existsSync(join(root, source))) rmSync(join(root, 'dist', entry))
  }
}

/** The work itself; the caller holds the lock. With tests everything is compiled, fresh or not. */
function build(withTests) {
  const needsDist = withTests || !isFresh(stampPath, newestSourceMs)
  const needsPager = !pagerIsFresh()
  if (!needsDist && !needsPager) return
  process.stderr.write('elasticos: building (once, and after a change of the sources) …\n')
  if (needsDist) buildDist(withTests ? 'tsconfig.json' : 'tsconfig.build.json')
  if (needsPager) buildPager('all')
}

/** Runs this file again under the lock. Throws when that build fails; what failed is on stderr already. */
function buildLocked(args) {
  const child = spawnSync('flock', [root, process.execPath, self, '--locked', ...args], {
    stdio: ['ignore', 2, 2],
  })
  if (child.error !== undefined)
    throw new Error('flock is missing: run `apt-get install -y util-linux` (as root)')
  if (child.status !== 0) throw new Error('the build failed, see above')
}

/** Makes dist/ and the pager if they are missing or stale. Throws an Error when that is not possible. */
export function ensureBuilt() {
  if (isFresh(stampPath, newestSourceMs) && pagerIsFresh()) return
  buildLocked([])
}

function main(args) {
  const withTests = args.includes('--with-tests')
  if (args.includes('--locked')) build(withTests)
  else if (withTests) buildLocked(['--with-tests'])
  else ensureBuilt()
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  try {
    main(process.argv.slice(2))
  } catch (error) {
    process.stderr.write(`elasticos: ${error.message}\n`)
    process.exitCode = 1
  }
}
