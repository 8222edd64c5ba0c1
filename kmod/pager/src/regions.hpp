// What is mapped where in the elastic process: the pager's own list of mappings, and the choice of addresses
// for new ones. Home's list is complete (every call that changes mappings is trapped); a participant's list
// holds what home told it: elastic ranges and read-only file pages.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "util.hpp"

namespace elastic {

enum class RegionKind : uint32_t {
  elastic = 1,  // pages are owned, moved, spilled
  replica = 2,  // private read-only file pages: native at home, copied to participants on demand
  native = 3,   // anything else (shared maps, vDSO, …): only at home
};

// A file whose private, writable mapping became elastic: untouched pages still come from it.
struct BackingFile {
  Fd fd;
  // Pages that the file has now, from `page` of it on, at most `most`. What is mapped beyond them stays the
  // kernel's own mapping: touching it raises SIGBUS, and the file may grow. /dev/zero has no end.
  uint64_t pages_from(uint64_t page, uint64_t most) const;
};

// A file as /proc/PID/maps names it.
struct FileName {
  std::string device = "00:00";
  uint64_t inode = 0;
  std::string path;
  bool operator==(const FileName&) const = default;
};

struct Region {
  uint64_t start = 0;  // page numbers
  uint64_t end = 0;
  int prot = 0;
  RegionKind kind = RegionKind::elastic;
  std::shared_ptr<BackingFile> backing;  // what it starts as; may be null
  std::shared_ptr<const FileName> file;  // where there is no backing: what the kernel mapped; may be null
  uint64_t backing_page = 0;             // file page of `start`, in either
  bool wipe_on_fork = false;
  bool skip_on_fork = false;
  bool locked = false;                                   // by mlock: advice does not take its contents away
  bool read_backing(uint64_t page, uint8_t* out) const;  // false: there is none; throws Failure
};

class RegionMap {
 public:
  const Region* find(uint64_t page) const;
  bool overlaps(uint64_t first, uint64_t end) const;
  // Cuts everything out of [first, end).
  void erase(uint64_t first, uint64_t end);
  // Replaces what lies there; merges with equal neighbours.
  void insert(Region region);
  // Calls `change` for every region part inside [first, end), split at the edges; regions are re-inserted.
  void update(uint64_t first, uint64_t end, const std::function<void(Region&)>& change);
  // Visits region parts inside [first, end), clipped, in order.
  void visit(uint64_t first, uint64_t end, const std::function<void(const Region&)>& look) const;
  size_t size() const { return regions_.size(); }
  void clear() { regions_.clear(); }

  // A free run of `pages`, searched downwards below `below` (page numbers), with room left above for growth
  // if the mapping is large: a mapping that can grow in place need not move. 0 if there is none.
  uint64_t choose(uint64_t pages, uint64_t below, uint64_t lowest);

 private:
  void split(uint64_t page);
  void cut(uint64_t first, uint64_t end);
  bool mergeable(const Region& a, const Region& b) const;
  std::map<uint64_t, Region> regions_;  // by start
  uint64_t hint_ = 0;                   // choose() goes on below its last answer
};

}  // namespace elastic
