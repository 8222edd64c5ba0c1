// See owned_summary.hpp.
#include "owned_summary.hpp"

#include <algorithm>

namespace elastic {

namespace {
constexpr uint64_t kChunksOfSlice = 32;
}  // namespace

bool OwnedSummary::look_on(PageTable& table) {
  const bool done = table.walk(at_, kChunksOfSlice, [&](uint64_t first, uint64_t end) {
    for (uint64_t page = first; page < end; page++) look_at(page, table.peek(page));
  });
  if (done) close_range();
  return done;
}

void OwnedSummary::look_at(uint64_t page, const PageEntry& e) {
  const bool here = e.state() == PageState::resident || e.state() == PageState::spilled;
  if (!here || e.replica) return;
  if (open_.pages == 0 || page != open_.first + open_.pages) {
    close_range();
    open_ = {page, 0, e.version};
  }
  open_.pages++;
  open_.version = std::min(open_.version, e.version);
}

void OwnedSummary::close_range() {
  if (open_.pages == 0) return;
  const auto order = [](const OwnedRange& a, const OwnedRange& b) { return a.pages > b.pages; };
  largest_.push_back(open_);
  std::push_heap(largest_.begin(), largest_.end(), order);
  open_ = {};
  if (largest_.size() <= kOwnedRangesMax) return;
  std::pop_heap(largest_.begin(), largest_.end(), order);
  largest_.pop_back();
}

std::vector<OwnedRange> OwnedSummary::ranges() {
  std::sort(largest_.begin(), largest_.end(),
            [](const OwnedRange& a, const OwnedRange& b) { return a.first < b.first; });
  return std::move(largest_);
}

}  // namespace elastic
