// The rule by which a user-mode fault on another node's page becomes a pull or a jump: what the pager must
// decide within microseconds. It is the twin of placement/rule.ts with placement/always-pull.ts and
// placement/multinode-adaptive-lru.ts, where the why of each number is written; a lock-step test feeds both
// the same random steps and demands identical answers.
//
// A thread's state is a plain struct that may travel in a jump's frame. Nothing here allocates, fails or
// reads a clock once the rule is made. `ran_us`, the one time it is told, is the processor time that the
// thread has used on its node: what it waits for (a page, a processor, another thread) is no execution.
// Limits: at most 255 nodes, a window of at most 64 events.
#pragma once

#include <cstdint>
#include <string>

namespace elastic {

enum class DecisionReason : uint8_t {
  always_pull,       // pull: the policy never jumps
  below_threshold,   // pull: the window holds too few pulls from that node
  restless,          // pull: the last jumps were not worth it, so more pulls first
  just_arrived,      // pull: a jump was wished, but too few pages were pulled since the arrival
  same_instruction,  // pull: a jump was wished at the instruction of the last jump, which may have made no
                     // progress
  to_and_fro,        // pull: --jump-every, but the last jumps made next to no progress
  threshold,         // jump: by the policy
  jump_every,        // jump: by --jump-every
};

struct Decision {
  bool jump;
  uint8_t to;  // the page's owner; only for a jump
  DecisionReason reason;
};

constexpr uint32_t kPolicyWindowMax = 64;

// What the rule remembers of one thread. Value-initialise it for a new thread (`ThreadRule rule{};` is one
// that has just started at home). Fixed widths, no padding, no pointers.
struct ThreadRule {
  uint64_t last_event_us = 0;  // of `ran_us`
  uint64_t last_jump_rip = 0;  // 0: none
  uint64_t mark = 0;           // register digest at the last arrival, 0: unknown
  uint32_t faults_since_jump = 0;
  uint32_t stay_us = 0;              // execution since the arrival; saturates
  uint16_t stay_pulls = 0;           // since the arrival: faults on other nodes' pages; saturates
  uint16_t stay_locals = 0;          // since the arrival: local events; saturates
  uint16_t pulls_since_arrival = 4;  // saturates
  uint8_t stuck_jumps = 0;
  uint8_t jumped_at_same_rip = 0;
  uint8_t jumping = 0;
  uint8_t events_count = 0;
  uint8_t events_next = 0;  // ring: where the next event goes
  uint8_t restless = 0;     // jumps in a row that ended a stay which was not worth its own
  uint8_t short_stays = 0;  // jumps that ended a short stay, less longer ones and calls
  uint8_t unused[3] = {};
  uint8_t events[kPolicyWindowMax] = {};  // owner of a pull, or kLocalEvent
};
static_assert(sizeof(ThreadRule) == 112);

class JumpRule {
 public:
  // `spec` as `NAME[:key=value,…]` (see placement/registry.ts); `jump_every` 0 is off. Throws Failure with
  // one line for a spec that is not understood.
  JumpRule(const std::string& spec, uint64_t jump_every);

  // False if every answer is "pull": callers need not find out where the thread stands.
  bool may_jump() const { return adaptive_ || jump_every_ > 0; }

  // A user-mode fault at instruction `rip` on a page of `owner` (never this node). If it answers jump and the
  // jump is then refused (no lease), pull that same fault; nothing more needs to be told.
  Decision on_remote_fault(ThreadRule& thread, uint8_t owner, uint64_t ran_us, uint64_t rip) const;
  // A first touch or an unspill was served for the thread.
  void on_local(ThreadRule& thread) const;
  // The thread is on this node now: by a jump, or home for a system call. `mark`: digest of its general
  // registers (register_mark() or any other, never 0); 0 if unknown, which makes a jump loop at one
  // instruction count as no progress.
  void on_arrival(ThreadRule& thread, uint64_t ran_us, uint64_t mark = 0) const;

 private:
  Decision wish(ThreadRule& thread, uint8_t owner) const;
  void enter_execution(ThreadRule& thread, uint64_t ran_us) const;
  void enter(ThreadRule& thread, uint8_t event) const;
  void judge_stay(ThreadRule& thread) const;

  bool adaptive_ = false;
  uint32_t window_ = 10;
  uint32_t needed_ = 2;  // pulls from one node in the window
  uint64_t local_us_ = 50;
  uint8_t patience_ = 10;
  uint64_t jump_every_ = 0;
};

// Digest (FNV-1a over 64-bit words, never 0) of registers, for on_arrival().
uint64_t register_mark(const void* registers, size_t bytes);

// The word for a reason in statistics, logs and the lock-step test, as in placement/policy.ts.
const char* reason_name(DecisionReason reason);

// `elasticos-pager policy-lockstep SPEC JUMP_EVERY`: reads steps from standard input, one per line, and
// prints a line for each fault. Steps: `f THREAD OWNER RAN_US RIP`, `l THREAD` (local), `a THREAD RAN_US
// MARK` (arrived), `x THREAD` (exited). Answers: `pull REASON`, `jump NODE REASON`. argv: SPEC, JUMP_EVERY.
// Exit status 0, or 2 for a line that is not understood.
int policy_lockstep(int argc, char** argv);

}  // namespace elastic
