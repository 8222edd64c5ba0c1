// Builds the native programs of kmod/pager with the system's own g++, make and OpenSSL. Plain JavaScript that needs
// neither dist/ nor node_modules, because it runs before either is certain to exist.
//
// Freshness: a stamp beside the output holds the newest modification time of the sources it was made from, so the usual check
// is some stat calls and no process. Sources are looked at only in a git checkout; an installed package is built once.

import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const pagerDir = join(root, 'kmod', 'pager')
const pagerStamp = join(pagerDir, 'build', '.built')
const outputs = ['elasticos-pager', 'shell-stub']

/**
 * Newest modification time of some files below some folders.
 * @param {string[]} paths files or folders, absolute; missing ones are ignored
 * @param {RegExp} pattern which file names count inside folders
 * @returns {number} milliseconds since 1970, 0 when there is nothing
 */
export function newestMs(paths, pattern) {
  let newest = 0
  for (const path of paths) {
    if (!existsSync(path)) continue
    const stat = statSync(path)
    if (!stat.isDirectory()) {
      newest = Math.max(newest, stat.mtimeMs)
      continue
    }
    for (const entry of readdirSync(path, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile() || !pattern.test(entry.name)) continue
      newest = Math.max(newest, statSync(join(entry.parentPath ?? entry.path, entry.name)).mtimeMs)
    }
  }
  return newest
}

/**
 * Whether what `stampPath` stands for was made from sources as new as these.
 * @param {string} stampPath file written by `writeStamp`
 * @param {() => number} newestSourceMs asked only in a git checkout
 */
export function isFresh(stampPath, newestSourceMs) {
  if (!existsSync(stampPath)) return false
  if (!existsSync(join(root, '.git'))) return true
  return Number(readFileSync(stampPath, 'utf8')) >= newestSourceMs()
}

/** @param {string} stampPath @param {number} sourceMs taken before the build began, so an edit during it is noticed */
export function writeStamp(stampPath, sourceMs) {
  mkdirSync(dirname(stampPath), { recursive: true })
  writeFileSync(stampPath, String(sourceMs))
}

function newestPagerSourceMs() {
  return newestMs([join(pagerDir, 'src'), join(pagerDir, 'Makefile')], /\.(cpp|hpp|c|h|S|ld)$/)
}

/** Whether the pager and the shell stub exist and are as new as their sources. */
export function pagerIsFresh() {
  return (
    outputs.every(name => existsSync(join(pagerDir, 'build', name))) &&
    isFresh(pagerStamp, newestPagerSourceMs)
  )
}

/** The first missing build requirement as one line with its remedy, or nothing. */
export function missingRequirement() {
  const remedy = 'run `apt-get install -y g++ make libssl-dev` (as root) and try again'
  for (const tool of ['g++', 'make']) {
    if (spawnSync(tool, ['--version'], { stdio: 'ignore' }).status !== 0)
      return `${tool} is missing: ${remedy}`
  }
  // Asking the compiler finds the headers wherever this distribution keeps them.
  const probe = spawnSync('g++', ['-E', '-x', 'c++', '-', '-o', '/dev/null'], {
    input: '#include <openssl/ssl.h>\n',
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  if (probe.status !== 0) return `the OpenSSL headers are missing: ${remedy}`
  return undefined
}

/**
 * Runs make in kmod/pager. Throws an Error: one line for a missing requirement, the compiler's words for the rest.
 * @param {'all' | 'san'} target `san` is the build with address and undefined-behaviour sanitizers
 */
export function buildPager(target) {
  const sourceMs = newestPagerSourceMs()
  const jobs = `-j${availableParallelism()}`
  const made = spawnSync('make', ['-s', jobs, '-C', pagerDir, target], { encoding: 'utf8' })
  if (made.status !== 0) {
    const missing = missingRequirement()
    throw new Error(missing ?? `the pager's build failed:\n${made.stdout ?? ''}${made.stderr ?? ''}`)
  }
  if (target === 'all') writeStamp(pagerStamp, sourceMs)
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  try {
    buildPager(process.argv[2] === 'san' ? 'san' : 'all')
  } catch (error) {
    process.stderr.write(`elasticos: ${error.message}\n`)
    process.exitCode = 1
  }
}
