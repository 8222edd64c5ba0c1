// System calls of the application that the pager answers or prepares: the dispatch, the completion that waits
// for threads elsewhere, and all but the mapping calls themselves (home_mmap.cpp), advice (home_advice.cpp)
// and the ends of threads (home_exit.cpp). See home.hpp.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>

#include "home.hpp"

namespace elastic {

namespace {
constexpr uint64_t kHeapBytesMax = 1ull << 44;

bool changes_memory(long call) {
  constexpr long kCalls[] = {SYS_mmap,    SYS_munmap,        SYS_mremap, SYS_brk,   SYS_mprotect,
                             SYS_madvise, SYS_pkey_mprotect, SYS_shmat,  SYS_shmdt, SYS_remap_file_pages};
  return std::find(std::begin(kCalls), std::end(kCalls), call) != std::end(kCalls);
}
}  // namespace

void Home::on_call(Thread& thread) {
  if (!get_registers(thread.tid, thread.call)) return;
  const user_regs_struct& r = thread.call;
  const auto number = static_cast<long>(r.orig_rax);
  if (const int refused = reserved_error(r)) return answer(thread, refused);
  if (number != SYS_brk && number != SYS_mmap && number != SYS_munmap) memory_.unmap_vacant();
  if (changes_memory(number)) {
    if (waits_for_fork(thread)) return;
    thread.changing = true;
    if (waits_for_children(thread)) return;
  }
  switch (number) {
    case SYS_mmap: return call_mmap(thread);
    case SYS_munmap: return call_munmap(thread);
    case SYS_mremap: return call_mremap(thread);
    case SYS_brk: return call_brk(thread, r.rdi);
    case SYS_mprotect:
    case SYS_pkey_mprotect: return call_mprotect(thread);
    case SYS_madvise: return call_madvise(thread);
    case SYS_exit:
    case SYS_exit_group: return call_exit(thread);
    case SYS_futex: return call_futex(thread);
    case SYS_open: return r.rsi & O_DIRECT ? call_opens_direct(thread) : call_open(thread);
    case SYS_openat: return r.rdx & O_DIRECT ? call_opens_direct(thread) : call_open(thread);
    case SYS_io_uring_setup:
    case SYS_userfaultfd:
    case SYS_vmsplice:
    case SYS_process_madvise:
    case SYS_setsockopt: return refuse_call(thread);
    case SYS_ptrace: note_ptrace(thread.tid, r); return run_native(thread, false);
    case SYS_mlock:
    case SYS_mlock2:
    case SYS_mlockall:
    case SYS_munlock:
    case SYS_munlockall: return answer(thread, lock_memory(r));
    case SYS_set_tid_address: thread.clear_tid_address = r.rdi; return run_native(thread, false);
    case SYS_shmat:
    case SYS_shmdt:
    case SYS_remap_file_pages:
    case SYS_setrlimit:
    case SYS_prlimit64: return run_native(thread, true);
    case SYS_fork:
    case SYS_clone: return call_clone(thread);
    case SYS_open_by_handle_at:
    case SYS_fcntl: return call_opens_direct(thread);
    case SYS_read:
    case SYS_pread64:
    case SYS_readv:
    case SYS_preadv:
    case SYS_preadv2: return call_read(thread);
    case SYS_io_setup: return run_native(thread, true);
    case SYS_io_destroy: return call_io_destroy(thread);
    case SYS_io_submit: return call_io_submit(thread);
    default: return run_native(thread, false);
  }
}

// A child must not inherit half of a change. What had begun before the fork is waited for by it.
bool Home::waits_for_fork(Thread& thread) {
  if (thread.changing || !fork_in_progress()) return false;
  thread.state = ThreadState::held;
  held_calls_.push_back(thread.tid);
  return true;
}

// Children get what the call ends before it is made.
bool Home::waits_for_children(Thread& thread) {
  for (const CallRange& range : ended_by(thread.call, brk_start_, brk_now_)) {
    if (snapshots_.next(Snapshots::kAll, range.first, range.end) >= range.end) continue;
    thread.state = ThreadState::held;
    deliver_range(Snapshots::kAll, range.first, range.end, [this, tid = thread.tid] {
      Thread* held = find_thread(tid);
      if (held == nullptr || held->state != ThreadState::held) return;
      held->state = ThreadState::running;
      on_call(*held);
    });
    return true;
  }
  return false;
}

bool Home::is_reserved(uint64_t address, uint64_t bytes) const {
  return address < reserved_end_ && bytes > 0 && address + bytes > kTrampoline;
}

// The pager makes its calls from pages of the application's address space, and shows the kernel others: a
// call that would change them is answered as if they were beyond the end of it. 0 for every other call.
int Home::reserved_error(const user_regs_struct& r) const {
  switch (r.orig_rax) {
    case SYS_mmap:
      if (!(r.r10 & (MAP_FIXED | MAP_FIXED_NOREPLACE))) return 0;
      return is_reserved(r.rdi, r.rsi) ? -ENOMEM : 0;
    case SYS_munmap: return is_reserved(r.rdi, r.rsi) ? -EINVAL : 0;
    case SYS_mprotect:
    case SYS_pkey_mprotect:
    case SYS_madvise: return is_reserved(r.rdi, r.rsi) ? -ENOMEM : 0;
    case SYS_mremap:
      if (is_reserved(r.rdi, std::max<uint64_t>(r.rsi, 1))) return -EFAULT;
      return (r.r10 & MREMAP_FIXED) && is_reserved(r.r8, r.rdx) ? -EINVAL : 0;
    case SYS_shmat: {
      if (r.rsi == 0) return 0;  // the kernel chooses
      shmid_ds info{};
      if (shmctl(static_cast<int>(r.rdi), IPC_STAT, &info) != 0) return 0;  // the kernel says why
      return is_reserved(r.rsi, info.shm_segsz) ? -EINVAL : 0;
    }
    default: return 0;
  }
}

void Home::run_native(Thread& thread, bool exit_stop) {
  thread.wants_exit_stop = exit_stop;
  thread.changing = thread.changing && exit_stop;
  if (exit_stop)
    resume_to_syscall(thread.tid);
  else
    resume(thread.tid);
}

void Home::on_call_end(Thread& thread) {
  thread.wants_exit_stop = false;
  user_regs_struct r{};
  if (!get_registers(thread.tid, r)) return;
  const auto result = static_cast<int64_t>(r.rax);
  switch (thread.call.orig_rax) {
    case SYS_futex:
      release(thread.pinned);
      resume(thread.tid);
      return;
    case SYS_fork:
    case SYS_clone: return finish_fork(thread);  // a fork that failed: see call_fork
    case SYS_open:
    case SYS_openat: return after_open(thread, r);
    case SYS_read:
    case SYS_pread64:
    case SYS_readv:
    case SYS_preadv:
    case SYS_preadv2: return end_read(thread, r);
    case SYS_io_submit: return end_io_submit(thread, r);
    case SYS_io_destroy:
      end_io_destroy(thread, result == 0);
      resync_native();
      break;
    case SYS_mmap: after_native_mmap(thread, result); break;
    case SYS_setrlimit:
    case SYS_prlimit64: fit_stack(); break;
    case SYS_mremap: after_native_mremap(thread, result); break;
    default: resync_native();
  }
  answer(thread, result);  // with the registers as a call leaves them
}

// The result goes in at once; the thread runs on when every node on which threads run knows the new layout,
// and every other one for which much waits has read it.
void Home::answer(Thread& thread, int64_t result) {
  thread.call_result = result;
  Awaited awaited{thread.tid, 0};
  const uint32_t ticket = next_ticket_++;
  for (auto& [index, node] : lanes_->all()) {
    if (node->threads_there == 0 && lanes_->urgent_has_room(*node)) continue;
    FrameHeader header;
    header.flags = kFlagAckWanted;
    header.argument = ticket;
    if (lanes_->send(*node, FrameType::layout_ack, header)) awaited.nodes |= 1ull << index;
  }
  if (awaited.nodes == 0) return complete(thread);
  tickets_[ticket] = awaited;
  thread.state = ThreadState::held;
}

// A node that is gone counts as one that knows.
void Home::on_layout_ack(uint32_t ticket, uint16_t node) {
  const auto it = tickets_.find(ticket);
  if (it == tickets_.end()) return;
  it->second.nodes &= ~(1ull << node);
  if (it->second.nodes != 0) return;
  Thread* thread = find_thread(it->second.tid);
  tickets_.erase(it);
  if (thread != nullptr) complete(*thread);
}

void Home::complete(Thread& thread) {
  thread.state = ThreadState::running;
  thread.changing = false;
  user_regs_struct r = thread.call;
  r.orig_rax = ~0ull;  // the call itself is skipped
  r.rax = static_cast<uint64_t>(thread.call_result);
  if (set_registers(thread.tid, r)) resume(thread.tid);
}

void Home::call_brk(Thread& thread, uint64_t wanted) {
  if (wanted < brk_start_ || wanted > brk_start_ + kHeapBytesMax)
    return answer(thread, static_cast<int64_t>(brk_now_));
  const uint64_t old_end = page_of(round_up_page(brk_now_)), new_end = page_of(round_up_page(wanted));
  if (new_end > old_end) {
    if (regions_.overlaps(old_end, new_end) || over_limits(new_end - old_end, PROT_READ | PROT_WRITE, 0) ||
        beyond_backing(new_end - old_end) ||
        map_elastic(address_of(old_end), (new_end - old_end) << kPageShift, PROT_READ | PROT_WRITE,
                    MAP_FIXED_NOREPLACE, nullptr, 0) < 0)
      return answer(thread, static_cast<int64_t>(brk_now_));
  } else if (new_end < old_end) {
    unmap_range(new_end, old_end);
  }
  brk_now_ = wanted;
  answer(thread, static_cast<int64_t>(wanted));
}

void Home::call_mprotect(Thread& thread) {
  const user_regs_struct& r = thread.call;
  const uint64_t bytes = round_up_page(r.rsi);
  uint64_t prot = r.rdx, first = page_of(r.rdi);
  if ((prot & PROT_GROWSDOWN) != 0 && first >= stack_first_ && first < stack_end_) {
    prot &= ~static_cast<uint64_t>(PROT_GROWSDOWN);
    if (bytes > 0) first = std::max(stack_first_, regions_.find(first)->start);
  }
  if ((r.rdi & (kPageBytes - 1)) != 0 || r.rdi + bytes > kUserSpaceEnd || r.rdi + bytes < r.rdi ||
      (prot & ~7ull) != 0)
    return run_native(thread, true);  // odd arguments: the kernel's own answer, then a fresh look
  if (bytes == 0) return answer(thread, r.rsi == 0 ? 0 : -ENOMEM);
  answer(thread, protect_range(first, page_of(r.rdi + bytes), static_cast<int>(prot)));
}

// In the order of addresses, as by the kernel: what lies before a hole or a refusal changes.
int Home::protect_range(uint64_t first, uint64_t end, int prot) {
  uint64_t mapped_end = first;
  bool same = true, elastic_only = true;
  std::vector<Region> becomes_elastic;
  regions_.visit(first, end, [&](const Region& region) {
    if (region.start != mapped_end) return;
    mapped_end = region.end;
    same = same && region.prot == prot;
    elastic_only = elastic_only && region.kind == RegionKind::elastic;
    if (region.kind == RegionKind::replica && (prot & PROT_WRITE)) becomes_elastic.push_back(region);
  });
  const int of_hole = mapped_end < end ? -ENOMEM : 0;
  if ((same && elastic_only) || mapped_end == first) return of_hole;
  int result = 0;
  uint64_t done = first;
  const auto protect_to = [&](uint64_t to) {
    if (result == 0 && to > done) result = memory_.protect(done, to - done, prot);
    done = to;
    return result == 0;
  };
  for (const Region& part : becomes_elastic)
    if (protect_to(part.start)) convert_range(part, prot);
  if (!protect_to(mapped_end)) {
    resync_native();
    tell_mapped(first, end);
    return result;
  }
  regions_.update(first, mapped_end, [prot](Region& region) { region.prot = prot; });
  tell_protect(first, mapped_end, prot);
  return of_hole;
}

void Home::tell_protect(uint64_t first, uint64_t end, int prot) {
  regions_.visit(first, end, [&](const Region& region) {
    if (region.kind == RegionKind::native) return;
    FrameHeader header;
    header.argument = static_cast<uint32_t>(prot);
    tell_range(FrameType::protect, header, region.start, region.end);
  });
}

// In as many frames as it takes.
void Home::tell_range(FrameType type, FrameHeader header, uint64_t first, uint64_t end) {
  for (; first < end; first += header.count) {
    header.page = first;
    header.count = static_cast<uint32_t>(std::min<uint64_t>(end - first, UINT32_MAX));
    for (auto& [index, node] : lanes_->all()) lanes_->send(*node, type, header);
  }
}

// Futex operations whose kernel side cannot wait for a page: both words stay here until the call returns.
void Home::call_futex(Thread& thread) {
  const std::vector<uint64_t> pages = futex_pages(thread.call);
  thread.state = ThreadState::held;
  thread.pinned = pages;
  const pid_t tid = thread.tid;
  engine_->make_resident(pages, true, [this, tid] {
    Thread* waiting = find_thread(tid);
    if (waiting == nullptr || waiting->state != ThreadState::held) return;
    waiting->state = ThreadState::running;
    for (const uint64_t page : waiting->pinned) unshare(page);
    run_native(*waiting, true);
  });
}

}  // namespace elastic
