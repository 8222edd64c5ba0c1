/**
 * `always-pull`: every page comes to the thread, which is what a network swap device does. The baseline that every
 * other policy has to beat, and the default until one does.
 */

import type { Decision, Policy, PolicyDefinition } from './policy.js'

const PULL: Decision = { kind: 'pull', reason: 'always-pull' }

class AlwaysPull implements Policy {
  readonly name = 'always-pull'

  decide(): Decision {
    return PULL
  }

  observe(): void {}
}

export const alwaysPull: PolicyDefinition = {
  name: 'always-pull',
  summary: 'every page comes to the thread',
  keys: [],
  create: () => new AlwaysPull(),
}
