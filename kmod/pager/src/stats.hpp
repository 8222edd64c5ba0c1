// Counters of one pager, in the order in which they travel in a `stats` frame, and latency histograms with a
// bounded relative error (16 steps per octave, at most 6 %).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace elastic {

class Histogram {
 public:
  void add(uint64_t ns);
  void merge(const Histogram& other);
  uint64_t samples() const { return samples_; }
  double percentile_us(double share) const;  // 0.5 → p50; 0 without samples

 private:
  static constexpr size_t kSteps = 16, kOctaves = 40;
  uint64_t samples_ = 0;
  std::array<uint32_t, kSteps * kOctaves> counts_{};
};

// Plain numbers only: copied into frames as they lie (both sides are x86-64 and speak the same protocol
// version).
struct Counters {
  uint64_t pages_touched = 0;
  uint64_t first_touches = 0;  // faults on pages that were nowhere
  uint64_t pulls = 0;
  uint64_t pages_pulled = 0;
  uint64_t pushes = 0;
  uint64_t pages_pushed = 0;
  uint64_t pages_spilled = 0;
  uint64_t unspills = 0;
  uint64_t pages_unspilled = 0;
  uint64_t spills_failed = 0;  // writes of up to 32 pages that the disk did not take
  uint64_t jumps = 0;
  uint64_t jumps_home = 0;
  uint64_t pages_with_jumps = 0;
  uint64_t frames_refused = 0;
  uint64_t lanes_resumed = 0;  // connections, by the node that dialled
  uint64_t bytes_sent = 0;
  uint64_t bytes_received = 0;
  uint64_t peak_resident = 0;
  uint64_t jumps_here = 0;    // contexts that arrived on this node
  uint64_t threads_peak = 0;  // most guest threads that ran here at once
  Histogram pull_ns;
  Histogram jump_ns;
};

std::vector<uint8_t> encode_counters(const Counters& counters);
bool decode_counters(std::span<const uint8_t> bytes, Counters& counters);
// Adds what is summed over participants (peaks and threads are not).
void add_counters(Counters& sum, const Counters& other);

// What a participant did, in all its stays.
struct Contribution {
  std::string name;
  uint64_t pages = 0;  // that are there now
  uint64_t threads = 0;  // the same
  uint64_t peak_pages = 0, jumps_to = 0, threads_peak = 0;
};

}  // namespace elastic
