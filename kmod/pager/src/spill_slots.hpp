// Which slots (4 KiB places) of the spill file are taken. Pages written together should lie together, so that
// reading them back is one read: slots are handed out in runs from extents of 64, one machine word each.
// Extents are kept in lists by how many free slots they have, so that taking and giving back cost the same
// however large the file is.
//
// A freed slot is *stale* until its blocks are punched out of the file. While a worker punches it, it belongs
// to nobody: a write that raced with the punch would be lost.
//
// Limits: no lock of its own (the caller has one); 24 bytes and a queue entry for each extent ever used.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

namespace elastic {

// Lowest start of a run of `length` (1 to 64) set bits in `bits`, or -1.
int find_run(uint64_t bits, unsigned length);

// Set bits [start, start + length), length 1 to 64.
constexpr uint64_t run_bits(unsigned start, unsigned length) {
  return (length == 64 ? ~0ull : (1ull << length) - 1) << start;
}

struct SlotRun {
  uint32_t first = 0;
  uint32_t count = 0;
};

class SpillSlots {
 public:
  explicit SpillSlots(uint32_t slots_max);

  // Takes out.size() slots, neighbours where it can, or none and false.
  bool take(std::span<uint32_t> out);
  void give(uint32_t slot);  // aborts if the slot is not taken
  bool taken(uint32_t slot) const;

  uint64_t used() const { return used_; }
  uint64_t stale() const { return stale_; }        // free, but still holding blocks of the disk
  uint64_t punching() const { return punching_; }  // between punch_begin and punch_end

  // Withdraws one run of stale slots, the longest-freed extent first. False: there is none.
  bool punch_begin(SlotRun& run);
  // Gives the run back, punched or not: where punching fails it would fail for ever.
  void punch_end(const SlotRun& run);

 private:
  static constexpr uint32_t kNone = 0xffffffff;
  struct Extent {
    uint64_t free = 0;
    uint64_t stale = 0;         // subset of `free`
    uint32_t previous = kNone;  // in the list of extents with as many free slots
    uint32_t next = kNone;
    bool queued = false;  // in stale_queue_
  };

  void unlink(uint32_t extent);
  void link(uint32_t extent);
  bool grow();
  uint32_t choose(unsigned wanted);
  unsigned take_from(uint32_t extent, std::span<uint32_t> out);
  void set_free(uint32_t extent, uint64_t bits);

  uint32_t slots_max_;
  std::vector<Extent> extents_;
  std::vector<uint64_t> withdrawn_;  // per extent: bits under punch
  uint32_t heads_[65];               // by number of free slots; [0] unused
  uint64_t heads_set_ = 0;           // bit n - 1: heads_[n] is not empty
  uint32_t current_ = kNone;         // extent of the last take
  std::deque<uint32_t> stale_queue_;
  uint64_t used_ = 0;
  uint64_t stale_ = 0;
  uint64_t punching_ = 0;
};

}  // namespace elastic
