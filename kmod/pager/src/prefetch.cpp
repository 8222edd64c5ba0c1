// See prefetch.hpp.
#include "prefetch.hpp"

#include <algorithm>

namespace elastic {

Prefetch::Plan Prefetch::on_fault(uint64_t page) {
  clock_++;
  for (Stream& stream : streams_) {
    if (stream.window == 0 || (stream.next_up != page && stream.next_down != page)) continue;
    current_ = &stream;
    stream.used = clock_;
    stream.window = std::min(stream.window * 2, kWindowMax);
    stream.down = stream.next_up != page;
    return {page, stream.window, stream.down};
  }
  current_ = &*std::min_element(streams_.begin(), streams_.end(),
                                [](const Stream& a, const Stream& b) { return a.used < b.used; });
  *current_ = {page + 1, page - 1, 1, clock_, false};
  return {page, 1, false};
}

void Prefetch::fetched(uint64_t first, uint64_t count) {
  if (current_ == nullptr) return;
  current_->next_up = first + count;
  current_->next_down = first - 1;
}

std::optional<Prefetch::Plan> Prefetch::ahead() const {
  if (current_ == nullptr || current_->window < kWindowMax) return std::nullopt;
  return Plan{current_->down ? current_->next_down : current_->next_up, kWindowMax, current_->down};
}

bool Prefetch::catches_up(uint64_t page) {
  for (Stream& stream : streams_) {
    const uint64_t left = stream.down ? page - stream.next_down : stream.next_up - page;
    if (stream.window < kWindowMax || left == 0 || left > kWindowMax) continue;
    current_ = &stream;
    stream.used = ++clock_;
    return true;
  }
  return false;
}

}  // namespace elastic
