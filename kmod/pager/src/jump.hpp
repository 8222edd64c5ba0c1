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
};

std::vector<uint8_t> encode_jump(const ThreadRule& rule, const Context& context);
bool decode_jump(std::span<const uint8_t> bytes, ThreadRule& rule, Context& context);

// The pages a thread is likely to need at once: its stack, its thread-local storage, what its registers point
// to, and what it faulted on last; not the page it leaves for.
std::vector<uint64_t> working_set(const std::array<uint64_t, 8>& recent, const user_regs_struct& registers,
                                  uint64_t wanted);

}  // namespace elastic
