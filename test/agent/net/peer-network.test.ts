/**
 * One suite for all that implements the agents' network port: simulated, real over memory and over TCP, and real
 * between processes on hosts of their own.
 */

import test from 'ava'
import { peerNetworkConformance } from '../../conformance/peer-network.js'
import { namespacesMissing } from '../../helpers/namespaces.js'
import { SEED } from '../../helpers/seed.js'
import { SimulatedBench } from '../../sim-net/simulated-bench.js'
import { NamespaceBench } from './namespace-bench.js'
import { RealBench } from './real-bench.js'

peerNetworkConformance('simulated', async () => new SimulatedBench(SEED))
peerNetworkConformance('libp2p in memory', async () => new RealBench('memory'))
peerNetworkConformance('libp2p over TCP', async () => new RealBench('tcp'))

const missing = namespacesMissing()
if (missing === undefined) peerNetworkConformance('libp2p between hosts', async () => new NamespaceBench())
else test.skip(`libp2p between hosts: no network namespaces: ${missing}`, t => t.pass())
