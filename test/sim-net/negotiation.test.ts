/**
 * A partition in the middle of a negotiation, at every moment of it and of every length, on the simulated network with
 * the agents' own machines and executors. While it lasts nothing stays half agreed: the offer ends, and what the lender
 * has set aside for it is free again. Once it is mended both sides agree on every lease.
 */

import test from 'ava'
import fc from 'fast-check'
import type { ClusterAgent } from '../../sim-net/cluster/agent.js'
import { Cluster } from '../../sim-net/cluster/cluster.js'
import type { SimHost } from '../../sim-net/host.js'
import { check } from '../helpers/seed.js'

/** An offer, a pager that starts, a grant, a dial: all of it is over after this. */
const NEGOTIATION_MS = 150
/** An offer without an answer ends after 6 s, a grant without a lane after 10 s, and its pager within 3 s more. */
const ENDED_MS = 20_000
const AGREED_MS = 60_000

interface Offer {
  readonly home: SimHost
  readonly lender: SimHost
  readonly homeAgent: ClusterAgent
  readonly lenderAgent: ClusterAgent
}

function agentOf(cluster: Cluster, host: SimHost): ClusterAgent {
  const agent = cluster.agents.get(host)
  if (agent === undefined) throw new Error(`no agent on ${host.name}`)
  return agent
}

function offerNow(cluster: Cluster): Offer | undefined {
  for (const [home, homeAgent] of cluster.agents) {
    for (const process of homeAgent.homes.values()) {
      const seat = process.seats().find(({ state }) => state === 'offered')
      const lender = cluster.machines.find(({ host }) => host.self === seat?.peer)?.host
      if (lender !== undefined) return { home, lender, homeAgent, lenderAgent: agentOf(cluster, lender) }
    }
  }
  return undefined
}

/** A cluster at the moment at which the first offer is under way. */
function offering(seed: number): { cluster: Cluster; offer: Offer } {
  const cluster = new Cluster({ agents: 2, seed })
  const { clock } = cluster.network
  let offer: Offer | undefined
  clock.runWhile(() => {
    offer = offerNow(cluster)
    return offer === undefined
  }, 30_000)
  if (offer === undefined) throw new Error('nobody offered anything')
  return { cluster, offer }
}

/** What home and lender have of each other's leases, as each calls it. */
function between({ homeAgent, lenderAgent }: Offer): { asked: string[]; given: string[] } {
  const asked = [...homeAgent.homes].flatMap(([id, home]) =>
    home.seats().flatMap(({ peer, state }) => (peer === lenderAgent.self ? [`${id} ${state}`] : [])),
  )
  const given = lenderAgent.lending.machine
    .leases()
    .flatMap(({ peer, processId, state }) => (peer === homeAgent.self ? [`${processId} ${state}`] : []))
  return { asked: asked.sort(), given: given.map(text => text.replace(/ active$/, ' up')).sort() }
}

test('a partition in the middle of a negotiation: nothing stays half agreed, and mended, both agree', async t => {
  t.timeout(170_000)
  const moments = fc.record({
    seed: fc.nat(2 ** 31 - 1),
    afterMs: fc.double({ min: 0, max: NEGOTIATION_MS, noNaN: true }),
    lastsMs: fc.oneof(fc.nat(300), fc.integer({ min: 5_000, max: 9_000 }), fc.constant(ENDED_MS)),
    oneWay: fc.constantFrom('no' as const, 'to home' as const, 'to lender' as const),
  })
  await check(
    t,
    fc.property(moments, ({ seed, afterMs, lastsMs, oneWay }) => {
      const { cluster, offer } = offering(seed)
      const { network } = cluster
      network.clock.runFor(afterMs)
      if (oneWay !== 'to lender') network.cut(offer.lender, offer.home)
      if (oneWay !== 'to home') network.cut(offer.home, offer.lender)
      network.clock.runFor(lastsMs)
      const { asked, given } = between(offer)
      const half = [...asked.filter(text => !text.endsWith(' offered')), ...given]
      // Of offers that still arrive each is granted anew, and ends anew.
      if (lastsMs >= ENDED_MS && oneWay === 'no' && half.length > 0)
        throw new Error(`half agreed: ${half.join()}`)
      network.heal()
      const differ = () => between(offer).asked.join() !== between(offer).given.join()
      const isApart = () => differ() || between(offer).asked.length < offer.homeAgent.homes.size
      if (!network.clock.runWhile(isApart, AGREED_MS)) throw new Error(JSON.stringify(between(offer)))
      cluster.close()
      const isLent = () =>
        [...cluster.agents.values()].some(({ lending }) => lending.machine.leases().length > 0)
      if (!network.clock.runWhile(isLent, AGREED_MS)) throw new Error('something stays lent')
      if (cluster.checks.violations.length > 0) throw new Error(JSON.stringify(cluster.checks.violations[0]))
    }),
    20,
  )
})
