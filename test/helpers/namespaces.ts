/**
 * Hosts as network namespaces on a bridge of their own: nothing that happens there reaches a real interface.
 * Needs root and iproute2; `namespacesMissing` says why when that is not so.
 */

import { spawnSync } from 'node:child_process'

const TIMEOUT_MS = 10_000

function ip(...args: string[]): void {
  const done = spawnSync('ip', args, { encoding: 'utf8', timeout: TIMEOUT_MS })
  if (done.status !== 0)
    throw new Error(`ip ${args.join(' ')}: ${done.stderr ?? ''}${done.error?.message ?? ''}`)
}

/** Why namespaces cannot be made here; undefined when they can. */
export function namespacesMissing(): string | undefined {
  if (process.getuid?.() !== 0) return 'network namespaces are for root'
  const name = `el${process.pid}probe`
  try {
    ip('netns', 'add', name)
    ip('netns', 'del', name)
    return undefined
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

/** A few hosts, 10.77.0.1 and following, joined by a bridge that lies in a namespace of its own. */
export class Hosts {
  readonly #bridge: string
  readonly #names: string[]

  private constructor(count: number) {
    const base = `el${process.pid}`
    this.#bridge = `${base}br`
    this.#names = Array.from({ length: count }, (_, i) => `${base}h${i + 1}`)
  }

  static make(count: number): Hosts {
    const hosts = new Hosts(count)
    try {
      hosts.#make()
      return hosts
    } catch (error) {
      hosts.remove()
      throw error
    }
  }

  address(index: number): string {
    return `10.77.0.${index + 1}`
  }

  /** Words that run a command on host `index`. */
  prefix(index: number): string[] {
    return ['ip', 'netns', 'exec', this.#names[index] ?? '', 'env']
  }

  /** Pulls or plugs the cable of host `index`. */
  setLink(index: number, state: 'up' | 'down'): void {
    ip('-n', this.#bridge, 'link', 'set', `port${index + 1}`, state)
  }

  /** Gives host `index` the address `to` for `from`, each of which may be none. */
  readdress(index: number, from: string | undefined, to: string | undefined): void {
    const change = (how: 'add' | 'del', address: string | undefined) => {
      if (address !== undefined)
        ip('-n', this.#names[index] ?? '', 'address', how, `${address}/24`, 'dev', 'eth0')
    }
    change('del', from)
    change('add', to)
  }

  /** Takes the IPv4 address of host `index`, and gives it fd77::1 and following. */
  useIPv6(index: number): string {
    const name = this.#names[index] ?? ''
    const address = `fd77::${index + 1}`
    this.readdress(index, this.address(index), undefined)
    ip('-n', name, 'address', 'add', `${address}/64`, 'dev', 'eth0', 'nodad')
    return address
  }

  /** Two hosts hear no more of one another; nothing tells them. */
  cut(one: number, other: number): void {
    for (const [at, to] of [
      [one, other],
      [other, one],
    ] as const)
      ip('-n', this.#names[at] ?? '', 'route', 'add', 'blackhole', `${this.address(to)}/32`)
  }

  remove(): void {
    for (const name of [...this.#names, this.#bridge])
      spawnSync('ip', ['netns', 'del', name], { timeout: TIMEOUT_MS })
  }

  #make(): void {
    ip('netns', 'add', this.#bridge)
    ip('-n', this.#bridge, 'link', 'add', 'br0', 'type', 'bridge')
    ip('-n', this.#bridge, 'link', 'set', 'br0', 'up')
    this.#names.forEach((name, i) => {
      const port = `port${i + 1}`
      ip('netns', 'add', name)
      ip('-n', name, 'link', 'set', 'lo', 'up')
      ip('-n', this.#bridge, 'link', 'add', port, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name)
      ip('-n', this.#bridge, 'link', 'set', port, 'master', 'br0', 'up')
      ip('-n', name, 'address', 'add', `${this.address(i)}/24`, 'dev', 'eth0')
      ip('-n', name, 'link', 'set', 'eth0', 'up')
    })
  }
}
