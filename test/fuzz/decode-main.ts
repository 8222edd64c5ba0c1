/**
 * `decode-main.js NAME INPUTS SEED`: gives one decoder of decoders.ts that many spoilt inputs. Prints how many it had;
 * the first for which it does what it must not is printed in hexadecimal, and the exit status is 1. INPUTS as `hex:…`
 * gives it that one.
 */

import { mkdtempSync, rmSync } from 'node:fs'
import fc from 'fast-check'
import { type Decoder, decoders } from './decoders.js'
import { drawFrom, spoil } from './mutate.js'

/** Inputs of one run of the property: what fast-check does once for each run costs more than some decoders. */
const BATCH = 500

/** The first input of a batch that is judged wrong, and why. */
function firstWrong(decoder: Decoder, inputs: Iterable<Uint8Array>): string | undefined {
  for (const bytes of inputs) {
    try {
      decoder.judge(bytes)
    } catch (error) {
      const why = error instanceof Error ? (error.stack ?? error.message) : String(error)
      return `hex:${Buffer.from(bytes).toString('hex')}\n${why}`
    }
  }
  return undefined
}

function* batch(sample: Uint8Array, other: Uint8Array, seed: number): Generator<Uint8Array> {
  const random = drawFrom(seed)
  for (let left = BATCH; left > 0; left--) yield spoil(sample, other, random)
}

function main(name: string, inputs: string, seed: number, directory: string): string | undefined {
  const decoder = decoders(directory).find(each => each.name === name)
  if (decoder === undefined) return `there is no decoder ${name}`
  if (inputs.startsWith('hex:'))
    return firstWrong(decoder, [new Uint8Array(Buffer.from(inputs.slice(4), 'hex'))])
  const sample = fc.constantFrom(...decoder.samples)
  const property = fc.property(sample, sample, fc.noShrink(fc.integer()), (one, other, batchSeed) => {
    const wrong = firstWrong(decoder, batch(one, other, batchSeed))
    if (wrong !== undefined) throw new Error(wrong)
  })
  const numRuns = Math.ceil(Number(inputs) / BATCH)
  const outcome = fc.check(property, { seed, numRuns, endOnFailure: true })
  if (outcome.failed)
    return outcome.errorInstance instanceof Error ? outcome.errorInstance.message : 'it failed'
  console.log(`judged: ${numRuns * BATCH}`)
  return undefined
}

const [name = '', inputs = '', seed = '1'] = process.argv.slice(2)
const directory = mkdtempSync('/dev/shm/el-fuzz-')
const wrong = main(name, inputs, Number(seed), directory)
rmSync(directory, { recursive: true })
if (wrong !== undefined) console.error(wrong)
process.exitCode = wrong === undefined ? 0 : 1
