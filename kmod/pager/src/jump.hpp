// What a jump carries, and which pages go along: shared by home (home_jumps.cpp) and participants
// (guests.cpp).
#pragma once

#include <array>
#include <span>
#include <vector>

#include "policy.hpp"
#include "tracee.hpp"

namespace elastic {

// Why a guest thread comes home (`flags` of a back frame).
enum class BackReason : uint16_t {
  syscall = 1,  // it stands behind a system call, which home executes
  jump = 2,     // the rule sends it to the node in `page` (home or, through home, another participant)
  signal = 3,   // its instruction raised a signal (or touched what only home has): home executes it
  recalled = 4,
  refused = 5,  // no lease, too many threads, or no shell process
  page = 6,     // it waits for a page it cannot have there
  step = 7,     // its trap flag is set, and an instruction has been executed: the signal is still to come
};

// Which pages a thread takes along, learnt from its faults alone; it travels with the thread.
//
// A page that it faults on again after having had it lately was left behind: it is *hot* and goes along with
// the next jumps, 8 of them, and twice as many (up to 64) each time it is missed again after that. A scan
// never faults twice on a page, so its pages stay where they are; an interpreter's some dozens of pages
// follow it. (Measured with python, --jump-every 7, half its footprint: with the last eight faults alone it
// was not done in 120 s.) Plain data, as it lies, in jump frames.
class WorkingSet {
 public:
  void on_fault(uint64_t page);
  void on_jump();  // called when the pages have been chosen
  // The page of its stack and the hot ones, ascending.
  std::vector<uint64_t> wanted(uint64_t stack_pointer) const;

 private:
  struct Hot {
    uint64_t page : 48 = 0;  // 0: none
    uint64_t jumps_left : 8 = 0;
    uint64_t jumps : 8 = 0;
  };
  static_assert(sizeof(Hot) == 8);
  std::array<Hot, 56> hot_{};
  std::array<uint16_t, 256> seen_{};  // hashes: a page taken for another travels for nothing, no more
  uint64_t seen_next_ = 0;
};

using JumpBytes = std::array<uint8_t, sizeof(ThreadRule) + sizeof(WorkingSet) + kContextBytesMax>;
// Writes to `out`; what is returned is the part of it that is used.
std::span<const uint8_t> encode_jump(const ThreadRule& rule, const WorkingSet& set, const Context& context,
                                     JumpBytes& out);
bool decode_jump(std::span<const uint8_t> bytes, ThreadRule& rule, WorkingSet& set, Context& context);

}  // namespace elastic
