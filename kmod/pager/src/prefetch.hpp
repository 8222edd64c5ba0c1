// Adaptive prefetch: a few remembered streams of faults, up or down. A fault that continues one doubles its
// window, any other starts at one page. (Measured: a fixed window of 16 cost python 25 × the pulls.)
#pragma once

#include <array>
#include <cstdint>

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
  // Where the stream of the last on_fault now ends.
  void fetched(uint64_t first, uint64_t count);

 private:
  struct Stream {
    uint64_t next_up = 0, next_down = 0;
    uint64_t window = 0;
    uint64_t used = 0;
  };
  std::array<Stream, 16> streams_{};
  Stream* current_ = nullptr;
  uint64_t clock_ = 0;
};

}  // namespace elastic
