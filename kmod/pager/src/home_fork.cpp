// fork and clone without CLONE_VM: the child gets a full copy of the memory, made before it runs its first
// instruction, and runs natively from then on (traced only so that its inherited filter's calls go through).
//
// Why eagerly: a forked child inherits shared mappings of the memfd, not copies, and no userfaultfd: away
// pages would silently read as zeros. See home.hpp.
#include <fcntl.h>
#include <linux/prctl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdio>

#include "home.hpp"

namespace elastic {

namespace {

constexpr size_t kFetchBatch = 32;

uint64_t available_bytes() {
  FILE* file = fopen("/proc/meminfo", "re");
  if (file == nullptr) return 0;
  char line[256];
  uint64_t kilobytes = 0;
  while (fgets(line, sizeof line, file) != nullptr)
    if (sscanf(line, "MemAvailable: %lu kB", &kilobytes) == 1) break;
  fclose(file);
  return kilobytes * 1024;
}

}  // namespace

bool Home::fork_fits() {
  uint64_t pages = 0;
  regions_.visit(0, page_of(kUserSpaceEnd), [&](const Region& region) {
    if (region.kind != RegionKind::elastic || region.skip_on_fork || region.wipe_on_fork) return;
    table_.for_each_touched(region.start, region.end,
                            [&](uint64_t, PageEntry& e) { pages += e.state() != PageState::untouched; });
  });
  return pages * kPageBytes < available_bytes() / 10 * 8;
}

// A child that nobody traces would find zeros where pages are away, so it cannot ask for that.
void Home::call_clone(Thread& thread) {
  if (thread.call.orig_rax == SYS_clone && (thread.call.rdi & CLONE_UNTRACED)) {
    thread.call.rdi &= ~static_cast<uint64_t>(CLONE_UNTRACED);
    set_registers(thread.tid, thread.call);
  }
  if (thread.call.orig_rax == SYS_clone && (thread.call.rdi & CLONE_VM)) return run_native(thread, false);
  if (fork_fits()) return call_fork(thread);
  control_->log(LogLevel::warning,
                "fork refused (ENOMEM): a copy of the whole memory does not fit on this machine");
  answer(thread, -ENOMEM);
}

// CLONE_CHILD_SETTID has the kernel write the child's tid before the child's first stop, through a mapping
// that is still the parent's memory: it would change the parent. The flag is taken away, and the pager writes
// the word when the child has memory of its own.
void Home::call_fork(Thread& thread) {
  user_regs_struct r = thread.call;
  thread.child_tid_address = 0;
  if (r.orig_rax != SYS_clone || (r.rdi & CLONE_CHILD_SETTID) == 0) return run_native(thread, false);
  thread.child_tid_address = r.r10;
  r.rdi &= ~static_cast<uint64_t>(CLONE_CHILD_SETTID);
  if (set_registers(thread.tid, r)) run_native(thread, true);  // the exit stop is for a fork that fails
}

// Both find the first argument as it was given, and the child its tid.
void Home::give_child_tid(Thread& thread, pid_t child, const Fd& memory) {
  user_regs_struct r{};
  if (thread.child_tid_address == 0 || !get_registers(child, r)) return;
  r.rdi = thread.call.rdi;
  set_registers(child, r);
  const auto tid = static_cast<uint32_t>(call_in(child, kTrampoline, SYS_gettid));
  // As in the kernel, a bad address is nobody's error.
  if (pwrite(memory.get(), &tid, sizeof tid, static_cast<off_t>(thread.child_tid_address)) < 0) return;
}

// The kernel's end of the heap has stayed where exec put it, because the pager answers brk. The child asks
// the kernel, so it is told; what to say lies where move_arguments left it.
void Home::give_child_heap(pid_t child, const Fd& memory) {
  const Region* told = regions_.find(page_of(kArgumentsAt));
  if (told == nullptr || told->kind != RegionKind::native) return;  // this kernel cannot be told
  if (pwrite(memory.get(), &brk_now_, sizeof brk_now_,
             static_cast<off_t>(kArgumentsAt + offsetof(prctl_mm_map, brk))) == sizeof brk_now_)
    call_in(child, kTrampoline, SYS_prctl, PR_SET_MM, PR_SET_MM_MAP, kArgumentsAt, sizeof(prctl_mm_map));
}

void Home::on_fork_event(Thread& thread, pid_t child) {
  children_++;
  if (!is_traced(child)) return finish_fork(thread);  // killed, and reported as ended, before we heard of it
  foreign_.insert(child);
  thread.fork_child = child;
  thread.state = ThreadState::held;
  if (early_.contains(child)) copy_for_child(thread);
}

// Both are stopped: the parent in its fork event, the child before its first instruction.
void Home::copy_for_child(Thread& thread) {
  const pid_t child = *thread.fork_child;
  std::vector<Region> regions;
  regions_.visit(0, page_of(kUserSpaceEnd), [&](const Region& region) {
    if (region.kind == RegionKind::elastic) regions.push_back(region);
  });
  for (const Region& region : regions) {
    const uint64_t address = address_of(region.start), bytes = (region.end - region.start) << kPageShift;
    int64_t result = 0;
    if (region.skip_on_fork)
      result = call_in(child, kTrampoline, SYS_munmap, address, bytes);
    else
      result = call_in(child, kTrampoline, SYS_mmap, address, bytes, static_cast<uint64_t>(region.prot),
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, ~0ull, 0);
    if (result < 0 && result > -4096) {  // gone, or no memory: a child with half a memory must not run
      kill(child, SIGKILL);
      return finish_fork(thread);
    }
  }
  std::erase_if(regions, [](const Region& r) { return r.skip_on_fork || r.wipe_on_fork; });
  copy_regions(thread, std::move(regions), 0, 0);
}

// From `page` of region `index` on; pages that are elsewhere come home in batches, and the walk goes on after
// each.
void Home::copy_regions(Thread& thread, std::vector<Region> regions, size_t index, uint64_t page) {
  const pid_t child = *thread.fork_child;
  const Fd memory(open_of_task(child, "mem", O_RDWR));
  if (!memory) {
    if (errno != ESRCH && errno != ENOENT) fail_errno("cannot write the memory of a forked child");
    return finish_fork(thread);  // killed meanwhile
  }
  std::vector<uint8_t> bytes(kPageBytes);
  static const uint8_t kZeros[kPageBytes] = {};
  for (; index < regions.size(); index++, page = 0) {
    const Region& region = regions[index];
    for (page = std::max(page, region.start); page < region.end;) {
      std::vector<uint64_t> away;
      uint64_t reached = region.end;
      const auto copy = [&](uint64_t at, PageEntry& e) {
        if (away.size() >= kFetchBatch) {
          reached = std::min(reached, at);
        } else if (e.state() == PageState::remote || e.state() == PageState::in_flight) {
          away.push_back(at);
        } else if ((e.state() != PageState::untouched || region.backing) &&
                   engine_->read_copy(at, bytes.data()) && memcmp(bytes.data(), kZeros, kPageBytes) != 0) {
          if (pwrite(memory.get(), bytes.data(), kPageBytes, static_cast<off_t>(address_of(at))) < 0 &&
              errno != ESRCH && errno != EIO)
            fail_errno("copying memory for a forked child");
        }
      };
      if (region.backing)
        for (uint64_t at = page; at < region.end && at < reached; at++) copy(at, table_.entry(at));
      else
        table_.for_each_touched(page, region.end, copy);
      if (away.empty()) break;
      const pid_t tid = thread.tid;
      const uint64_t first_away = away.front();
      thread.pinned = away;
      engine_->make_resident(away, true, [this, tid, child, regions, index, first_away] {
        // Again from the first that was away: what lies behind it was read at another moment, but the parent
        // stands.
        Thread* parent = find_thread(tid);
        if (parent == nullptr || parent->fork_child != child) return;  // its pins ended with it
        std::vector<uint64_t> copied = std::exchange(parent->pinned, {});
        copy_regions(*parent, regions, index, first_away);
        release(copied);
      });
      return;
    }
  }
  give_child_tid(thread, child, memory);
  give_child_heap(child, memory);
  early_.erase(child);
  resume(child);
  finish_fork(thread);
}

// The parent goes on; also when the child is gone.
void Home::finish_fork(Thread& thread) {
  thread.fork_child.reset();
  release(thread.pinned);
  thread.state = ThreadState::running;
  user_regs_struct r{};
  if (std::exchange(thread.child_tid_address, 0) != 0 && get_registers(thread.tid, r)) {
    r.rdi = thread.call.rdi;
    set_registers(thread.tid, r);
  }
  resume(thread.tid);
}

}  // namespace elastic
