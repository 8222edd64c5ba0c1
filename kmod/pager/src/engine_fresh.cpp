// First touches at home while memory is plentiful. Each costs two switches between the program and its pager,
// as much time as it takes to fill three to ten pages (measured: with cold and with warm caches). So where a
// good part of the neighbourhood has been touched already, as in a heap, what is missing there is filled in
// blocks of as many pages; memory that is used here and there comes page by page. That ends where half of the
// limit is resident: what was filled for nothing has taken nobody's room, and leaves as what is idle does.
// See engine.hpp.
#include <algorithm>
#include <bit>

#include "engine.hpp"

namespace elastic {

namespace {
constexpr uint64_t kNearby = 128;  // pages on either side of a touch
constexpr uint64_t kDense = 32;    // of all of them, both sides: a good part
constexpr uint64_t kFreshMax = 128;
}  // namespace

bool Engine::plenty() const {
  return room() > 0 && static_cast<uint64_t>(room()) >= config_.pages_limit / 2 + Prefetch::kWindowMax;
}

// The block around the page, if that is more than `least`. Nothing where memory was dropped before: what
// trims its heap takes back but a part of it before it trims it again.
PageRun Engine::fresh_block(uint64_t page, const Region& region, uint64_t least) const {
  PageRun block{page, 0};
  if (!plenty() || region.backing || table_.peek(page).version != 0) return block;
  uint64_t touched = 0;
  const uint64_t low = std::max(region.start, page - std::min(page, kNearby));
  const uint64_t high = std::min(region.end, page + kNearby);
  for (uint64_t near = low; near < high; near++)
    touched += table_.peek(near).state() != PageState::untouched ? 1 : 0;
  const uint64_t size = std::bit_floor(std::min(touched, kFreshMax));
  if (touched < kDense || size <= least) return block;
  block.page = std::max(page & ~(size - 1), region.start);
  block.count = std::min((page & ~(size - 1)) + size, region.end) - block.page;
  return block;
}

// Of the block what has never been touched; `wanted` is one of its pages.
void Engine::fill_fresh(PageRun block, uint64_t wanted) {
  const auto is_fresh = [this](uint64_t page) {
    const PageEntry& e = table_.peek(page);
    return e.state() == PageState::untouched && e.version == 0;
  };
  const uint64_t end = block.page + block.count;
  for (uint64_t first = block.page; first < end; first++) {
    uint64_t to = first;
    while (to < end && is_fresh(to)) to++;
    if (to > first) fill_run(first, to - first, wanted, nullptr);
    first = to;
  }
}

// `backed`: the region, if its pages begin as those of a file.
void Engine::fill_run(uint64_t first, uint64_t count, uint64_t wanted, const Region* backed) {
  if (backed == nullptr) memory_.place_zero(first, count);
  for (uint64_t page = first; page < first + count; page++) {
    if (backed != nullptr) {
      if (host_.fill_from_backing(page, buffer_.data()))
        memory_.place(page, buffer_.data(), 1);
      else
        memory_.place_zero(page, 1);
    }
    table_.insert_front(page, page == wanted);
    check_waiters(page);
  }
  counters_.pages_touched += count;
  placed_since_age_ += count;
  note_peak();
}

}  // namespace elastic
