// A memory limit that moves while the program runs, and pages that come home when there is room. See
// engine.hpp.
//
// A higher one holds at once. A lower one comes into force as pages leave, one batch a round of the loop, so
// that no fault has to make room for all that is too much; and no further than they find a place elsewhere,
// so that it never takes from the program what it had.
#include <algorithm>

#include "engine.hpp"

namespace elastic {

namespace {
constexpr size_t kLowerBatch = 16;  // somebody may wait for a page
constexpr uint64_t kYieldUs = 10'000'000;
// Pages are pushed away only when next to nothing is free, so that none goes forth and back.
constexpr uint64_t kFreePart = 4;
// Ten times a second: 10 MB a second at most, and a walk over 32,768 entries.
constexpr int64_t kHomePages = 256;
constexpr uint64_t kHomeChunks = 64, kHomeRun = 32;
}  // namespace

void Engine::move_limit(uint64_t pages) {
  if (pages < limit_wanted_ && now_us() < yielded_until_us_) return;
  limit_wanted_ = pages;
  limit_most_ = std::max(limit_most_, pages);
  config_.pages_limit = std::max(config_.pages_limit, pages);
}

// What is free beyond the reserve goes at once.
void Engine::lower_limit() {
  const uint64_t too_much = config_.pages_limit - limit_wanted_;
  if (too_much == 0) return;
  if (room() <= static_cast<int64_t>(reserve()) && !evict_batch(kLowerBatch)) return;
  const int64_t spare = std::max<int64_t>(0, room() - static_cast<int64_t>(reserve()));
  config_.pages_limit -= std::min(too_much, static_cast<uint64_t>(spare));
  loop_.again();
}

// Before the run ends for want of room it has for a while what it had before.
bool Engine::yield_limit() {
  if (config_.pages_limit >= limit_most_) return false;
  move_limit(limit_most_);
  yielded_until_us_ = now_us() + kYieldUs;
  loop_.again();
  return true;
}

// Not where threads go to their pages instead, and not while faults wait for pages.
void Engine::bring_home() {
  if (!host_.threads_stay() || expected_ > 0 || config_.pages_limit > limit_wanted_) return;
  int64_t left = std::min(kHomePages, room() - static_cast<int64_t>(config_.pages_limit / kFreePart));
  const auto has_pages = [](const auto& each) { return each.second->pages_owned_hint > 0; };
  if (std::none_of(lanes_.all().begin(), lanes_.all().end(), has_pages)) return;
  const auto comes = [this](uint64_t page, uint64_t owner) {
    const PageEntry& e = table_.peek(page);
    return e.state() == PageState::remote && e.where == owner;
  };
  const auto visit = [&](uint64_t first, uint64_t end) {
    for (uint64_t page = first; page < end && left > 0; page++) {
      if (table_.peek(page).state() != PageState::remote) continue;
      const auto owner = static_cast<uint16_t>(table_.peek(page).where);
      const Node* node = lanes_.find(owner);
      if (node == nullptr || !takes_pages(*node)) continue;
      const uint64_t most = std::min({end, page + kHomeRun, page + static_cast<uint64_t>(left)});
      uint64_t next = page + 1;
      while (next < most && comes(next, owner)) next++;
      ask({owner, owner}, page, next - page, page);
      left -= static_cast<int64_t>(next - page);
      page = next - 1;
    }
  };
  for (uint64_t chunk = 0; chunk < kHomeChunks && left > 0; chunk++)
    if (table_.walk(home_from_, 1, visit)) return;
}

}  // namespace elastic
