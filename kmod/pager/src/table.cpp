// See table.hpp.
#include "table.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <bit>

namespace elastic {

namespace {

constexpr uint64_t kPages = 1ull << 35;  // whole chunks
constexpr uint64_t kTouchedWords = kPages / 512 / 64;
constexpr uint64_t kFramesMax = 1ull << kPlaceBits;

void* reserve(uint64_t bytes, const char* what) {
  void* memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    fail_errno("cannot reserve address space for the %s (vm.overcommit_memory=2 or a ulimit -v in the way?)",
               what);
  madvise(memory, bytes, MADV_DONTFORK);  // the fork of a child must not copy page tables of this
  madvise(memory, bytes, MADV_DONTDUMP);
  madvise(memory, bytes, MADV_NOHUGEPAGE);  // what is touched is scattered
  return memory;
}

}  // namespace

PageTable::PageTable()
    : entries_(static_cast<PageEntry*>(reserve(kPages * sizeof(PageEntry), "page table"))),
      touched_(static_cast<uint64_t*>(reserve(kTouchedWords * sizeof(uint64_t), "touched map"))),
      frames_(static_cast<OrderFrame*>(reserve(kFramesMax * sizeof(OrderFrame), "order of use"))) {}

PageTable::~PageTable() {
  munmap(entries_, kPages * sizeof(PageEntry));
  munmap(touched_, kTouchedWords * sizeof(uint64_t));
  munmap(frames_, kFramesMax * sizeof(OrderFrame));
}

void PageTable::for_each_touched(uint64_t first, uint64_t end,
                                 const std::function<void(uint64_t, PageEntry&)>& visit) {
  for (auto word = touched_words_.lower_bound(first >> 15); word != touched_words_.end() && *word << 15 < end;
       ++word) {
    for (uint64_t bits = touched_[*word]; bits != 0; bits &= bits - 1) {
      const uint64_t chunk = (*word * 64 + static_cast<uint64_t>(std::countr_zero(bits))) << 9;
      for (uint64_t page = std::max(first, chunk); page < std::min(end, chunk + 512); page++)
        visit(page, entries_[page]);
    }
  }
}

void PageTable::for_each_touched_chunk(const std::function<void(uint64_t, uint64_t)>& visit) {
  for (const uint64_t word : touched_words_) {
    uint64_t bits = touched_[word];
    while (bits != 0) {
      const uint64_t chunk = word * 64 + static_cast<uint64_t>(std::countr_zero(bits));
      bits &= bits - 1;
      visit(chunk << 9, (chunk + 1) << 9);
    }
  }
}

bool PageTable::walk(uint64_t& at, uint64_t chunks, const std::function<void(uint64_t, uint64_t)>& visit) {
  auto word = touched_words_.lower_bound(at >> 15);
  for (; chunks > 0 && word != touched_words_.end(); ++word) {
    uint64_t bits = touched_[*word];
    if (*word == at >> 15) bits &= ~0ull << ((at >> 9) & 63);
    for (; chunks > 0 && bits != 0; bits &= bits - 1, chunks--) {
      const uint64_t chunk = *word * 64 + static_cast<uint64_t>(std::countr_zero(bits));
      at = (chunk + 1) << 9;
      visit(chunk << 9, at);
    }
  }
  if (chunks == 0) return false;
  at = 0;
  return true;
}

void PageTable::scan_on(uint64_t chunks, const std::function<void(uint64_t, uint64_t)>& visit) {
  if (walk(scanned_to_, chunks, visit)) scan_++;
}

void PageTable::clear() {
  touched_words_.clear();
  chunks_ = scanned_to_ = 0;
  madvise(entries_, kPages * sizeof(PageEntry), MADV_DONTNEED);
  madvise(touched_, kTouchedWords * sizeof(uint64_t), MADV_DONTNEED);
  madvise(frames_, kFramesMax * sizeof(OrderFrame), MADV_DONTNEED);
  free_head_ = 0;
  frames_used_ = 1;
  resident_ = 0;
}

void PageTable::link_front(uint32_t index) {
  const uint32_t front = frames_[0].next;
  frames_[index].previous = 0;
  frames_[index].next = front;
  frames_[front].previous = index;
  frames_[0].next = index;
}

void PageTable::unlink(uint32_t index) {
  frames_[frames_[index].previous].next = frames_[index].next;
  frames_[frames_[index].next].previous = frames_[index].previous;
}

// The list runs head → next (last to leave) … → head; `previous` leads away from those that leave first.
void PageTable::insert_front(uint64_t page, bool wanted) {
  uint32_t index = free_head_;
  if (index != 0) {
    free_head_ = frames_[index].next;
  } else {
    if (frames_used_ == kFramesMax) throw Failure("more than 256 GB resident on one node is not supported");
    index = frames_used_++;
  }
  PageEntry& e = entry(page);
  const uint32_t age = (tick_ + kTicksMax - e.left_at) % kTicksMax;
  const bool is_ghost = e.left_at != 0 && age <= kTicks;
  frames_[index].page = page;
  frames_[index].uses = is_ghost ? kUsesOfGhost : 0;
  frames_[index].scan = (wanted ? scan_ : scan_ - 2) % kScans;
  link_front(index);
  e.left_at = 0;
  e.set_state(PageState::resident);
  e.where = index;
  resident_++;
}

void PageTable::remove(uint64_t page) {
  const uint32_t index = entries_[page].where;
  if (++departures_ >= resident_ / kTicks) {
    departures_ = 0;
    tick_ = tick_ % kTicksMax + 1;
  }
  entries_[page].left_at = tick_;
  unlink(index);
  frames_[index].next = free_head_;
  free_head_ = index;
  resident_--;
}

void PageTable::mark_used(uint64_t page) {
  OrderFrame& frame = frames_[entries_[page].where];
  if (frame.uses < kUsesMax) frame.uses++;
  frame.scan = scan_ % kScans;
}

bool PageTable::spare(uint64_t index) {
  if (frames_[index].uses == 0) return false;
  frames_[index].uses--;
  pass(index);
  return true;
}

void PageTable::pass(uint64_t index) {
  unlink(static_cast<uint32_t>(index));
  link_front(static_cast<uint32_t>(index));
}

}  // namespace elastic
