/** The smallest files that look like programs of some machine, for the checks that come before an exec. */

import { writeFileSync } from 'node:fs'

/** e_machine of <elf.h>. */
export const MACHINE = { i386: 3, aarch64: 183 } as const

const EXECUTABLE = 2
const HEADER_BYTES = { 32: 52, 64: 64 } as const
const PROGRAM_HEADER_BYTES = { 32: 32, 64: 56 } as const
const CLASS = { 32: 1, 64: 2 } as const

/** Writes an executable ELF file with one (empty) program header. */
export function writeElf(path: string, bits: 32 | 64, machine: number): void {
  const file = Buffer.alloc(HEADER_BYTES[bits] + PROGRAM_HEADER_BYTES[bits])
  file.write('\x7fELF', 'latin1')
  file.writeUInt8(CLASS[bits], 4)
  file.writeUInt8(1, 5) // little-endian
  file.writeUInt8(1, 6) // version
  file.writeUInt16LE(EXECUTABLE, 16)
  file.writeUInt16LE(machine, 18)
  file.writeUInt32LE(1, 20)
  // e_phoff, e_ehsize, e_phentsize, e_phnum at the offsets of the class.
  if (bits === 64) file.writeBigUInt64LE(BigInt(HEADER_BYTES[64]), 32)
  else file.writeUInt32LE(HEADER_BYTES[32], 28)
  const sizes = bits === 64 ? 52 : 40
  file.writeUInt16LE(HEADER_BYTES[bits], sizes)
  file.writeUInt16LE(PROGRAM_HEADER_BYTES[bits], sizes + 2)
  file.writeUInt16LE(1, sizes + 4)
  writeFileSync(path, file, { mode: 0o755 })
}
