/** When an agent tells its load. */

import test from 'ava'
import { LoadNews } from '../../../agent/machines/load-news.js'
import type { Load } from '../../../agent/machines/membership.js'

const LOAD: Load = {
  name: 'ada',
  incarnation: 1,
  sequence: 1,
  freePages: 10,
  capacityPages: 10,
  cpus: 1,
  processes: 0,
  addresses: ['/ip4/192.0.2.1/tcp/7420'],
  nextMs: 5_000,
}

test('told at once when it has changed, and as promised when it has not', t => {
  const news = new LoadNews()
  t.true(news.isDue(LOAD, 0, 1))
  t.false(news.isDue({ ...LOAD, sequence: 2 }, 1_000, 1))
  t.true(news.isDue({ ...LOAD, sequence: 2, freePages: 9 }, 2_000, 1))
  t.false(news.isDue({ ...LOAD, sequence: 3, freePages: 9 }, 7_000, 1))
  t.true(news.isDue({ ...LOAD, sequence: 3, freePages: 9 }, 7_001, 1))
})

test('that others have joined is no news, and what was promised is kept', t => {
  const news = new LoadNews()
  t.true(news.isDue(LOAD, 0, 0.8))
  const later = { ...LOAD, sequence: 2, nextMs: 30_000 }
  t.false(news.isDue(later, 4_000, 0.8))
  t.true(news.isDue(later, 4_001, 0.8))
  t.false(news.isDue(later, 28_000, 0.8))
  t.true(news.isDue(later, 28_002, 0.8))
})
