// See stats.hpp.
#include "stats.hpp"

#include <bit>
#include <cstring>
#include <type_traits>

namespace elastic {

static_assert(std::is_trivially_copyable_v<Counters>);

// Index = 16 × octave + the four bits below the leading one.
void Histogram::add(uint64_t ns) {
  const uint64_t value = ns < 16 ? 16 : ns;
  const auto octave = static_cast<size_t>(63 - std::countl_zero(value));
  const size_t step = (value >> (octave - 4)) & 15;
  const size_t index = octave * kSteps + step;
  counts_[index < counts_.size() ? index : counts_.size() - 1]++;
  samples_++;
}

void Histogram::merge(const Histogram& other) {
  for (size_t i = 0; i < counts_.size(); i++) counts_[i] += other.counts_[i];
  samples_ += other.samples_;
}

double Histogram::percentile_us(double share) const {
  if (samples_ == 0) return 0;
  auto left = static_cast<uint64_t>(share * static_cast<double>(samples_ - 1));
  for (size_t i = 0; i < counts_.size(); i++) {
    if (counts_[i] > left) {
      const size_t octave = i / kSteps;
      const double low = static_cast<double>((16 + i % kSteps)) * static_cast<double>(1ull << (octave - 4));
      return low * (1 + 1.0 / 32) / 1000;
    }
    left -= counts_[i];
  }
  return 0;
}

std::vector<uint8_t> encode_counters(const Counters& counters) {
  std::vector<uint8_t> bytes(sizeof counters);
  memcpy(bytes.data(), &counters, sizeof counters);
  return bytes;
}

bool decode_counters(std::span<const uint8_t> bytes, Counters& counters) {
  if (bytes.size() != sizeof counters) return false;
  memcpy(&counters, bytes.data(), sizeof counters);
  return true;
}

void add_counters(Counters& sum, const Counters& other) {
  sum.pages_touched += other.pages_touched;
  sum.first_touches += other.first_touches;
  sum.pulls += other.pulls;
  sum.pages_pulled += other.pages_pulled;
  sum.pushes += other.pushes;
  sum.pages_pushed += other.pages_pushed;
  sum.pages_spilled += other.pages_spilled;
  sum.unspills += other.unspills;
  sum.pages_unspilled += other.pages_unspilled;
  sum.spills_failed += other.spills_failed;
  sum.jumps += other.jumps;
  sum.jumps_home += other.jumps_home;
  sum.pages_with_jumps += other.pages_with_jumps;
  sum.frames_refused += other.frames_refused;
  sum.lanes_resumed += other.lanes_resumed;
  sum.bytes_sent += other.bytes_sent;
  sum.bytes_received += other.bytes_received;
  sum.pull_ns.merge(other.pull_ns);
  sum.jump_ns.merge(other.jump_ns);
}

}  // namespace elastic
