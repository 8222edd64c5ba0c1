/**
 * One virtual machine under QEMU's software emulation: it boots a kernel with a file system of its own, runs one
 * command and ends.
 *
 * Only the verdict counts that the machine writes as its last act (`rc=N`, through a port of its own): QEMU exits with
 * 0 after a panic as well. No verdict is a failure. QEMU is killed when this process ends, in whatever way.
 *
 * Limits: x86-64; no hardware virtualisation. `cx16=off` because the emulation of QEMU 7.2 corrupts the flags after
 * cmpxchg16b, and the kernel then panics at random.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Initramfs, moduleName } from './initramfs.js'
import type { MachineParts } from './packages.js'

const CPU = 'max,la57=off,cx16=off'
/** An oops alone would hang. On a busy host the emulated timer may seem not to tick: the kernel is not to check. */
const KERNEL_WORDS = 'console=ttyS0 quiet no_timer_check panic=-1 oops=panic panic_on_warn=1'
/** The signal comes when the thread ends that spawned it, the first one of this process. */
const WITH_PARENT = ['--pdeathsig', 'KILL']
/** Drivers of the verdict's port and of the disk, in the order in which they can be loaded. */
const DRIVERS = [
  'virtio/virtio_ring',
  'virtio/virtio',
  'virtio/virtio_pci_legacy_dev',
  'virtio/virtio_pci_modern_dev',
  'virtio/virtio_pci',
  'char/virtio_console',
  'block/virtio_blk',
]

export interface MachineOptions {
  readonly parts: MachineParts
  /** What the machine has besides busybox and its modules. */
  readonly files: Initramfs
  /** Modules to load after the drivers, in this order: files of the host. */
  readonly modules?: readonly string[]
  /** Run by busybox's shell, with a disk of this many MiB mounted at /var/tmp. */
  readonly command: string
  readonly memoryMiB: number
  readonly diskMiB: number
  /** More devices, as words of QEMU's command line: network cards. */
  readonly devices?: readonly string[]
  readonly timeoutMs: number
}

export interface MachineEnd {
  /** The command's exit status; undefined if the machine did not get so far. */
  readonly status: number | undefined
  /** What came over the serial line: the kernel's words and the command's. */
  readonly serial: string
  readonly seconds: number
}

/** Runs a machine to its end. `scratch`: a folder for its files, which are gone afterwards. */
export async function runMachine(options: MachineOptions, scratch: string): Promise<MachineEnd> {
  const directory = mkdtempSync(join(scratch, 'vm-'))
  const path = (name: string) => join(directory, name)
  try {
    addSystem(options)
    options.files.write(path('initramfs'))
    writeFileSync(path('disk'), '')
    truncateSync(path('disk'), options.diskMiB << 20)
    const startedAtMs = performance.now()
    const serial = await runQemu(options, path)
    const verdict = existsSync(path('verdict')) ? readFileSync(path('verdict'), 'utf8') : ''
    const status = /^rc=(\d+)\n$/.exec(verdict)?.[1]
    return {
      status: status === undefined ? undefined : Number(status),
      serial,
      seconds: Math.round((performance.now() - startedAtMs) / 1000),
    }
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

async function runQemu(options: MachineOptions, path: (name: string) => string): Promise<string> {
  const { parts, memoryMiB, timeoutMs } = options
  const words = [
    ...['-accel', 'tcg,thread=multi', '-M', 'q35', '-cpu', CPU, '-m', String(memoryMiB), '-smp', '2'],
    ...['-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none', '-serial', 'stdio'],
    ...['-kernel', parts.kernel.image, '-initrd', path('initramfs'), '-append', KERNEL_WORDS],
    ...['-device', 'virtio-serial-pci', '-chardev', `file,id=verdict,path=${path('verdict')}`],
    ...['-device', 'virtserialport,chardev=verdict,name=verdict'],
    ...['-drive', `file=${path('disk')},if=virtio,format=raw`],
    ...(options.devices ?? []),
  ]
  const qemu = spawn('setpriv', [...WITH_PARENT, parts.qemu, ...words], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: timeoutMs,
    killSignal: 'SIGKILL',
  })
  let serial = ''
  for (const stream of [qemu.stdout, qemu.stderr])
    stream.setEncoding('utf8').on('data', chunk => {
      serial += chunk
    })
  await once(qemu, 'close')
  return serial.replaceAll('\r', '')
}

function addSystem({ files, parts, modules = [], command }: MachineOptions): void {
  files.addFile(parts.busybox, '/bin/busybox')
  for (const name of ['/proc', '/sys', '/dev', '/run', '/tmp', '/root', '/var/tmp']) files.addDirectory(name)
  const drivers = DRIVERS.map(name => join(parts.kernel.modules, 'kernel', 'drivers', `${name}.ko`))
  const loaded = [...drivers, ...modules].map(source => {
    const target = `/lib/modules/${moduleName(source)}.ko`
    files.addFile(source, target)
    return target
  })
  files.addText('/init', initScript(loaded), 0o755)
  files.addText('/command', command)
}

function initScript(modules: readonly string[]): string {
  return `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/usr/local/bin:/usr/bin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
ln -s /proc/self/fd /dev/fd
for module in ${modules.join(' ')}; do insmod $module; done
mke2fs /dev/vda >/dev/null 2>&1
mount /dev/vda /var/tmp
ip link set lo up
sh /command
echo rc=$? >/dev/vport0p1
poweroff -f
`
}
