// What the kernel writes when a thread ends, it writes where nothing can wait for a page any more: the tid
// word, and the words of robust futexes, which it finds along a list in the application's memory. All of it
// is made resident, and stays, before the thread may end. See home.hpp.
//
// Limits: a thread that a signal ends, or another thread's exec, is not seen before its end.
#include <linux/futex.h>
#include <sys/syscall.h>

#include <algorithm>

#include "home.hpp"

namespace elastic {

namespace {
// As in the kernel: so many entries of a list are looked at, and the lowest bit of a pointer says "PI".
constexpr uint32_t kRobustEntriesMax = ROBUST_LIST_LIMIT;
constexpr uint64_t kPiBit = 1;
// No list takes more than this part of the memory.
constexpr uint64_t kKeptPart = 4;

struct RobustHead {
  uint64_t next, futex_offset, pending;
};
}  // namespace

void Home::call_exit(Thread& thread) {
  std::vector<pid_t> ending{thread.tid};
  if (thread.call.orig_rax == SYS_exit_group && thread.in_group)
    for (const auto& [tid, other] : threads_)
      if (other->in_group && tid != thread.tid) ending.push_back(tid);
  thread.state = ThreadState::held;
  prepare_ends(thread.tid, std::move(ending), {});
}

// True when the bytes at `address` are here, and will be until the last of `ends` has ended; else they are on
// their way, and prepare_ends() goes on with `ends` and `walk` when they have come. The address is the
// application's: what is not elastic is no concern of ours.
bool Home::keep_for_end(pid_t caller, const std::vector<pid_t>& ends, const RobustWalk& walk,
                        uint64_t address, uint64_t bytes) {
  if (address == 0 || address >= kUserSpaceEnd - bytes) return true;
  std::vector<uint64_t>& kept = find_thread(ends.back())->kept;
  std::vector<uint64_t> missing;
  for (uint64_t page = page_of(address); page <= page_of(address + bytes - 1); page++) {
    const Region* region = regions_.find(page);
    if (region == nullptr || region->kind != RegionKind::elastic) continue;
    if (std::find(kept.begin(), kept.end(), page) == kept.end()) {
      if (kept.size() >= engine_->limit() / kKeptPart) continue;
      kept.push_back(page);
    }
    table_.entry(page).pinned = 1;
    if (table_.peek(page).state() != PageState::resident || table_.peek(page).offered())
      missing.push_back(page);
    else
      unshare(page);
  }
  if (missing.empty()) return true;
  engine_->make_resident(missing, true, [this, caller, ends, walk] {
    loop_.at(0, [this, caller, ends, walk] { prepare_ends(caller, ends, walk); });
  });
  return false;
}

bool Home::read_word(uint64_t address, uint64_t& word) {
  return address < kUserSpaceEnd &&
         pread(memory_view_.get(), &word, sizeof word, static_cast<off_t>(address)) == sizeof word;
}

// One step after the other for the last of `ends`, then for the one before; `caller` runs on after all.
void Home::prepare_ends(pid_t caller, std::vector<pid_t> ends, RobustWalk walk) {
  Thread* exiting = find_thread(caller);
  if (exiting == nullptr || exiting->state != ThreadState::held) return;
  for (; !ends.empty(); ends.pop_back(), walk = {}) {
    Thread* thread = find_thread(ends.back());
    size_t length = 0;
    if (thread == nullptr) continue;
    if (!keep_for_end(caller, ends, walk, thread->clear_tid_address, sizeof(uint32_t))) return;
    if (syscall(SYS_get_robust_list, thread->tid, &walk.head, &length) != 0 || walk.head == 0) continue;
    if (!keep_for_end(caller, ends, walk, walk.head, sizeof(RobustHead))) return;
    RobustHead head{};
    if (!read_word(walk.head, head.next) || !read_word(walk.head + 8, head.futex_offset) ||
        !read_word(walk.head + 16, head.pending))
      continue;
    const auto keep_entry = [&](uint64_t entry) {
      return keep_for_end(caller, ends, walk, entry, sizeof entry) &&
             keep_for_end(caller, ends, walk, entry + head.futex_offset, sizeof(uint32_t));
    };
    if (head.pending != 0 && !keep_entry(head.pending & ~kPiBit)) return;
    if (walk.seen == 0) walk.at = head.next & ~kPiBit;
    for (; walk.at != walk.head && walk.seen < kRobustEntriesMax; walk.seen++) {
      if (!keep_entry(walk.at)) return;
      if (!read_word(walk.at, walk.at)) break;
      walk.at &= ~kPiBit;
    }
  }
  exiting->state = ThreadState::running;
  resume(caller);
}

// The kernel has dumped what is here, and zeros for what is not.
void Home::warn_of_core() {
  uint64_t away = 0;
  regions_.visit(0, page_of(kUserSpaceEnd), [&](const Region& region) {
    if (region.kind != RegionKind::elastic) return;
    table_.for_each_touched(region.start, region.end, [&](uint64_t, const PageEntry& e) {
      away += e.state() != PageState::untouched && e.state() != PageState::resident;
    });
  });
  if (away > 0)
    control_->log(LogLevel::warning,
                  format("the core dump is not whole: %lu pages that were not in this machine's memory are "
                         "zeros in it",
                         away));
}

// A page that another thread needs as well stays.
void Home::release(std::vector<uint64_t>& pinned) {
  for (const uint64_t page : std::exchange(pinned, {})) {
    if (pins_->holds(page)) continue;
    const bool shared = std::any_of(threads_.begin(), threads_.end(), [page](const auto& other) {
      const auto has = [page](const std::vector<uint64_t>& pages) {
        return std::find(pages.begin(), pages.end(), page) != pages.end();
      };
      return has(other.second->pinned) || has(other.second->kept);
    });
    if (!shared) engine_->unpin(page);
  }
}

}  // namespace elastic
