/**
 * The policies there are, and the parser of `--policy NAME[:key=value,…]`. A new policy is one file and one line here.
 */

import { alwaysPull } from './always-pull.js'
import { type Parsed, quote } from './ids.js'
import { multinodeAdaptiveLru } from './multinode-adaptive-lru.js'
import type { Policy, PolicyDefinition } from './policy.js'

/** All policies, the default first. */
export const POLICIES: readonly PolicyDefinition[] = [alwaysPull, multinodeAdaptiveLru]

export const DEFAULT_POLICY = alwaysPull.name

/** A policy and its parameters, checked; `spec` is the full form with every key, as the pager takes it. */
export interface PolicySpec {
  readonly name: string
  readonly values: ReadonlyMap<string, number>
  readonly spec: string
  create(): Policy
}

/** `multinode-adaptive-lru:window=20,threshold=0.5`. A refusal names the policies or the keys there are. */
export function parsePolicy(text: string): Parsed<PolicySpec> {
  const colon = text.indexOf(':')
  const name = colon < 0 ? text : text.slice(0, colon)
  const definition = POLICIES.find(policy => policy.name === name)
  if (definition === undefined) {
    const names = POLICIES.map(policy => policy.name).join(', ')
    return { kind: 'refused', reason: `unknown policy ${quote(name)}: there are ${names}` }
  }
  const values = parseValues(definition, colon < 0 ? undefined : text.slice(colon + 1))
  if (values.kind === 'refused') return values
  return { kind: 'ok', value: specOf(definition, values.value) }
}

function parseValues(
  definition: PolicyDefinition,
  text: string | undefined,
): Parsed<ReadonlyMap<string, number>> {
  const values = new Map<string, number>()
  for (const part of text === undefined ? [] : text.split(',')) {
    const [key = '', value, ...rest] = part.split('=')
    const known = definition.keys.find(candidate => candidate.key === key)
    if (known === undefined) return { kind: 'refused', reason: unknownKey(definition, key) }
    if (value === undefined || rest.length > 0) {
      return { kind: 'refused', reason: `write ${key}=VALUE in the policy, not ${quote(part)}` }
    }
    if (values.has(key)) return { kind: 'refused', reason: `the policy names ${key} twice` }
    const parsed = known.parse(value)
    if (parsed.kind === 'refused') return parsed
    values.set(key, parsed.value)
  }
  for (const { key, fallback } of definition.keys) if (!values.has(key)) values.set(key, fallback)
  return { kind: 'ok', value: values }
}

function unknownKey(definition: PolicyDefinition, key: string): string {
  const keys = definition.keys.map(known => `${known.key} (${known.meaning}; default ${known.fallback})`)
  const known = keys.length === 0 ? 'no keys' : keys.join(', ')
  return `policy ${definition.name} has no key ${quote(key)}; it has ${known}`
}

function specOf(definition: PolicyDefinition, values: ReadonlyMap<string, number>): PolicySpec {
  const pairs = definition.keys.map(({ key }) => `${key}=${values.get(key)}`)
  return {
    name: definition.name,
    values,
    spec: pairs.length === 0 ? definition.name : `${definition.name}:${pairs.join(',')}`,
    create: () => definition.create(values),
  }
}
