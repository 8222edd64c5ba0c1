// Adaptive prefetch: a few remembered streams of faults, up or down. A fault that continues one doubles its
// window, any other starts at one page. (Measured: a fixed window of 16 cost python 25 × the pulls.) A stream
// in full flow is asked for one window ahead of the thread, so that the owner prepares the next pages while
// the thread uses these.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

namespace elastic {

class Prefetch {
 public:
  static constexpr uint64_t kWindowMax = 64;

  struct Plan {
    uint64_t page;   // from here
    uint64_t count;  // at most so many
    bool down;
  };
  Plan on_fault(uint64_t page);
  // Where the stream of the last on_fault or catches_up now ends.
  void fetched(uint64_t first, uint64_t count);
  // That stream's next window, if it is in full flow.
  std::optional<Plan> ahead() const;
  // A fault on a page that is on its way: true if it was asked for ahead, so that the next window is due.
  bool catches_up(uint64_t page);

 private:
  struct Stream {
    uint64_t next_up = 0, next_down = 0;
    uint64_t window = 0;
    uint64_t used = 0;
    bool down = false;
  };
  std::array<Stream, 16> streams_{};
  Stream* current_ = nullptr;
  uint64_t clock_ = 0;
};

}  // namespace elastic
