// The lock-step side of the rule: the same code the pager decides with, driven by lines of text, so that a
// test can compare it with its TypeScript twin over a hundred thousand random steps. The line format is in
// policy.hpp.
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <map>

#include "policy.hpp"
#include "util.hpp"

namespace elastic {

namespace {

using Threads = std::map<uint64_t, ThreadRule>;

void print(const Decision& decision) {
  if (decision.jump) {
    std::printf("jump %u %s\n", static_cast<unsigned>(decision.to), reason_name(decision.reason));
  } else {
    std::printf("pull %s\n", reason_name(decision.reason));
  }
}

bool step(const JumpRule& rule, Threads& threads, const char* line) {
  char kind = 0;
  uint64_t thread = 0, a = 0, b = 0, c = 0;
  const int read =
      std::sscanf(line, "%c %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &kind, &thread, &a, &b, &c);
  if (kind == 'f' && read == 5 && a < 255) {
    print(rule.on_remote_fault(threads[thread], static_cast<uint8_t>(a), b, c));
  } else if (kind == 'l' && read == 2) {
    rule.on_local(threads[thread]);
  } else if (kind == 'a' && read == 4) {
    rule.on_arrival(threads[thread], a, b);
  } else if (kind == 'x' && read == 2) {
    threads.erase(thread);
  } else {
    return false;
  }
  return true;
}

}  // namespace

int policy_lockstep(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "policy-lockstep SPEC JUMP_EVERY\n");
    return 2;
  }
  try {
    const JumpRule rule(argv[0], std::strtoull(argv[1], nullptr, 10));
    Threads threads;
    char line[256];
    while (std::fgets(line, sizeof line, stdin) != nullptr) {
      if (step(rule, threads, line)) continue;
      std::fprintf(stderr, "policy-lockstep: not a step: %s", line);
      return 2;
    }
  } catch (const Failure& failure) {
    std::fprintf(stderr, "policy-lockstep: %s\n", failure.what());
    return 2;
  }
  return 0;
}

}  // namespace elastic
