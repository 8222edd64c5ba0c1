// See page_summary.hpp.
#include "page_summary.hpp"

#include <algorithm>

namespace elastic {

namespace {
constexpr uint64_t kChunksOfSlice = 32;
constexpr uint16_t kHere = 0;
}  // namespace

bool PageSummary::look_on(PageTable& table) {
  const bool done = table.walk(at_, kChunksOfSlice, [&](uint64_t first, uint64_t end) {
    for (uint64_t page = first; page < end; page++) look_at(page, table.peek(page));
  });
  if (done) close_range();
  return done;
}

void PageSummary::look_at(uint64_t page, const PageEntry& e) {
  const PageState state = e.state();
  if (state == PageState::untouched || state == PageState::copied) return;
  const bool elsewhere = state == PageState::remote || state == PageState::in_flight;
  const uint64_t node = elsewhere ? e.where : kHere;
  if (node >= kNodes) return;
  counts_[node][static_cast<size_t>(state) - 1]++;
  const bool spilled = state == PageState::spilled;
  const bool goes_on = page == open_.first + open_.pages && node == open_.node && spilled == open_.spilled;
  if (!goes_on) {
    close_range();
    open_ = {page, 0, static_cast<uint16_t>(node), spilled};
  }
  open_.pages++;
}

void PageSummary::close_range() {
  if (open_.pages == 0) return;
  const auto order = [](const Range& a, const Range& b) { return a.pages > b.pages; };
  largest_.push_back(open_);
  std::push_heap(largest_.begin(), largest_.end(), order);
  open_ = {};
  if (largest_.size() <= kRangesMax) return;
  std::pop_heap(largest_.begin(), largest_.end(), order);
  left_out_++;
  left_out_pages_ += largest_.back().pages;
  largest_.pop_back();
}

std::string PageSummary::json(const std::map<uint16_t, std::string>& names) {
  std::sort(largest_.begin(), largest_.end(),
            [](const Range& a, const Range& b) { return a.first < b.first; });
  std::string nodes, ranges;
  std::map<uint16_t, size_t> places;  // of nodes in the list
  for (const auto& [index, name] : names) {
    const auto& count = counts_.at(index);
    nodes += (places.empty() ? "{\"node\":" : ",{\"node\":") + json_quote(name);
    nodes += format(",\"resident\":%lu,\"spilled\":%lu,\"remote\":%lu,\"inFlight\":%lu}", count[0], count[1],
                    count[2], count[3]);
    places.emplace(index, places.size());
  }
  for (const Range& range : largest_) {
    const auto place = places.find(range.node);
    if (place == places.end()) continue;  // it has left meanwhile
    ranges += format("%s[%lu,%lu,%zu,%d]", ranges.empty() ? "" : ",", range.first, range.pages, place->second,
                     range.spilled ? 1 : 0);
  }
  return "{\"nodes\":[" + nodes + "],\"ranges\":[" + ranges + "]" +
         format(",\"leftOut\":{\"ranges\":%lu,\"pages\":%lu}}", left_out_, left_out_pages_);
}

}  // namespace elastic
