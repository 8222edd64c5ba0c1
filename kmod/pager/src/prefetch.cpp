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
    return {page, stream.window, stream.next_up != page};
  }
  current_ = &*std::min_element(streams_.begin(), streams_.end(),
                                [](const Stream& a, const Stream& b) { return a.used < b.used; });
  *current_ = {page + 1, page - 1, 1, clock_};
  return {page, 1, false};
}

void Prefetch::fetched(uint64_t first, uint64_t count) {
  if (current_ == nullptr) return;
  current_->next_up = first + count;
  current_->next_down = first - 1;
}

}  // namespace elastic
