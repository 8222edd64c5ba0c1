// What the fuzz targets share. Each target is a libFuzzer program with the address and undefined-behaviour
// sanitizers: its input is a stream of choices, read field by field, so that any bytes make frames that are
// nearly right. That is why there are no seed inputs to keep.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <span>
#include <vector>

#include "../src/wire.hpp"

// A rule that must hold whatever the input: libFuzzer keeps the input that broke it.
#define REQUIRE(condition)                                                                \
  do {                                                                                    \
    if (!(condition)) {                                                                   \
      std::fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
      __builtin_trap();                                                                   \
    }                                                                                     \
  } while (0)

namespace elastic::fuzz {

// Reads the input from its front; what lies beyond its end is zero.
class Input {
 public:
  Input(const uint8_t* data, size_t bytes) : left_(data, bytes) {}
  bool empty() const { return left_.empty(); }
  template <typename T>
  T take() {
    T value{};
    const size_t bytes = std::min(sizeof value, left_.size());
    if (bytes > 0) std::memcpy(&value, left_.data(), bytes);
    left_ = left_.subspan(bytes);
    return value;
  }
  uint64_t below(uint64_t bound) { return take<uint8_t>() % bound; }
  bool rarely() { return take<uint8_t>() >= 0xf0; }
  std::span<const uint8_t> take_bytes(size_t bytes) {
    const auto part = left_.first(std::min(bytes, left_.size()));
    left_ = left_.subspan(part.size());
    return part;
  }
  std::span<const uint8_t> rest() { return take_bytes(left_.size()); }

 private:
  std::span<const uint8_t> left_;
};

// A header whose fields are near what they may be, and its payload, as large as its type wants it or not
// quite.
struct AnyFrame {
  FrameHeader header;
  std::vector<uint8_t> payload;
};

AnyFrame any_frame(Input& in);

// Adds to what is printed at the end as `judged: N`, for targets of which one input holds several frames.
void judged(uint64_t more = 1);

// What a pager reads of a frame that has passed frame_problem(): every field of every page meta.
void read_metas(const FrameHeader& header, std::span<const uint8_t> payload);

}  // namespace elastic::fuzz
