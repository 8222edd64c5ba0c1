/**
 * An agent that only answers: for tests of the control socket and of commands that talk to an agent.
 */

import type { AgentService, HomeAttachment, LeaseInfo, ProcessInfo } from '../../agent/service.js'

export const LEASE = { node: 'b', peerId: 'p', state: 'up' as const, pages: 5 }

export class FakeService implements AgentService {
  readonly asked: string[] = []
  processesNow: ProcessInfo[] = []
  readonly leasesNow: LeaseInfo[] = [LEASE]
  readonly attached: HomeAttachment[] = []
  listener: (count: number) => void = () => {}

  nodes() {
    const node = { name: 'n', peerId: 'p', addresses: [], self: true, state: 'joined' as const }
    return [{ ...node, freePages: 1, capacityPages: 2, cpus: 3, processes: 0 }]
  }
  counts() {
    return {
      messagesSent: 4,
      messagesReceived: 5,
      leasesGiven: 0,
      leasesTaken: 1,
      offences: { flood: 6 },
      shutOuts: 1,
    }
  }
  async processes() {
    return this.processesNow
  }
  async attachHome(home: HomeAttachment) {
    if (home.program === 'bad') throw new Error('the pager is gone')
    this.attached.push(home)
  }
  participants() {
    return 1
  }
  onParticipants(_id: string, listener: (count: number) => void) {
    this.listener = listener
    return () => {}
  }
  refusals() {
    return ['left: full']
  }
  async leases() {
    return [...this.leasesNow]
  }
  async contract(_id: string, node: string | undefined) {
    this.asked.push(`contract ${node}`)
    return [...this.leasesNow]
  }
  async stretch(_id: string, node: string) {
    if (node === 'c') throw new Error('c does not take part: full')
    this.asked.push(`stretch ${node}`)
    return node
  }
  async automatic(_id: string) {
    this.asked.push('automatic')
  }
  onFailure() {}
  async stop() {}
}
