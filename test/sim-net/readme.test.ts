/** The example of the simulated network's README does what it seems to. */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { ROOT } from '../helpers/native.js'

test('the example runs, and gives the same each time', async t => {
  const text = readFileSync(join(ROOT, 'sim-net/README.md'), 'utf8')
  const example = /```ts\n([\s\S]*?)```/.exec(text)?.[1] ?? ''
  const code = example.replace("'./", `'${new URL('../../sim-net/', import.meta.url)}`)
  const runs = await Promise.all(
    ['', ' '].map(async more => {
      const module = `data:text/javascript,${encodeURIComponent(code + more)}`
      const { result } = (await import(module)) as { result: { told: string[]; hash: string } }
      return result
    }),
  )
  t.deepEqual(runs[0], runs[1])
  t.deepEqual(runs[0]?.told.slice(0, 2).sort(), ['joined bob', 'joined eve'])
  t.deepEqual(runs[0]?.told.slice(2), ['message bob', 'lost eve'])
})
