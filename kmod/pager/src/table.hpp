// The elastic page table of one process on one node: for every page its state, version and where it is, and
// the order in which those that are resident are to leave.
//
// That order is the clock of Corbato ("A Paging Experiment with the Multics System", 1968) with a count of up
// to kUsesMax in place of its one bit: a page that was found in use gets that many more rounds. One that is
// back soon after it left begins with two of them, as the ghosts of 2Q are kept (Johnson and Shasha, VLDB
// 1994): else a loop over a little more than there is room for would find each page gone just before its
// turn.
//
// Both are flat arrays in reserved, unpopulated memory (MAP_NORESERVE): a look-up is one index, nothing is
// allocated on the path of a fault, and only what is touched costs anything: 16 bytes a page in the table, 12
// a resident page in the order (4 MiB per GiB stretched, and 3 per GiB resident). A bitmap of touched 2 MB
// chunks lets a walk over a huge empty range skip it.
//
// Limits: 2^26 resident pages, and as many slots of the spill file: 256 GiB each.
#pragma once

#include <cstdint>
#include <functional>
#include <set>

#include "util.hpp"

namespace elastic {

enum class PageState : uint32_t {
  untouched = 0,  // never materialised as far as this node knows (home: nowhere; elsewhere: ask home)
  resident = 1,   // here, in this node's memfd
  spilled = 2,    // here, in the spill file (`where` = slot)
  remote = 3,     // elsewhere (`where` = node that is said to own it)
  in_flight = 4,  // asked for (`where`: see asked())
  copied = 5,  // given to `where`, which is home, and its bytes kept here: a page that comes back unwritten
               // need not bring them
};

constexpr unsigned kPlaceBits = 26, kTickBits = 7;  // of `where`, of `left_at`
constexpr unsigned kNodeBits = 6;                   // of a node's index
constexpr uint64_t kOfferedBit = 1u << (kTickBits - 1);

struct PageEntry {
  uint64_t version;             // birth << 32 | moves; raised at every change of owner
  uint64_t where : kPlaceBits;  // resident: index into the order; else see PageState
  uint64_t left_at
      : kTickBits;  // the table's tick when it last left memory, 0 if it never did; see copy_at()
  uint64_t state_bits : 3;
  uint64_t last_written_cut : 22;
  uint64_t pinned : 1;      // stays here (argv, robust lists, words the kernel writes without waiting)
  uint64_t replica : 1;     // copy of a read-only file page: may be dropped at any time, never moves
  uint64_t deferred : 1;    // somebody's GET waits here for this page
  uint64_t watched : 1;     // a waiter of this pager wants to know when the page is resident
  uint64_t prefetched : 1;  // came unasked with another page
  uint64_t shared : 1;      // home: a child may have it pending (snapshot.hpp); if resident, write-protected

  // Resident pages, for which left_at has no other use. Of home's: the node that keeps a copy of what the
  // page holds, 0 if none does, and whether it has been offered to that node. Write-protected as long as one
  // does.
  uint16_t copy_at() const { return state() == PageState::resident ? left_at & (kOfferedBit - 1) : 0; }
  bool offered() const { return state() == PageState::resident && (left_at & kOfferedBit) != 0; }

  // Pages in flight: who was asked, and who has it by the table, which is another node if a hint was
  // followed. `where` holds the one, and the other plus 1 above it only if it is another.
  uint16_t asked() const { return where & ((1u << kNodeBits) - 1); }
  uint16_t known_owner() const {
    const auto known = static_cast<uint16_t>(where >> kNodeBits);
    return known == 0 ? asked() : known - 1;
  }
  void set_asked(uint16_t asked, uint16_t known) {
    where = asked | (known == asked ? 0u : (known + 1u) << kNodeBits);
  }

  PageState state() const { return static_cast<PageState>(state_bits); }
  void set_state(PageState state) { state_bits = static_cast<uint64_t>(state); }
};
static_assert(sizeof(PageEntry) == 16);

class PageTable {
 public:
  PageTable();
  ~PageTable();
  PageTable(const PageTable&) = delete;
  PageTable& operator=(const PageTable&) = delete;

  // Reading does not mark the page as touched; writing callers use entry().
  const PageEntry& peek(uint64_t page) const { return entries_[page]; }
  PageEntry& entry(uint64_t page) {
    uint64_t& word = touched_[page >> 15];
    if (word == 0) touched_words_.insert(page >> 15);
    const uint64_t bit = 1ull << ((page >> 9) & 63);
    if ((word & bit) == 0) chunks_++;
    word |= bit;
    return entries_[page];
  }
  // Calls `visit` for every page of [first, end) that lies in a touched chunk.
  void for_each_touched(uint64_t first, uint64_t end, const std::function<void(uint64_t, PageEntry&)>& visit);
  // Calls `visit(first, end)` for every touched chunk, ascending.
  void for_each_touched_chunk(const std::function<void(uint64_t, uint64_t)>& visit);
  // Calls `visit(first, end)` for the next `chunks` touched ones from page `at` on, which goes on with them;
  // true, and `at` is 0, when there were no more.
  bool walk(uint64_t& at, uint64_t chunks, const std::function<void(uint64_t, uint64_t)>& visit);
  uint64_t touched_chunks() const { return chunks_; }
  void clear();  // everything untouched with version 0 (exec)

  // The order of resident pages. Indices are stable while a page is resident.
  // entry(page) becomes resident, the last to leave. `wanted`: somebody waited for it, it is not a guess.
  void insert_front(uint64_t page, bool wanted = true);
  void remove(uint64_t page);  // no longer resident; the caller sets the new state
  //
  // Which of them are in use is found out by scans of all touched chunks, in parts: calls `visit(first, end)`
  // for the next `chunks`, and begins anew after the last.
  void scan_on(uint64_t chunks, const std::function<void(uint64_t, uint64_t)>& visit);
  void mark_used(uint64_t page);  // the scan found it in use: one more round
  // Nobody is known to have used it since it was last scanned. Resident pages only.
  bool is_idle(uint64_t page) const {
    const uint64_t ago = (scan_ + kScans - frames_[entries_[page].where].scan) % kScans;
    return ago > (page < scanned_to_ ? 0 : 1);
  }
  bool spare(uint64_t index);  // true: it had a round left, and is now the last to leave
  void pass(uint64_t index);   // now the last to leave
  uint64_t last() const { return frames_[0].previous; }  // index of the first to leave, 0 if none
  uint64_t page_at(uint64_t index) const { return frames_[index].page; }
  uint64_t before(uint64_t index) const { return frames_[index].previous; }  // the one to leave after it
  uint64_t resident() const { return resident_; }

 private:
  static constexpr uint64_t kUsesMax = 3, kUsesOfGhost = 2, kScans = 64;
  static constexpr uint64_t kTicks = 8;  // a ghost lives for as many departures as there are pages
  static constexpr uint32_t kTicksMax = (1u << kTickBits) - 1;
  struct [[gnu::packed]] OrderFrame {
    uint64_t page : 36;
    uint64_t uses : 2;               // rounds left
    uint64_t previous : kPlaceBits;  // frame 0 is the list head: previous = first to leave, next = last
    uint32_t next : kPlaceBits;
    uint32_t scan : 6;  // when it was last known to be in use
  };
  static_assert(sizeof(OrderFrame) == 12);
  void link_front(uint32_t index);
  void unlink(uint32_t index);

  PageEntry* entries_;
  uint64_t* touched_;
  std::set<uint64_t> touched_words_;  // a new one per 128 MB first touched: not a cost of faults
  OrderFrame* frames_;
  uint64_t departures_ = 0;  // since the last tick
  uint32_t tick_ = 1;  // one for each eighth of what is resident that leaves; 1 to kTicksMax and round again
  uint64_t scan_ = 0, scanned_to_ = 0;  // pages below have been looked at in this scan
  uint64_t chunks_ = 0;
  uint32_t free_head_ = 0;
  uint32_t frames_used_ = 1;
  uint64_t resident_ = 0;
};

}  // namespace elastic
