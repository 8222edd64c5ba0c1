// The oldest Node this runs on, in one place and in syntax that old versions parse, so that a user of Node 16 reads
// a sentence instead of a stack trace. 20.19 is what libp2p 3 needs once `Promise.withResolvers` is defined.

const NODE_MAJOR_MIN = 20
const NODE_MINOR_MIN = 19

/**
 * Says why this Node is too old.
 * @param {string} version as in `process.versions.node`
 * @returns {string | undefined} one line, or nothing when the version will do
 */
export function nodeVersionProblem(version) {
  const [major, minor] = version.split('.').map(Number)
  if (major > NODE_MAJOR_MIN || (major === NODE_MAJOR_MIN && minor >= NODE_MINOR_MIN)) return undefined
  return `elasticos needs Node ${NODE_MAJOR_MIN}.${NODE_MINOR_MIN} or newer, this is ${version}: install it from https://nodejs.org`
}
