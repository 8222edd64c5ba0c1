// See pinned_pages.hpp.
#include "pinned_pages.hpp"

#include <algorithm>
#include <utility>

namespace elastic {

PinnedPages::Id PinnedPages::pin(std::vector<uint64_t> pages, Done done) {
  const Id id = next_++;
  Hold& hold = holds_[id];
  hold.pages = std::move(pages);
  hold.done = std::move(done);
  waiting_.push_back(id);
  grant();
  return id;
}

void PinnedPages::grant() {
  while (!waiting_.empty()) {
    const Id id = waiting_.front();
    Hold& hold = holds_.at(id);
    if (used_ + hold.pages.size() > pages_max_) return;
    waiting_.pop_front();
    used_ += hold.pages.size();
    hold.granted = true;
    for (const uint64_t page : hold.pages) counts_[page]++;
    bring(id);
  }
}

void PinnedPages::bring(Id id) {
  const auto it = holds_.find(id);
  if (it == holds_.end()) return;  // given up
  Hold& hold = it->second;
  const size_t from = hold.asked, to = std::min(from + Engine::kAskMax, hold.pages.size());
  if (from == to) return std::exchange(hold.done, {})(id);
  const std::vector<uint64_t> batch(hold.pages.begin() + static_cast<ptrdiff_t>(from),
                                    hold.pages.begin() + static_cast<ptrdiff_t>(to));
  hold.asked = to;
  const bool last = to == hold.pages.size();
  engine_.make_resident(batch, true, [this, id, last] {
    if (last) return bring(id);
    loop_.at(0, [this, id] { bring(id); });  // not deeper with every batch
  });
}

void PinnedPages::unpin(Id id) {
  const auto it = holds_.find(id);
  if (it == holds_.end() || --it->second.users > 0) return;
  Hold hold = std::move(it->second);
  holds_.erase(it);
  if (!hold.granted) {
    std::erase(waiting_, id);
  } else {
    used_ -= hold.pages.size();
    std::erase_if(hold.pages, [this](uint64_t page) {
      const auto count = counts_.find(page);
      if (--count->second > 0) return true;
      counts_.erase(count);
      return false;
    });
    release_(hold.pages);
  }
  if (!waiting_.empty()) loop_.at(0, [this] { grant(); });  // not inside what the caller does
}

void PinnedPages::set_pages_max(uint64_t pages) {
  pages_max_ = pages;
  grant();
}

uint64_t PinnedPages::pages_needed() const {
  uint64_t pages = std::max(used_, accepted_most_);
  for (const Id id : waiting_) pages = std::max<uint64_t>(pages, holds_.at(id).pages.size());
  return pages;
}

bool PinnedPages::holds_any(uint64_t first, uint64_t end) const {
  return std::any_of(counts_.begin(), counts_.end(),
                     [&](const auto& each) { return each.first >= first && each.first < end; });
}

void PinnedPages::clear() {
  holds_.clear();
  waiting_.clear();
  counts_.clear();
  used_ = accepted_most_ = 0;
}

}  // namespace elastic
