/**
 * This checkout for a virtual machine: node, what is compiled, and those npm packages that it and its tests need, at
 * /elasticos. The test programs are compiled here (a machine has no compiler) and lie in /elasticos/programs.
 */

import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { ROOT } from '../helpers/native.js'
import { buildProgram } from '../helpers/programs.js'
import type { Initramfs } from './initramfs.js'

/** Needed to compile only. */
const COMPILE_TIME = new Set(['typescript', '@types/node'])
const TEST_TIME = ['ava', 'fast-check']
const LOADED = /\.(js|cjs|mjs|json)$/

export function addCheckout(files: Initramfs, programs: readonly string[], scratch: string): void {
  files.addProgram(process.execPath, '/usr/bin/node')
  for (const name of [
    'package.json',
    'kmod/build.js',
    'kmod/pager/build/shell-stub',
    'kmod/pager/build/.built',
  ])
    files.addFile(join(ROOT, name), `/elasticos/${name}`)
  files.addProgram(
    join(ROOT, 'kmod/pager/build/elasticos-pager'),
    '/elasticos/kmod/pager/build/elasticos-pager',
  )
  files.addTree(join(ROOT, 'agent/bin'), '/elasticos/agent/bin')
  files.addTree(join(ROOT, 'dist'), '/elasticos/dist', name => !name.endsWith('.map'))
  for (const name of neededPackages())
    files.addTree(
      join(ROOT, name),
      join('/elasticos', name),
      file => LOADED.test(file) && !file.includes('node_modules/'),
    )
  for (const name of programs) files.addProgram(buildProgram(name, scratch), `/elasticos/programs/${name}`)
}

interface Manifest {
  readonly dependencies?: Readonly<Record<string, string>>
  readonly optionalDependencies?: Readonly<Record<string, string>>
}

/** Folders below ROOT, of everything that is needed at run time and by tests. */
function neededPackages(): Set<string> {
  const found = new Set<string>()
  const take = (from: string, name: string) => {
    const folder = resolvePackage(from, name)
    if (folder === undefined || found.has(folder)) return
    found.add(folder)
    const { dependencies, optionalDependencies } = manifest(folder)
    for (const next of Object.keys({ ...dependencies, ...optionalDependencies })) take(folder, next)
  }
  const direct = Object.keys(manifest('.').dependencies ?? {}).filter(name => !COMPILE_TIME.has(name))
  for (const name of [...direct, ...TEST_TIME]) take('.', name)
  return found
}

function manifest(folder: string): Manifest {
  return JSON.parse(readFileSync(join(ROOT, folder, 'package.json'), 'utf8')) as Manifest
}

/** As node looks for it: in the nearest node_modules. Optional ones may not be there. */
function resolvePackage(from: string, name: string): string | undefined {
  for (let folder = from; ; folder = dirname(folder)) {
    const candidate = join(folder, 'node_modules', name)
    if (existsSync(join(ROOT, candidate, 'package.json'))) return candidate
    if (folder === '.') return undefined
  }
}
