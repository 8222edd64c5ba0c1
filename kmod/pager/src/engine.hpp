// The ownership engine: serves faults, answers other nodes' GETs, keeps memory within its limit. The same on
// home and on every participant; what differs (threads, jumps, backing files) is behind EngineHost.
//
// Rules (docs/architecture.md, "Ownership"): one owner per page; a move raises the version; a page that
// arrives is taken only if its version is newer than what the table has, so frames of two connections may
// overtake one another; a GET names the least version it will accept and waits, bounded, where the page is
// still on its way; a former owner answers "moved to X, version v", and versions only grow along such a
// chain, so it ends at the owner.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <vector>

#include "hints.hpp"
#include "lanes.hpp"
#include "memory.hpp"
#include "owned_summary.hpp"
#include "prefetch.hpp"
#include "regions.hpp"
#include "spill.hpp"
#include "stats.hpp"
#include "table.hpp"

namespace elastic {

class EngineHost {
 public:
  virtual ~EngineHost() = default;
  // A user-mode thread faulted on a page that `owner` has. True: the thread goes there, no pull is wanted.
  virtual bool leave_for(const FaultEvent& fault, uint16_t owner) = 0;
  virtual void on_local_fault(const FaultEvent& fault) = 0;  // first touch or unspill: input of the jump rule
  virtual bool threads_here() const = 0;     // does a thread run on this node's pages (or wait to)?
  virtual bool threads_may_run() const = 0;  // can anybody write to this node's pages now?
  virtual bool fill_from_backing(uint64_t page, uint8_t* out) = 0;  // home: false if the page starts as zeros
  virtual void must_go_home(uint64_t page) = 0;        // participants: waiting threads cannot have it here
  virtual void want_lane(uint16_t node) = 0;           // participants: no lane to that node yet
  virtual void out_of_room(uint64_t page) = 0;         // nothing can make room for this page
  virtual void tell_room() = 0;                        // a status to every node, now
  virtual bool threads_stay() const { return false; }  // home: no thread ever runs elsewhere
  // Home: a page that is marked as shared changes or goes after this; it is not marked any more.
  virtual void before_change(uint64_t) {}
};

struct EngineConfig {
  uint16_t self = 0;
  uint64_t pages_limit = 0;
};

class Engine {
 public:
  Engine(Loop& loop, Memory& memory, PageTable& table, RegionMap& regions, Lanes& lanes, Spill& spill,
         EngineHost& host, EngineConfig config, Counters& counters);

  void on_fault(const FaultEvent& fault);
  bool on_frame(Node& node, const Frame& frame);  // false: not one of the engine's frames
  void on_drained();                              // a bulk queue or the spill writer has room again
  // Participants: what the table believed to be at `node` is asked from home from now on. The number of pages
  // that had been asked from it and may have been on their way.
  uint64_t on_node_down(Node& node);

  // Runs `done` when all pages are resident; with `pin` they stay until unpin(). At most kAskMax pages a
  // call.
  void make_resident(std::vector<uint64_t> pages, bool pin, std::function<void()> done);
  void unpin(uint64_t page);
  static constexpr size_t kAskMax = 64;

  // Home: forgets contents of [first, end) everywhere (munmap, MADV_DONTNEED): a new birth.
  void forget(uint64_t first, uint64_t end);
  void adopt(uint64_t page,
             const uint8_t* data);  // home: a page of the new image, not yet known to the table
  // Moves the page with everything the table knows of it to another address (mremap); it is here (resident or
  // spilled).
  void rename(uint64_t from, uint64_t to);
  void reset();  // exec: a new image
  // Those of `pages` that are here go to `node` ahead of a jump; drop_shipped() is to follow when that has
  // been sent.
  void ship_with_jump(Node& node, std::vector<uint64_t> pages);
  void drop_shipped();
  void reclaim_ahead();  // after each round: keeps the reserve
  void set_limit(uint64_t pages) { config_.pages_limit = limit_wanted_ = limit_most_ = pages; }
  // Home: the same, but a lower limit comes into force only as pages find a place elsewhere.
  void move_limit(uint64_t pages);
  // What `to` may know of this node. Everybody who may push here gets an equal share of the free room, so
  // that all of them together fill it and do not overrun it. A limit of 0 while `closed`.
  StatusPayload status_for(const Node& to, bool closed, uint32_t threads_running);
  // Home: asks for pages that `node` owns, as many as there is room for. True when none is left there.
  bool fetch_from(uint16_t node);
  // Ten times a second. Throws Failure at home when a node does not give a page that somebody waits for.
  void look_for_overdue();
  // Home: while there is plenty of room, what is elsewhere comes back little by little.
  void bring_home();
  // Participants: owner notes for every page held, as many as the queue takes well. True: that was the last.
  bool tell_owned(Node& to);
  bool empty() const { return table_.resident() == replicas_ && spill_.slots_used() == 0 && expected_ == 0; }
  uint64_t resident() const { return table_.resident(); }
  uint64_t limit() const { return limit_wanted_; }
  uint32_t next_birth() { return ++birth_; }
  bool read_copy(uint64_t page, uint8_t* out);  // contents without moving; false if not here
  void release_replicas(uint64_t first, uint64_t end);
  // Calls `done` with the largest ranges that this node owns, looked for in slices.
  void look_for_owned(std::function<void(const std::vector<OwnedRange>&)> done);
  // Participants: what `node` says that it owns.
  void set_hints(uint64_t node, std::vector<OwnedRange> ranges);
  void discard_copies() { trim_copies(INT64_MAX); }  // participants: threads will run here

 private:
  friend class EngineLockstep;
  struct Deferred {  // a GET that waits here
    uint16_t from;
    bool keep;  // copies
    bool by_hint;
    uint64_t page, count, demand, version, not_before_us;
  };
  struct Held {
    uint64_t page = ~0ull, until_us = 0, hold_us = 0, left_us = 0;
  };
  struct Asking {
    uint16_t known, asked;  // who has the page by the table, and by a hint if there is one
    bool by_hint() const { return known != asked; }
    bool operator==(const Asking&) const = default;
  };
  struct Asked {                         // a page that somebody waits for
    uint64_t page = ~0ull, at_ns = 0;    // 0: somebody else asked, ahead of need
    uint32_t looks = 0, idle_looks = 0;  // that have found it so, and that have not since
  };
  struct Waiter {
    std::vector<uint64_t> missing;
    std::function<void()> done;
  };

  // engine_fault.cpp
  void fault_untouched(const FaultEvent& fault, PageEntry& e);
  void fault_spilled(uint64_t page);
  void fault_remote(const FaultEvent& fault, PageEntry& e);
  template <typename Same>
  uint64_t run_length(Prefetch::Plan plan, const Same& same, uint64_t& first);
  void ask(Asking whom, uint64_t first, uint64_t count, uint64_t demand, bool keep = false);
  void ask_file_pages(uint64_t page);
  bool bring(uint64_t page);  // starts making one page resident; true if it is at once
  void starve(const FaultEvent& fault);
  bool room_may_come();
  void wait_for_room();
  void check_waiters(uint64_t page);
  void place(uint64_t first, const uint8_t* data, uint64_t count, bool clean = false);
  // engine_fresh.cpp
  bool plenty() const;  // of memory: what is filled for nothing is in nobody's way
  PageRun fresh_block(uint64_t page, const Region& region, uint64_t least) const;  // count 0: none
  void fill_fresh(PageRun block, uint64_t wanted);
  void fill_run(uint64_t first, uint64_t count, uint64_t wanted, const Region* backed);
  // engine_overdue.cpp
  bool waits_for(uint64_t page) const;
  void note_wait(uint64_t page, uint64_t asked_at_ns = 0);
  Asked& asked_at(uint64_t page);
  // engine_hints.cpp
  void look_on();
  Asking whom_to_ask(uint64_t page, const PageEntry& e);
  void ask_on(uint64_t page, uint16_t owner);
  // engine_serve.cpp
  void serve_get(Node& node, const FrameHeader& header);
  void serve(const Deferred& get);
  void refuse(const Deferred& get);
  bool knows(uint64_t page, uint64_t version) const;
  bool must_defer(uint64_t page, uint64_t version, uint64_t& not_before_us);
  void defer(Deferred deferred);
  void retry_deferred(uint64_t page);
  void retry_if_deferred(uint64_t page);
  void retry_held();
  bool leaves_memory(uint64_t page, bool demanded);
  void copy_out(uint64_t page, uint8_t* out, uint64_t count, bool protect);
  void serve_page(Node& to, uint64_t page, bool demanded, PageMeta& meta, uint8_t* out);
  void fill_meta_of_owned(Node& to, uint64_t page, PageMeta& meta, uint8_t* out);
  void send_pages(Node& to, FrameType type, const std::vector<PageMeta>& metas, size_t data_pages, bool bulk,
                  uint16_t flags = 0);
  // engine_copies.cpp
  bool wants_copies(const FaultEvent& fault);
  bool come_clean(const Frame& frame) const;
  void on_write_to_clean(PageEntry& e);
  bool offer(std::vector<uint64_t>& victims);
  bool on_offer_answered(Node& node, const PageMeta& meta);
  void end_offer(uint64_t page);
  bool keeps_copies() const;
  void keep_copy(uint64_t page);
  void discard_copy(uint64_t page);
  void trim_copies(int64_t room_wanted);
  void take_offered(Node& node, const PageMeta& meta);
  void answer_offers(Node& node);
  // engine_arrive.cpp
  void on_pages(Node& node, const Frame& frame, bool asked);
  void tell_home_of(const std::vector<std::pair<uint64_t, bool>>& came);
  void on_answer_without_page(Node& node, const PageMeta& meta);
  bool accept(const PageMeta& meta, uint16_t from);
  void arrived(uint64_t page, bool demanded);
  void on_file_pages(const Frame& frame);
  void apply_drop(const FrameHeader& header);
  void on_owner_note(uint16_t from, const FrameHeader& header);
  void start_hold(uint64_t page);
  // engine_evict.cpp
  int64_t room() const {
    return static_cast<int64_t>(config_.pages_limit) - static_cast<int64_t>(pages_in_buffers_) -
           static_cast<int64_t>(table_.resident()) - expected_ - unconfirmed_ + offered_;
  }
  void note_peak() {
    const uint64_t resident = table_.resident() - static_cast<uint64_t>(offered_);
    counters_.peak_resident = std::max(counters_.peak_resident, resident);
  }
  void count_buffers();
  int64_t pushers() const;  // nodes that may push here
  void tell_if_room_changed();
  uint64_t reserve() const;
  bool make_room(uint64_t pages);
  bool evict_batch(size_t pages);
  bool may_leave(uint64_t page, uint64_t now) const;
  size_t pick_victims(std::vector<uint64_t>& victims, size_t wanted);
  void add_idle_neighbours(std::vector<uint64_t>& victims, size_t wanted, uint64_t page, uint64_t now);
  void age();
  Node* choose_target(size_t pages, bool& wait);
  bool takes_pages(const Node& node) const;
  bool node_has_room(const Node& node, size_t pages) const;
  void push(Node& to, const std::vector<uint64_t>& pages, bool bulk, bool drop_later = false);
  // engine_spill.cpp
  bool spill_pages(const std::vector<uint64_t>& pages);
  void on_spilled(const std::vector<uint64_t>& pages, const std::vector<uint32_t>& slots, SpillError error);
  // engine_limit.cpp
  void lower_limit();
  bool yield_limit();
  // engine_serve.cpp
  void note_remote(PageEntry& e, uint16_t owner, uint64_t version);
  void leave_remote(PageEntry& e);  // the entry stops being remote or in flight
  void set_gone(uint64_t page, PageEntry& e, uint16_t owner);

  Loop& loop_;
  Memory& memory_;
  PageTable& table_;
  RegionMap& regions_;
  Lanes& lanes_;
  Spill& spill_;
  EngineHost& host_;
  EngineConfig config_;
  uint64_t limit_wanted_, limit_most_;  // what config_'s is to become, and the most that it was
  uint64_t yielded_until_us_ = 0;       // it is not lowered before
  uint64_t home_from_ = 0;              // where bring_home() goes on
  Counters& counters_;
  Prefetch prefetch_;
  // Of one frame or batch; kept, so that nothing is allocated on the path of a fault.
  std::vector<uint8_t> buffer_;  // staging for its pages
  std::vector<PageMeta> metas_;
  std::vector<std::pair<uint64_t, bool>>
      came_;  // pages of a frame that counted, and whether one was waited for
  std::vector<uint64_t> victims_;
  std::vector<PageRun> shipped_;  // sent, and not yet dropped
  int64_t expected_ = 0;          // pages asked for and not here yet
  uint64_t replicas_ = 0;
  uint64_t pages_in_buffers_ = 0;  // what queues and staging take of the limit, in pages
  uint32_t birth_ = 0;
  uint64_t placed_since_age_ = 0;
  bool in_order_of_arrival_ = false;  // for measurements: what a plain queue would do
  uint64_t zap_from_ = 0;
  bool reclaiming_ = false;
  uint64_t asked_since_trickle_ = 0;
  int64_t room_told_ = 0;     // when the last status went out
  uint64_t pushed_here_ = 0;  // pages of PUSH frames for which as many have still to leave
  uint16_t last_target_ = 0;
  uint64_t target_left_ = 0;
  // After a failed write: not tried again before, and then one batch at a time, whose pages take up room
  // until they are known to be on the disk.
  uint64_t spill_broken_until_us_ = 0;
  bool spill_doubtful_ = false;
  int64_t unconfirmed_ = 0;
  // Home: pages offered and not answered, which are as good as gone; writers that wait for the answer.
  int64_t offered_ = 0;
  std::vector<uint64_t> offer_waiters_;
  int copies_pay_ = 0;
  uint64_t copies_declined_ = 0;
  // Participants: copied pages, those kept first in front; some of these are not copied any more.
  std::deque<uint64_t> copies_;
  uint64_t copied_ = 0;
  std::vector<PageMeta> offer_answers_;
  uint64_t tell_from_ = 0;  // where the notes of tell_owned go on
  Hints hints_;             // participants
  OwnedSummary owned_;
  std::vector<std::function<void(const std::vector<OwnedRange>&)>> owned_waiters_;  // while it is made
  std::deque<Deferred> deferred_;
  uint64_t held_timer_us_ = 0;
  std::deque<FaultEvent> starved_;
  uint64_t starved_until_us_ = 0;  // then it is believed that no room will come
  std::vector<Waiter> waiters_;
  std::array<Held, 1024> held_{};
  std::array<Asked, 256> asked_{};
};

}  // namespace elastic
