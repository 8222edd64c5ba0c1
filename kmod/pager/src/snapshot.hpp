// What the children of a fork have still to get of the memory as it was at the fork.
//
// A child's memory is private and empty, and its faults arrive on a userfaultfd of its own. Each page of the
// application that it may still ask for is *pending* in its snapshot, and marked in the page table
// (PageEntry::shared). One rule holds for all snapshots, however many forks lie between them: **while a page
// is pending, the application's page has the contents that the snapshot wants.** So nothing is copied at the
// fork, and before a marked page changes or is dropped whoever has it pending gets its bytes
// (EngineHost::before_change). It may move and be spilled all it likes.
//
// A child and its threads share one snapshot; a grandchild begins with a copy of it. Nothing here allocates
// on the path of a fault. Used by home_fork.cpp and home_children.cpp; limits in docs/architecture.md.
#pragma once

#include <sys/types.h>
#include <sys/user.h>

#include <functional>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "engine.hpp"
#include "page_set.hpp"
#include "uffd.hpp"

namespace elastic {

struct Snapshot {
  uint32_t id = 0;
  Uffd uffd;
  Fd memory;  // opened at its first stop: later, a task that is not dumpable could not be asked in mid-call
  PageSet pending;
  RegionMap regions;  // what is still the memory of the fork: not unmapped, replaced or moved since
  Prefetch prefetch;
  uint64_t heap_start = 0, heap_end = 0;  // addresses, at the fork
  uint64_t backed_pages = 0;              // by files, at the fork
  size_t tasks = 0;
  // Its only task is in a call that forks: what it has been given meanwhile its child may lack.
  bool forking = false;
  PageSet given;
  uint64_t kept_as = 0;  // by the holder
};

// A task in an address space that has a snapshot.
struct SnapshotTask {
  uint32_t snapshot = 0;
  user_regs_struct call{};       // registers at the entry of the call being handled
  bool wants_exit_stop = false;  // resumed to the end of it
};

class Snapshots {
 public:
  static constexpr size_t kMax = 1000;  // each takes descriptors, here and in the holder
  static constexpr uint32_t kAll = 0;   // in place of an id

  Snapshot& add(pid_t task, Uffd uffd);
  void join(pid_t task, Snapshot& snapshot);
  // The task has ended or executed a program. The snapshot that has no task any more is returned.
  std::unique_ptr<Snapshot> leave(pid_t task);
  std::unique_ptr<Snapshot> remove(uint32_t id);  // its tasks need nothing any more
  SnapshotTask* task(pid_t pid);
  Snapshot* find(uint32_t id);
  const std::unordered_map<pid_t, SnapshotTask>& tasks() const { return tasks_; }
  size_t size() const { return snapshots_.size(); }
  bool empty() const { return snapshots_.empty(); }
  const std::map<uint32_t, std::unique_ptr<Snapshot>>& all() const { return snapshots_; }

  uint64_t pending() const;  // pages, of all of them
  uint64_t backed() const;   // pages of files, of all of them
  bool forking() const;
  size_t incomplete() const;                                       // how many have anything pending
  bool wants(uint64_t page) const;                                 // somebody has it pending
  uint64_t next(uint32_t id, uint64_t first, uint64_t end) const;  // pending in [first, end), or `end`
  void give(uint32_t id, uint64_t page, const uint8_t* bytes);     // to those that have it pending
  static void place(Snapshot& snapshot, uint64_t page, const uint8_t* bytes);
  // Ends the tasks of the snapshot, or of all in which `page` is pending: it cannot be had. How many.
  size_t kill_wanting(uint32_t id, uint64_t page);
  void kill_all();

 private:
  std::map<uint32_t, std::unique_ptr<Snapshot>> snapshots_;
  std::unordered_map<pid_t, SnapshotTask> tasks_;
  uint32_t next_id_ = 1;
};

}  // namespace elastic
