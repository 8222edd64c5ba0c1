/**
 * The file system that a virtual machine starts with, as the kernel unpacks it: an uncompressed cpio archive in the
 * "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst of the Linux sources).
 *
 * Everything the machine sees is copied in here; nothing of the host is shared with it. Limits: regular files,
 * directories and symbolic links, all of them root's; a file is below 4 GiB.
 */

import { spawnSync } from 'node:child_process'
import { closeSync, openSync, readdirSync, readFileSync, realpathSync, statSync, writeSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'

const TYPE_DIRECTORY = 0o040000
const TYPE_FILE = 0o100000
const TYPE_LINK = 0o120000
const END_OF_ARCHIVE = 'TRAILER!!!'

type Entry =
  | { readonly kind: 'directory' }
  | { readonly kind: 'link'; readonly to: string }
  | { readonly kind: 'file'; readonly mode: number; readonly contents: () => Buffer }

/** Paths are absolute, as the machine sees them. What is added twice is there once. */
export class Initramfs {
  readonly #entries = new Map<string, Entry>()

  addDirectory(path: string): void {
    if (path === '/' || this.#entries.has(path)) return
    this.addDirectory(dirname(path))
    this.#entries.set(path, { kind: 'directory' })
  }

  addLink(path: string, to: string): void {
    this.#add(path, { kind: 'link', to })
  }

  addText(path: string, text: string, mode = 0o644): void {
    this.#add(path, { kind: 'file', mode, contents: () => Buffer.from(text) })
  }

  /** A file of the host; links are followed. */
  addFile(source: string, path: string): void {
    const mode = statSync(source).mode & 0o777
    this.#add(path, { kind: 'file', mode, contents: () => readFileSync(source) })
  }

  /** The files below a folder of the host for which `wanted` holds; asked with names and paths below `source`. */
  addTree(source: string, path: string, wanted: (relative: string) => boolean = () => true): void {
    for (const entry of readdirSync(source, { withFileTypes: true })) {
      const from = join(source, entry.name)
      if (entry.isDirectory())
        this.addTree(from, join(path, entry.name), name => wanted(join(entry.name, name)))
      else if (wanted(entry.name)) this.addFile(from, join(path, entry.name))
    }
  }

  /** A program of the host and the libraries it is linked with, at the paths they have there. */
  addProgram(source: string, path = source): void {
    this.addFile(source, path)
    const listed = spawnSync('ldd', [source], { encoding: 'utf8' }).stdout ?? ''
    for (const [, library = ''] of listed.matchAll(/(\/\S+) \(0x/g))
      this.addFile(realpathSync(library), library)
  }

  write(path: string): void {
    const out = openSync(path, 'w')
    try {
      let inode = 1
      for (const [name, entry] of this.#entries) writeEntry(out, inode++, name.slice(1), entry)
      writeEntry(out, 0, END_OF_ARCHIVE, { kind: 'file', mode: 0, contents: () => Buffer.alloc(0) })
    } finally {
      closeSync(out)
    }
  }

  #add(path: string, entry: Entry): void {
    this.addDirectory(dirname(path))
    this.#entries.set(path, entry)
  }
}

function writeEntry(out: number, inode: number, name: string, entry: Entry): void {
  const data = entry.kind === 'file' ? entry.contents() : Buffer.from(entry.kind === 'link' ? entry.to : '')
  const mode =
    entry.kind === 'directory'
      ? TYPE_DIRECTORY | 0o755
      : entry.kind === 'link'
        ? TYPE_LINK | 0o777
        : TYPE_FILE | entry.mode
  const nameBytes = Buffer.byteLength(name) + 1
  // inode mode uid gid links mtime size, four device numbers, length of the name, checksum.
  const fields = [inode, mode, 0, 0, 1, 0, data.length, 0, 0, 0, 0, nameBytes, 0]
  const header = `070701${fields.map(field => field.toString(16).padStart(8, '0')).join('')}${name}\0`
  for (const part of [Buffer.from(header), data]) {
    writeSync(out, part)
    writeSync(out, Buffer.alloc(-part.length & 3))
  }
}

/** The name of a kernel module's file without what is behind the first dot. */
export function moduleName(path: string): string {
  return basename(path).replace(/\..*$/, '')
}
