// Which pages a system call ends, their contents or their mapping, and which it needs. More rather than less
// where that depends on what the kernel finds.
#pragma once

#include <sys/user.h>

#include <array>
#include <cstdint>
#include <vector>

namespace elastic {

constexpr int kMadvDontneedLocked = 24;

struct CallRange {
  uint64_t first = 0, end = 0;
};

CallRange range_of(uint64_t address, uint64_t bytes);
bool drops_contents(int advice);
bool is_about_paging(int advice);  // and changes neither contents nor what a child inherits
// Pages of the words that a futex operation works on.
std::vector<uint64_t> futex_pages(const user_regs_struct& call);
// `heap_start`, `heap_end`: addresses.
std::array<CallRange, 2> ended_by(const user_regs_struct& call, uint64_t heap_start, uint64_t heap_end);

}  // namespace elastic
