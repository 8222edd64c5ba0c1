// A memory limit that moves while the program runs. See engine.hpp.
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

}  // namespace elastic
