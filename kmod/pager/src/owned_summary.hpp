// Which pages this node owns, for the other nodes: the largest ranges of neighbouring pages that are here, in
// memory or on the disk, each with the least version of them. Found by a walk over the touched chunks of the
// table in slices, as in page_summary.hpp; pages move meanwhile, and what is said need not be so any more.
//
// Limit: the 64 largest ranges.
#pragma once

#include <vector>

#include "hints.hpp"
#include "table.hpp"

namespace elastic {

class OwnedSummary {
 public:
  bool look_on(PageTable& table);    // the next slice; true when that was the last one
  std::vector<OwnedRange> ranges();  // ascending

 private:
  void look_at(uint64_t page, const PageEntry& e);
  void close_range();

  uint64_t at_ = 0;
  OwnedRange open_;
  std::vector<OwnedRange> largest_;  // a heap, the smallest in front
};

}  // namespace elastic
