// fork and clone without CLONE_VM: the child has the memory of that moment, and gets its pages when it asks
// for them (snapshot.hpp, home_children.cpp). It runs natively, traced only so that its inherited filter's
// calls go through.
//
// Before its first instruction what it inherited of the memory file, which is its parent's memory and not a
// copy, is replaced by private memory that is empty; the application's resident pages are write-protected.
// Only home knows of every write, so all threads are at home from then on while any page is pending.
#include <fcntl.h>
#include <linux/prctl.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstddef>

#include "home.hpp"
#include "launch.hpp"

namespace elastic {

// A child that nobody traces would find zeros where pages are away, so it cannot ask for that.
void Home::call_clone(Thread& thread) {
  if (thread.call.orig_rax == SYS_clone && (thread.call.rdi & CLONE_UNTRACED)) {
    thread.call.rdi &= ~static_cast<uint64_t>(CLONE_UNTRACED);
    set_registers(thread.tid, thread.call);
  }
  if (thread.call.orig_rax == SYS_clone && (thread.call.rdi & CLONE_VM)) return run_native(thread, false);
  if (snapshots_.incomplete() >= Snapshots::kMax) {
    control_->log(LogLevel::warning,
                  format("fork refused (ENOMEM): %zu children have not had all their memory yet",
                         snapshots_.incomplete()));
    return answer(thread, -ENOMEM);
  }
  thread.forking = true;
  thread.state = ThreadState::held;
  held_calls_.push_back(thread.tid);
  for (auto& [tid, other] : threads_)
    if (other->state == ThreadState::away) recall(*other);
}

bool Home::fork_in_progress() const {
  return std::any_of(threads_.begin(), threads_.end(), [](const auto& each) { return each.second->forking; });
}

// Forks wait until all threads are at home and no call that changes memory is under way, and such calls do
// not begin before the fork is over: a child must not inherit half of a change.
void Home::retry_held_calls() {
  if (held_calls_.empty()) return;
  const bool not_yet = std::any_of(threads_.begin(), threads_.end(), [](const auto& each) {
    const Thread& thread = *each.second;
    return thread.state == ThreadState::away || thread.state == ThreadState::recalling || thread.changing;
  });
  for (const pid_t tid : std::exchange(held_calls_, {})) {
    Thread* thread = find_thread(tid);
    if (thread == nullptr || thread->state != ThreadState::held) continue;
    if (thread->forking ? not_yet : fork_in_progress()) {
      held_calls_.push_back(tid);
    } else if (thread->forking) {
      call_fork(*thread);
    } else {
      thread->state = ThreadState::running;
      on_call(*thread);
    }
  }
}

// CLONE_CHILD_SETTID has the kernel write the child's tid before the child's first stop, through a mapping
// that is still the parent's memory: it would change the parent. The flag is taken away, and the pager writes
// the word when the child has memory of its own. That word, which the kernel may also write at the child's
// end, is here then.
void Home::call_fork(Thread& thread) {
  memory_.unmap_vacant();  // the child would inherit it
  user_regs_struct r = thread.call;
  const uint64_t flags = r.orig_rax == SYS_clone ? r.rdi : 0;
  thread.child_tid_address = 0;
  if ((flags & (CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID)) != 0 && r.r10 < kUserSpaceEnd)
    thread.pinned = {page_of(r.r10)};
  if (flags & CLONE_CHILD_SETTID) {
    thread.child_tid_address = r.r10;
    r.rdi &= ~static_cast<uint64_t>(CLONE_CHILD_SETTID);
    set_registers(thread.tid, r);
  }
  const pid_t tid = thread.tid;
  engine_->make_resident(thread.pinned, true, [this, tid] {
    Thread* forking = find_thread(tid);
    if (forking == nullptr || forking->state != ThreadState::held) return;
    forking->state = ThreadState::running;
    run_native(*forking, true);  // the exit stop is for a fork that fails
  });
}

// Both find the first argument as it was given, and the child its tid.
void Home::give_child_tid(const Thread& thread, pid_t child, const Fd& memory) {
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

// The child, whose creator is in its event, stands before its first instruction. False: it has ended.
bool Home::await_first_stop(pid_t child) {
  if (early_.erase(child) > 0) return true;
  int status = 0;
  return is_traced(child) && wait_stop_or_end(child, status) && WIFSTOPPED(status);
}

void Home::on_fork_event(Thread& thread, pid_t child) {
  children_++;
  if (await_first_stop(child)) {
    foreign_.insert(child);
    try {
      make_child(thread, child);
    } catch (const Failure& failure) {  // half a memory: it must not run
      end_child(child, failure.what());
    }
  }
  finish_fork(thread);
}

// What has been killed meanwhile ends as alone.
void Home::end_child(pid_t child, const std::string& why) {
  user_regs_struct r{};
  if (get_registers(child, r))
    control_->log(LogLevel::warning, format("process %d, a child, was ended: %s", child, why.c_str()));
  kill(child, SIGKILL);
  drop_snapshot(snapshots_.leave(child));
}

void Home::make_child(const Thread& thread, pid_t child) {
  Fd memory = open_of_task(child, "mem", O_RDWR);
  if (!memory) throw Failure("its memory cannot be opened");
  Snapshot& snapshot = snapshots_.add(child, child_userfaultfd(child));
  snapshot.heap_start = brk_start_;
  snapshot.heap_end = brk_now_;
  regions_.visit(0, page_of(kUserSpaceEnd), [&](const Region& region) {
    if (region.kind != RegionKind::elastic) return;
    const uint64_t address = address_of(region.start), bytes = (region.end - region.start) << kPageShift;
    int64_t result = 0;
    if (region.skip_on_fork)
      result = call_in(child, kTrampoline, SYS_munmap, address, bytes);
    else
      result = call_in(child, kTrampoline, SYS_mmap, address, bytes, static_cast<uint64_t>(region.prot),
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, ~0ull, 0);
    if (result < 0 && result > -4096)
      throw Failure(format("its memory at %#lx: %s", address, strerror(static_cast<int>(-result))));
    if (region.wipe_on_fork && call_in(child, kTrampoline, SYS_madvise, address, bytes, MADV_WIPEONFORK) != 0)
      throw Failure(format("its memory at %#lx cannot be wiped at its own forks", address));
    if (!region.skip_on_fork && !region.wipe_on_fork) snapshot.regions.insert(region);
  });
  watch_snapshot(snapshot, child);
  snapshot.regions.visit(0, page_of(kUserSpaceEnd), [&](const Region& region) { share(region, snapshot); });
  give_child_tid(thread, child, memory);
  give_child_heap(child, memory);
  snapshot.memory = std::move(memory);
  resume(child);
}

void Home::watch_snapshot(Snapshot& snapshot, pid_t child) {
  snapshot.kept_as = holder_.keep(snapshot.uffd.fd(), child);
  snapshot.regions.visit(0, page_of(kUserSpaceEnd), [&](const Region& region) {
    if (region.backing) snapshot.backed_pages += region.end - region.start;
    if (const int error = snapshot.uffd.watch(region.start, region.end - region.start, false); error != 0)
      throw Failure(format("its memory at %#lx: %s", address_of(region.start), strerror(-error)));
  });
  loop_.watch(snapshot.uffd.fd(), EPOLLIN, [this, id = snapshot.id](uint32_t) { on_child_faults(id); });
}

// What the region has is pending from now on. Pages that the kernel needs are given at once, because it could
// not write to them while they are protected.
void Home::share(const Region& region, Snapshot& snapshot) {
  sharing_ = true;
  PageRun run{0, 0};
  const auto protect = [&] {
    if (run.count > 0) memory_.protect_written(run.page, run.count);
    run.count = 0;
  };
  table_.for_each_touched(region.start, region.end, [&](uint64_t page, PageEntry& e) {
    if (e.state() == PageState::untouched) return;
    snapshot.pending.add(page);
    if (e.pinned && e.state() == PageState::resident) return deliver(snapshot.id, page);
    e.shared = 1;
    if (e.state() != PageState::resident) return;
    if (run.count == 0 || run.page + run.count != page) {
      protect();
      run.page = page;
    }
    run.count++;
  });
  protect();
}

// The parent goes on; also when the fork has failed.
void Home::finish_fork(Thread& thread) {
  thread.forking = false;
  thread.wants_exit_stop = false;
  release(thread.pinned);
  user_regs_struct r{};
  if (std::exchange(thread.child_tid_address, 0) != 0 && get_registers(thread.tid, r)) {
    r.rdi = thread.call.rdi;
    set_registers(thread.tid, r);
  }
  resume(thread.tid);
}

}  // namespace elastic
