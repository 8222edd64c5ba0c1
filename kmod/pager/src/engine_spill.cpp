// Pages that go to the disk, and what happens when it takes them no more. See engine.hpp.
#include "engine.hpp"

namespace elastic {

namespace {
constexpr uint64_t kSpillPauseUs = 1'000'000;  // after a failed write
}  // namespace

// The pages have left memory when this returns, and are written later.
bool Engine::spill_pages(const std::vector<uint64_t>& pages) {
  if (now_us() < spill_broken_until_us_ || unconfirmed_ > 0) return false;
  if (spill_.buffers_busy() || !spill_.has_buffers(pages.size())) return false;
  const bool protect = host_.threads_may_run();
  for (size_t i = 0; i < pages.size(); i++) {
    if (protect) memory_.protect_written(pages[i], 1);
    memory_.read(pages[i], buffer_.data() + (i << kPageShift), 1);
  }
  auto slots = std::make_shared<std::vector<uint32_t>>(pages.size());
  const SpillError error =
      spill_.write({buffer_.data(), pages.size() << kPageShift}, *slots,
                   [this, pages, slots](SpillError result) { on_spilled(pages, *slots, result); });
  if (error != SpillError::none) {
    for (const uint64_t page : pages)
      if (!table_.peek(page).shared && table_.peek(page).copy_at() == 0) memory_.unprotect(page, 1);
    return false;
  }
  for (size_t i = 0; i < pages.size();) {
    size_t end = i + 1;
    while (end < pages.size() && pages[end] == pages[end - 1] + 1) end++;
    memory_.drop(pages[i], end - i);
    for (size_t k = i; k < end; k++) {
      table_.remove(pages[k]);
      PageEntry& e = table_.entry(pages[k]);
      e.set_state(PageState::spilled);
      e.where = (*slots)[k];
    }
    i = end;
  }
  if (spill_doubtful_) unconfirmed_ = static_cast<int64_t>(pages.size());
  counters_.pages_spilled += pages.size();
  return true;
}

// If the disk did not take them they come back from the write buffer, beyond the limit if need be: whether
// anybody has to do without them shows when a fault finds no room.
void Engine::on_spilled(const std::vector<uint64_t>& pages, const std::vector<uint32_t>& slots,
                        SpillError error) {
  unconfirmed_ = 0;
  spill_doubtful_ = error != SpillError::none;
  if (!spill_doubtful_) return;  // who waits for room is looked at after each round
  counters_.spills_failed++;
  spill_broken_until_us_ = now_us() + kSpillPauseUs;
  for (size_t i = 0; i < pages.size(); i++) {
    PageEntry& e = table_.entry(pages[i]);
    const uint8_t* bytes = spill_.buffered_page(slots[i]);
    if (e.state() != PageState::spilled || e.where != slots[i] || bytes == nullptr) continue;
    place(pages[i], bytes, 1);
    table_.insert_front(pages[i]);
    if (config_.pages_limit < limit_most_) config_.pages_limit++;
  }
}

}  // namespace elastic
