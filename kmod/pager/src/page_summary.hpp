// Where the pages of a process are: how many at each node in which state, and the largest ranges of addresses
// that lie together. Found out by a walk over the touched chunks of the table in slices, so that a fault
// waits for one slice at most (some 50 µs); the process runs on meanwhile, so it is no picture of one moment.
//
// Limit: the 2048 largest ranges are kept, of the others their number and pages.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "table.hpp"

namespace elastic {

class PageSummary {
 public:
  static constexpr size_t kRangesMax = 2048;

  PageSummary() { largest_.reserve(kRangesMax + 1); }
  bool look_on(PageTable& table);  // the next slice; true when that was the last one
  // One object, the form of which kmod/pager-pages.ts says; `names` of the nodes by their index.
  std::string json(const std::map<uint16_t, std::string>& names);

 private:
  static constexpr size_t kNodes = 64, kStates = 4;
  struct Range {
    uint64_t first = 0, pages = 0;
    uint16_t node = 0;
    bool spilled = false;
  };
  void look_at(uint64_t page, const PageEntry& e);
  void close_range();

  uint64_t at_ = 0;
  Range open_;
  std::vector<Range> largest_;  // a heap, the smallest in front
  uint64_t left_out_ = 0, left_out_pages_ = 0;
  std::array<std::array<uint64_t, kStates>, kNodes> counts_{};  // resident, spilled, remote, in flight
};

}  // namespace elastic
