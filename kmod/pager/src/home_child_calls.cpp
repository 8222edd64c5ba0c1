// Stops of children of a fork while they have not had all their pages: those of their calls that concern
// pages which are still to come, and their own children. See snapshot.hpp.
#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include <cerrno>
#include <csignal>
#include <fcntl.h>

#include "home.hpp"
#include "launch.hpp"

namespace elastic {

namespace {
constexpr int kSyscallStop = SIGTRAP | 0x80;

// Advice that neither drops contents nor changes what a grandchild inherits.
bool is_harmless(int advice) {
  return is_about_paging(advice) || advice == MADV_POPULATE_READ || advice == MADV_POPULATE_WRITE ||
         advice == MADV_DOFORK || advice == MADV_KEEPONFORK;
}

// The first page that the kernel reads or writes in the robust list of `tid` when it ends, where it cannot
// wait for a page, and that is pending; ~0 if there is none.
uint64_t pending_robust_page(const PageSet& pending, pid_t tid, const Fd& memory) {
  uint64_t found = ~0ull;
  const auto is_pending = [&](uint64_t address, uint64_t bytes) {
    for (const uint64_t page : {page_of(address), page_of(address + bytes - 1)})
      if (pending.has(page)) found = page;
    return found != ~0ull;
  };
  const auto read = [&](uint64_t address, void* out, size_t bytes) {
    return pread(memory.get(), out, bytes, static_cast<off_t>(address)) == static_cast<ssize_t>(bytes);
  };
  uint64_t at = 0;
  size_t length = 0;
  robust_list_head head{};
  if (syscall(SYS_get_robust_list, tid, &at, &length) != 0 || at == 0 || is_pending(at, sizeof head))
    return found;
  const uint64_t head_at = at;
  if (!read(at, &head, sizeof head)) return found;
  const auto entry_pending = [&](const robust_list* entry) {
    const uint64_t address = reinterpret_cast<uint64_t>(entry) & ~1ull;  // the lowest bit says "PI"
    return is_pending(address, sizeof at) ||
           is_pending(address + static_cast<uint64_t>(head.futex_offset), sizeof(uint32_t));
  };
  if (head.list_op_pending != nullptr && entry_pending(head.list_op_pending)) return found;
  const robust_list* next = head.list.next;
  for (uint32_t seen = 0; seen < ROBUST_LIST_LIMIT; seen++) {
    const uint64_t entry = reinterpret_cast<uint64_t>(next) & ~1ull;
    if (entry == head_at || entry_pending(next) || !read(entry, &next, sizeof next)) break;
  }
  return found;
}
}  // namespace

// A stop of a task whose address space has a snapshot. True: it has been dealt with.
bool Home::on_child_stop(pid_t pid, int status) {
  SnapshotTask* task = snapshots_.task(pid);
  if (task == nullptr) return false;
  switch (stop_event(status)) {
    case PTRACE_EVENT_SECCOMP: on_child_call(pid, *task); return true;
    case PTRACE_EVENT_FORK:
    case PTRACE_EVENT_VFORK:
    case PTRACE_EVENT_CLONE: return on_child_birth(pid, *task);
    case PTRACE_EVENT_EXEC: {
      const pid_t before = new_task(pid).value_or(pid);  // what the executing thread was called
      drop_snapshot(snapshots_.leave(before));
      if (before != pid) drop_snapshot(snapshots_.leave(pid));
      return false;
    }
    case 0:
      if (WSTOPSIG(status) != kSyscallStop || !task->wants_exit_stop) return false;
      on_child_call_end(pid, *task);
      return true;
    default: return false;
  }
}

void Home::child_exits(pid_t pid, bool group) {
  const uint32_t id = snapshots_.task(pid)->snapshot;
  const Snapshot& snapshot = *snapshots_.find(id);
  if (snapshot.pending.empty()) return child_goes_on(pid, false);
  for (const auto& [tid, task] : snapshots_.tasks()) {
    if (task.snapshot != id || (tid != pid && !group)) continue;
    const uint64_t page = pending_robust_page(snapshot.pending, tid, snapshot.memory);
    if (page == ~0ull) continue;
    return deliver_range(id, page, page + 1, [this, pid, group] {
      if (snapshots_.task(pid) != nullptr)
        child_exits(pid, group);
      else
        child_goes_on(pid, false);
    });
  }
  child_goes_on(pid, false);
}

void Home::on_child_call(pid_t pid, SnapshotTask& task) {
  if (!get_registers(pid, task.call)) return;
  const user_regs_struct& r = task.call;
  switch (r.orig_rax) {
    case SYS_futex: return child_needs(pid, futex_pages(r), false);
    case SYS_set_tid_address: return child_needs(pid, {page_of(r.rdi)}, false);
    case SYS_fork:
    case SYS_clone: return on_child_clone(pid, task);
    case SYS_exit:
    case SYS_exit_group: return child_exits(pid, r.orig_rax == SYS_exit_group);
    case SYS_madvise: return on_child_advice(pid, task);
    case SYS_mremap: return child_needs_range(pid, range_of(r.rdi, r.rsi), true);
    case SYS_mlock2: return child_needs_range(pid, range_of(r.rdi, r.rsi), false);
    case SYS_mlockall: return child_needs_range(pid, {0, page_of(kUserSpaceEnd)}, false);
    case SYS_mmap:
    case SYS_munmap:
    case SYS_brk:
    case SYS_shmat: return child_goes_on(pid, true);
    case SYS_process_madvise:  // behind our back, as for the program itself
    case SYS_userfaultfd: return child_fails(pid, task, ENOSYS);
    default: task.wants_exit_stop = false; return on_foreign_call(pid);
  }
}

void Home::child_fails(pid_t pid, SnapshotTask& task, int error) {
  task.call.orig_rax = ~0ull;  // the call itself is skipped
  task.call.rax = static_cast<uint64_t>(-error);
  if (set_registers(pid, task.call)) child_goes_on(pid, false);
}

void Home::child_goes_on(pid_t pid, bool exit_stop) {
  if (SnapshotTask* task = snapshots_.task(pid)) task->wants_exit_stop = exit_stop;
  if (exit_stop)
    resume_to_syscall(pid);
  else
    resume(pid);
}

// These pages are in the child's memory before its call, whose kernel side cannot wait for them, goes on.
void Home::child_needs(pid_t pid, std::vector<uint64_t> pages, bool exit_stop) {
  if (pages.empty()) return child_goes_on(pid, exit_stop);
  const uint64_t page = pages.back();
  pages.pop_back();
  const uint32_t id = snapshots_.task(pid)->snapshot;
  deliver_range(id, page, page + 1, [this, id, pid, page, pages, exit_stop] {
    Snapshot* snapshot = snapshots_.find(id);
    if (snapshot == nullptr || snapshots_.task(pid) == nullptr) return child_goes_on(pid, exit_stop);
    if (snapshot->regions.find(page) != nullptr) fill(*snapshot, page);
    child_needs(pid, pages, exit_stop);
  });
}

void Home::child_needs_range(pid_t pid, CallRange range, bool exit_stop) {
  const uint32_t id = snapshots_.task(pid)->snapshot;
  deliver_range(id, range.first, range.end, [this, id, pid, range, exit_stop] {
    if (Snapshot* snapshot = snapshots_.find(id)) fill_backed(*snapshot, range.first, range.end);
    child_goes_on(pid, exit_stop);
  });
}

// What is dropped before it was asked for is zeros (or the file) from now on. Advice that makes a difference
// to a grandchild's memory, or is unknown, finds all pages there.
void Home::on_child_advice(pid_t pid, const SnapshotTask& task) {
  const user_regs_struct& r = task.call;
  const CallRange range = range_of(r.rdi, r.rsi);
  Snapshot& snapshot = *snapshots_.find(task.snapshot);
  const bool valid = (r.rdi & (kPageBytes - 1)) == 0 && r.rdi + round_up_page(r.rsi) <= kUserSpaceEnd;
  if (!valid || is_harmless(static_cast<int>(r.rdx))) return child_goes_on(pid, false);
  if (drops_contents(static_cast<int>(r.rdx))) {
    snapshot.pending.remove(range.first, range.end);
    return child_goes_on(pid, false);
  }
  deliver_range(task.snapshot, range.first, range.end, [this, id = task.snapshot, pid, range] {
    if (Snapshot* left = snapshots_.find(id)) {
      fill_backed(*left, range.first, range.end);
      left->regions.erase(range.first, range.end);
    }
    child_goes_on(pid, false);
  });
}

// What has been unmapped, replaced or moved is no concern of the snapshot any more.
void Home::on_child_call_end(pid_t pid, SnapshotTask& task) {
  task.wants_exit_stop = false;
  user_regs_struct r{};
  if (!get_registers(pid, r)) return;
  Snapshot& snapshot = *snapshots_.find(task.snapshot);
  snapshot.forking = false;  // a fork that failed
  snapshot.given = {};
  const auto result = static_cast<int64_t>(r.rax);
  const bool failed = task.call.orig_rax == SYS_brk ? r.rax != task.call.rdi : result < 0 && result > -4096;
  if (!failed)
    for (const CallRange& range : ended_by(task.call, snapshot.heap_start, snapshot.heap_end)) {
      if (range.first >= range.end) continue;
      snapshot.pending.remove(range.first, range.end);
      snapshot.regions.erase(range.first, range.end);
    }
  resume(pid);
}

// A single thread's child begins with a copy of what is pending, and gets what came to its parent while the
// kernel forked. With more threads that could have been written meanwhile, so all pages come first.
void Home::on_child_clone(pid_t pid, SnapshotTask& task) {
  user_regs_struct& r = task.call;
  const uint64_t flags = r.orig_rax == SYS_clone ? r.rdi : 0;
  if (flags & CLONE_UNTRACED) {
    r.rdi &= ~static_cast<uint64_t>(CLONE_UNTRACED);
    set_registers(pid, r);
  }
  std::vector<uint64_t> words;
  if ((flags & (CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID)) != 0 && r.r10 < kUserSpaceEnd)
    words.push_back(page_of(r.r10));
  if (flags & CLONE_VM) return child_needs(pid, words, false);
  Snapshot& snapshot = *snapshots_.find(task.snapshot);
  if (snapshot.tasks > 1)
    return deliver_range(snapshot.id, 0, page_of(kUserSpaceEnd), [this, pid] { child_goes_on(pid, false); });
  if (snapshots_.incomplete() >= Snapshots::kMax) return child_fails(pid, task, ENOMEM);
  snapshot.forking = true;
  child_needs(pid, words, true);
}

bool Home::on_child_birth(pid_t pid, const SnapshotTask& task) {
  const std::optional<pid_t> child = new_task(pid);
  user_regs_struct r{};
  if (!child || !get_registers(pid, r)) return false;
  Snapshot& snapshot = *snapshots_.find(task.snapshot);
  if (r.orig_rax == SYS_vfork || (r.orig_rax == SYS_clone && (r.rdi & CLONE_VM))) {
    if (is_traced(*child)) snapshots_.join(*child, snapshot);
    return false;
  }
  if (await_first_stop(*child)) {
    foreign_.insert(*child);
    try {
      make_grandchild(snapshot, *child);
    } catch (const Failure& failure) {
      end_child(*child, failure.what());
    }
  }
  snapshot.forking = false;
  snapshot.given = {};
  child_goes_on(pid, false);
  return true;
}

// The kernel has copied what the child had; what it had still to get, its child has still to get.
void Home::make_grandchild(const Snapshot& parent, pid_t child) {
  Snapshot& snapshot = snapshots_.add(child, child_userfaultfd(child));
  snapshot.regions = parent.regions;
  snapshot.pending = parent.pending;
  snapshot.heap_start = parent.heap_start;
  snapshot.heap_end = parent.heap_end;
  watch_snapshot(snapshot, child);
  snapshot.memory = open_of_task(child, "mem", O_RDONLY);
  const uint64_t end = page_of(kUserSpaceEnd);
  for (uint64_t page = parent.given.next(0, end); page < end; page = parent.given.next(page + 1, end)) {
    alignas(kPageBytes) uint8_t bytes[kPageBytes];
    if (pread(parent.memory.get(), bytes, kPageBytes, static_cast<off_t>(address_of(page))) != kPageBytes)
      throw Failure(format("its memory at %#lx cannot be read", address_of(page)));
    Snapshots::place(snapshot, page, bytes);
  }
  resume(child);
}

}  // namespace elastic
