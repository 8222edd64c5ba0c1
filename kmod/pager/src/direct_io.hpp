// What the home pager remembers of calls that read into pinned pages. See home_direct.cpp and home_aio.cpp.
#pragma once

#include <linux/aio_abi.h>
#include <sys/uio.h>
#include <sys/user.h>

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "pinned_pages.hpp"

namespace elastic {

// A read of more than may be pinned at once, made in parts.
struct SplitRead {
  user_regs_struct asked{};  // at its entry
  uint64_t signal_mask = 0;  // signals are kept back in between
  uint64_t part_bytes = 0;
  uint64_t done_bytes = 0;
};

// An io_submit that is being prepared or made.
struct AioSubmission {
  uint64_t context = 0;
  std::vector<uint64_t> requests;  // addresses of the iocbs
  std::vector<bool> reads;         // of those looked at: into pinned pages
  std::vector<uint64_t> pages;
};

// One io_setup, by the address of its ring.
struct AioContext {
  struct Requests {  // of one iocb: in use again before it is known to have ended, there are several
    uint32_t count = 0;
    std::vector<PinnedPages::Id> pins;
  };
  uint32_t slots = 0;        // of its ring
  uint32_t seen = 0;         // the ring's tail as last looked at
  uint64_t outstanding = 0;  // submitted and not seen in the ring; at most slots - 1, so that none is missed
  std::unordered_map<uint64_t, Requests> requests;
};

}  // namespace elastic
