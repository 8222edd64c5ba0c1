// What the test files of the spill share: pages that tell what they are, and waiting for completions.
#pragma once

#include <poll.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "../src/spill.hpp"

namespace spill_tests {

using elastic::Spill;
using elastic::SpillError;

inline constexpr size_t kPage = 4096;
inline constexpr uint64_t kMiB = 1u << 20;
using Clock = std::chrono::steady_clock;

struct Failure {
  std::string what;
};

inline void check(bool holds, const std::string& what) {
  if (!holds) throw Failure{what};
}

inline void fill(uint8_t* page, uint64_t tag) {
  for (size_t i = 0; i < kPage / 8; ++i) {
    const uint64_t word = (tag + 1) * 0x9e3779b97f4a7c15ull ^ i * 0xbf58476d1ce4e5b9ull;
    std::memcpy(page + i * 8, &word, 8);
  }
}

inline bool holds_tag(const uint8_t* page, uint64_t tag) {
  uint8_t wanted[kPage];
  fill(wanted, tag);
  return std::memcmp(page, wanted, kPage) == 0;
}

inline void wait_and_drain(Spill& spill) {
  pollfd waited{spill.event_fd(), POLLIN, 0};
  check(poll(&waited, 1, 10000) == 1, "no completion within ten seconds");
  spill.drain();
}

// Writes pages with tags from `tag` on and waits for the outcome.
inline SpillError write_wait(Spill& spill, uint64_t tag, std::vector<uint32_t>& slots) {
  std::vector<uint8_t> data(slots.size() * kPage);
  for (size_t i = 0; i < slots.size(); ++i) fill(&data[i * kPage], tag + i);
  bool finished = false;
  SpillError result = SpillError::none;
  const SpillError at_once = spill.write(data, slots, [&](SpillError error) {
    finished = true;
    result = error;
  });
  if (at_once != SpillError::none) return at_once;
  while (!finished) wait_and_drain(spill);
  return result;
}

// spill_model_test.cpp; each throws Failure. `steps` scales the work.
void test_model(const std::string& directory, uint64_t seed, uint64_t steps);
void test_threads(const std::string& directory, uint64_t seed, uint64_t steps);
void bench(const std::string& directory);

}  // namespace spill_tests
