// The slot allocator of the spill file; see spill_slots.hpp for the reasons.
#include "spill_slots.hpp"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>

namespace elastic {

int find_run(uint64_t bits, unsigned length) {
  // After the step that covers `have` places, a set bit means: `have` set bits begin here.
  unsigned have = 1;
  while (have < length && bits != 0) {
    const unsigned step = std::min(have, length - have);
    bits &= bits >> step;
    have += step;
  }
  return bits == 0 ? -1 : std::countr_zero(bits);
}

SpillSlots::SpillSlots(uint32_t slots_max) : slots_max_(slots_max) {
  std::fill(std::begin(heads_), std::end(heads_), kNone);
}

void SpillSlots::unlink(uint32_t extent) {
  Extent& e = extents_[extent];
  const int count = std::popcount(e.free);
  if (count == 0) return;  // full extents are in no list
  if (e.previous != kNone) {
    extents_[e.previous].next = e.next;
  } else {
    heads_[count] = e.next;
    if (e.next == kNone) heads_set_ &= ~(1ull << (count - 1));
  }
  if (e.next != kNone) extents_[e.next].previous = e.previous;
  e.previous = e.next = kNone;
}

void SpillSlots::link(uint32_t extent) {
  Extent& e = extents_[extent];
  const int count = std::popcount(e.free);
  if (count == 0) return;
  e.previous = kNone;
  e.next = heads_[count];
  if (e.next != kNone) extents_[e.next].previous = extent;
  heads_[count] = extent;
  heads_set_ |= 1ull << (count - 1);
}

bool SpillSlots::grow() {
  const uint64_t first = static_cast<uint64_t>(extents_.size()) * 64;
  if (first >= slots_max_) return false;
  const unsigned count = static_cast<unsigned>(std::min<uint64_t>(64, slots_max_ - first));
  extents_.emplace_back();
  withdrawn_.push_back(0);
  extents_.back().free = run_bits(0, count);
  link(static_cast<uint32_t>(extents_.size() - 1));
  return true;
}

// The extent for `wanted` neighbours: the one in use, else the emptiest, else a new one, else the emptiest
// with its free slots scattered. The caller has made sure that something is free.
uint32_t SpillSlots::choose(unsigned wanted) {
  if (current_ != kNone && find_run(extents_[current_].free, wanted) >= 0) return current_;
  uint32_t emptiest = heads_set_ == 0 ? kNone : heads_[std::bit_width(heads_set_)];
  if (emptiest != kNone && find_run(extents_[emptiest].free, wanted) >= 0) return emptiest;
  if (grow()) return static_cast<uint32_t>(extents_.size() - 1);
  return emptiest;
}

unsigned SpillSlots::take_from(uint32_t extent, std::span<uint32_t> out) {
  unlink(extent);
  Extent& e = extents_[extent];
  const unsigned wanted = static_cast<unsigned>(std::min<size_t>(out.size(), 64));
  const int start = find_run(e.free, wanted);
  uint64_t bits = start >= 0 ? run_bits(static_cast<unsigned>(start), wanted) : e.free;
  unsigned count = 0;
  uint64_t got = 0;
  while (bits != 0 && count < wanted) {
    const int bit = std::countr_zero(bits);
    bits &= bits - 1;
    got |= 1ull << bit;
    out[count++] = extent * 64 + static_cast<uint32_t>(bit);
  }
  stale_ -= static_cast<uint64_t>(std::popcount(e.stale & got));
  e.stale &= ~got;
  e.free &= ~got;
  used_ += count;
  link(extent);
  current_ = extent;
  return count;
}

bool SpillSlots::take(std::span<uint32_t> out) {
  if (out.size() > slots_max_ - used_ - punching_) return false;
  size_t done = 0;
  while (done < out.size()) {
    const unsigned wanted = static_cast<unsigned>(std::min<size_t>(out.size() - done, 64));
    done += take_from(choose(wanted), out.subspan(done));
  }
  return true;
}

bool SpillSlots::taken(uint32_t slot) const {
  const uint32_t extent = slot / 64;
  if (extent >= extents_.size() || slot >= slots_max_) return false;
  return ((extents_[extent].free | withdrawn_[extent]) >> (slot % 64) & 1) == 0;
}

void SpillSlots::set_free(uint32_t extent, uint64_t bits) {
  unlink(extent);
  extents_[extent].free |= bits;
  link(extent);
}

void SpillSlots::give(uint32_t slot) {
  if (!taken(slot)) {
    std::fprintf(stderr, "elasticos: bug: spill slot %u is freed twice\n", slot);
    std::abort();
  }
  const uint32_t extent = slot / 64;
  const uint64_t bit = 1ull << (slot % 64);
  set_free(extent, bit);
  Extent& e = extents_[extent];
  e.stale |= bit;
  --used_;
  ++stale_;
  if (!e.queued) {
    e.queued = true;
    stale_queue_.push_back(extent);
  }
}

bool SpillSlots::punch_begin(SlotRun& run) {
  while (!stale_queue_.empty()) {
    const uint32_t extent = stale_queue_.front();
    Extent& e = extents_[extent];
    if (e.stale == 0) {  // all of it has been taken again
      e.queued = false;
      stale_queue_.pop_front();
      continue;
    }
    const unsigned start = static_cast<unsigned>(std::countr_zero(e.stale));
    const unsigned count = static_cast<unsigned>(std::countr_one(e.stale >> start));
    const uint64_t bits = run_bits(start, count);
    unlink(extent);
    e.stale &= ~bits;
    e.free &= ~bits;
    link(extent);
    withdrawn_[extent] |= bits;
    stale_ -= count;
    punching_ += count;
    run = SlotRun{extent * 64 + start, count};
    return true;
  }
  return false;
}

void SpillSlots::punch_end(const SlotRun& run) {
  const uint32_t extent = run.first / 64;
  const uint64_t bits = run_bits(run.first % 64, run.count);
  withdrawn_[extent] &= ~bits;
  punching_ -= run.count;
  set_free(extent, bits);
}

}  // namespace elastic
