// Pages that the kernel reads into behind the page tables (direct I/O): it writes them through references of
// its own, which no write-protection stops. They are made resident and stay, from before the call until the
// last transfer has ended. Only reads need that: a page that leaves while the disk writes *from* it has the
// same bytes in both places.
//
// Limits: all together at most `pages_max` pages; who wants more than is left waits, first come, first
// served. Nobody who waits holds any, and transfers end by themselves, so that every wait does.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <unordered_map>
#include <vector>

#include "engine.hpp"
#include "loop.hpp"

namespace elastic {

class PinnedPages {
 public:
  using Id = uint32_t;  // 0: none
  using Release = std::function<void(std::vector<uint64_t>& pages)>;

  // `release` lets those of `pages` go that nobody else needs.
  PinnedPages(Loop& loop, Engine& engine, uint64_t pages_max, Release release)
      : loop_(loop), engine_(engine), pages_max_(pages_max), release_(std::move(release)) {}
  static constexpr uint64_t kPart = 4;  // of the memory, that all of them may be
  uint64_t pages_max() const { return pages_max_; }
  void set_pages_max(uint64_t pages);  // at least pages_needed()
  // So that all who have asked get theirs, and whoever asks for as much as was accepted before.
  uint64_t pages_needed() const;
  // One transfer that cannot be made in parts.
  void note_accepted(uint64_t pages) { accepted_most_ = std::max(accepted_most_, pages); }

  // At most pages_max(), each once. Runs `done` when all are here, be it at once, unless they are given up
  // before.
  using Done = std::function<void(Id)>;
  Id pin(std::vector<uint64_t> pages, Done done);
  void keep(Id id) { holds_.at(id).users++; }  // one more unpin() is needed
  void unpin(Id id);
  void clear();  // exec: the pages have ended
  bool holds(uint64_t page) const { return counts_.contains(page); }
  bool holds_any(uint64_t first, uint64_t end) const;
  bool anybody_waits() const { return !waiting_.empty(); }

 private:
  struct Hold {
    std::vector<uint64_t> pages;
    Done done;
    size_t asked = 0;  // pages that are here or on their way
    uint32_t users = 1;
    bool granted = false;
  };
  void grant();
  void bring(Id id);

  Loop& loop_;
  Engine& engine_;
  uint64_t pages_max_;
  Release release_;
  std::map<Id, Hold> holds_;
  std::deque<Id> waiting_;
  std::unordered_map<uint64_t, uint32_t> counts_;  // of those granted: how many need the page
  uint64_t used_ = 0;
  uint64_t accepted_most_ = 0;  // in this image
  Id next_ = 1;
};

}  // namespace elastic
