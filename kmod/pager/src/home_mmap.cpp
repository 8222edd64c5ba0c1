// mmap, munmap and mremap of the application. Private writable memory becomes elastic; everything else is
// mapped by the kernel as asked, at an address the pager chose. See home.hpp.
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>

#include "home.hpp"

namespace elastic {

namespace {
constexpr uint64_t kLowestPage = 16;  // vm.mmap_min_addr
constexpr uint64_t kBelow32Bit = page_of(1ull << 31);
constexpr size_t kMoveBatch = 32;
constexpr uint64_t kHugePageBytes = 2 << 20;  // where a call does not say which; of x86-64
}  // namespace

uint64_t Home::choose_address(uint64_t pages, int flags) {
  if (flags & MAP_32BIT) return regions_.choose(pages, kBelow32Bit, kLowestPage);
  return regions_.choose(pages, mmap_top_, page_of(1ull << 32));
}

void Home::call_mmap(Thread& thread) {
  const user_regs_struct& r = thread.call;
  const auto flags = static_cast<int>(r.r10);
  const auto prot = static_cast<int>(r.rdx);
  const uint64_t bytes = round_up_page(r.rsi);
  const bool private_anonymous =
      (flags & MAP_ANONYMOUS) && (flags & MAP_TYPE) == MAP_PRIVATE && !(flags & MAP_HUGETLB);
  if (r.rsi == 0) return answer(thread, -EINVAL);
  if (bytes < r.rsi || bytes > kUserSpaceEnd) return answer(thread, -ENOMEM);
  if (!private_anonymous) return native_mmap(thread, bytes);
  const uint64_t replaces = (flags & MAP_FIXED) ? page_of(r.rdi) : 0;
  if (over_limits(page_of(bytes), prot, replaces)) return answer(thread, -ENOMEM);
  if ((prot & PROT_WRITE) != 0 && (flags & MAP_NORESERVE) == 0 && beyond_backing(page_of(bytes)))
    return answer(thread, -ENOMEM);
  answer(thread, map_elastic(r.rdi, bytes, prot & 7, flags, nullptr, 0));
}

// The address, or -errno as mmap. `flags`: MAP_FIXED, MAP_FIXED_NOREPLACE and MAP_32BIT count.
int64_t Home::map_elastic(uint64_t address, uint64_t bytes, int prot, int flags,
                          std::shared_ptr<BackingFile> backing, uint64_t backing_page) {
  const uint64_t pages = page_of(bytes);
  uint64_t page = page_of(address);
  const bool replace = (flags & MAP_FIXED) != 0, exact = replace || (flags & MAP_FIXED_NOREPLACE) != 0;
  if (exact) {
    if (address > kUserSpaceEnd - bytes) return -ENOMEM;
    if (address & (kPageBytes - 1)) return -EINVAL;
    if (page < kLowestPage) return -EPERM;
    if (!replace && regions_.overlaps(page, page + pages)) return -EEXIST;
  } else if (address == 0 || page < kLowestPage || address > kUserSpaceEnd - bytes ||
             is_reserved(address, bytes) || regions_.overlaps(page, page + pages)) {
    page = choose_address(pages, flags);
    if (page == 0) return -ENOMEM;
  }
  const Region* below = exact && !replace ? regions_.find(page - 1) : nullptr;
  const bool grows = below != nullptr && below->kind == RegionKind::elastic && below->prot == prot &&
                     prot == Memory::kVacantProt;
  int result = grows ? memory_.grow(page, pages) : memory_.map(page, pages, prot, !replace);
  if (result == -EEXIST && !exact) {  // something is there that the list does not know
    resync_native();
    page = choose_address(pages, flags);
    result = page == 0 ? -ENOMEM : memory_.map(page, pages, prot, true);
  }
  if (result != 0) return result;
  if (replace) {
    engine_->forget(page, page + pages);
    memory_.drop(page, pages);  // also what threads that still used it touched before it was watched
  }
  Region region;
  region.start = page;
  region.end = page + pages;
  region.prot = prot;
  region.locked = locks_new_ || (flags & MAP_LOCKED) != 0;
  region.backing = std::move(backing);
  region.backing_page = backing_page;
  regions_.insert(region);
  tell_mapped(page, page + pages);
  return static_cast<int64_t>(address_of(page));
}

void Home::tell_mapped(uint64_t first, uint64_t end) {
  regions_.visit(first, end, [&](const Region& region) {
    for (auto& [index, node] : lanes_->all()) send_region(*node, region);
  });
}

void Home::tell_unmapped(uint64_t first, uint64_t end) {
  FrameHeader header;
  header.argument = 1;
  tell_range(FrameType::drop, header, first, end);
}

// Bytes of the pages that this call maps if they are huge ones, else 0.
uint64_t Home::huge_page_bytes(const Thread& thread) {
  const uint64_t flags = thread.call.r10;
  if (flags & MAP_ANONYMOUS) {
    if (!(flags & MAP_HUGETLB)) return 0;
    const uint64_t log = flags >> MAP_HUGE_SHIFT & MAP_HUGE_MASK;
    return log == 0 ? kHugePageBytes : 1ull << log;
  }
  const Fd file = take_descriptor(thread.tid, static_cast<int>(thread.call.r8));
  struct statfs info {};
  const bool huge = file && fstatfs(file.get(), &info) == 0 && info.f_type == HUGETLBFS_MAGIC;
  return huge ? static_cast<uint64_t>(info.f_bsize) : 0;
}

// The kernel maps it, where the pager says; the exit stop sees what came of it.
void Home::native_mmap(Thread& thread, uint64_t bytes) {
  memory_.unmap_vacant();
  user_regs_struct r = thread.call;
  const auto flags = static_cast<int>(r.r10);
  const uint64_t page = page_of(r.rdi), pages = page_of(bytes);
  if (!(flags & (MAP_FIXED | MAP_FIXED_NOREPLACE))) {
    uint64_t at = page;
    if (r.rdi == 0 || page < kLowestPage || r.rdi > kUserSpaceEnd - bytes || is_reserved(r.rdi, bytes) ||
        regions_.overlaps(page, page + pages))
      at = choose_address(pages, flags);
    if (at == 0) return answer(thread, -ENOMEM);
    if (huge_page_bytes(thread) == 0) {  // huge pages have an alignment of their own: the kernel chooses
      r.rdi = address_of(at);
      r.r10 |= MAP_FIXED_NOREPLACE;
      set_registers(thread.tid, r);
    }
  }
  run_native(thread, true);
}

void Home::after_native_mmap(Thread& thread, int64_t result) {
  if (result < 0 && result > -4096) return;
  const auto flags = static_cast<int>(thread.call.r10);
  const auto prot = static_cast<int>(thread.call.rdx) & 7;
  const uint64_t first = page_of(static_cast<uint64_t>(result));
  const uint64_t unit = std::max(huge_page_bytes(thread), kPageBytes);
  const uint64_t end = first + page_of((thread.call.rsi + unit - 1) / unit * unit);
  engine_->forget(first, end);
  Region region;
  region.start = first;
  region.end = end;
  region.prot = prot;
  region.kind = RegionKind::native;
  const bool private_file =
      (flags & MAP_TYPE) == MAP_PRIVATE && !(flags & MAP_ANONYMOUS) && unit == kPageBytes;
  if (private_file) {
    Fd file = take_descriptor(thread.tid, static_cast<int>(thread.call.r8));
    struct stat info {};
    const bool regular =
        file && fstat(file.get(), &info) == 0 && (S_ISREG(info.st_mode) || info.st_rdev == makedev(1, 5));
    auto backing = std::make_shared<BackingFile>();
    backing->fd = std::move(file);
    if (regular && (prot & PROT_WRITE)) {
      region.start = first + backing->pages_from(page_of(thread.call.r9), end - first);
      regions_.erase(first, end);
      if (region.start < end) regions_.insert(region);
      if (region.start == first) return tell_unmapped(first, end);
      const int64_t mapped = map_elastic(address_of(first), (region.start - first) << kPageShift, prot,
                                         MAP_FIXED, std::move(backing), page_of(thread.call.r9));
      if (mapped < 0)
        throw Failure(
            format("cannot make a private file mapping elastic: %s", strerror(static_cast<int>(-mapped))));
      return;
    }
    if (regular) {
      region.kind = RegionKind::replica;
      region.backing = std::move(backing);  // for the day it becomes writable
      region.backing_page = page_of(thread.call.r9);
    }
  }
  regions_.insert(region);
  tell_unmapped(first, end);
  tell_mapped(first, end);
}

Fd Home::take_descriptor(pid_t tid, int fd) {
  const Fd process(
      static_cast<int>(syscall(SYS_pidfd_open, find_thread(tid)->in_group ? application_ : tid, 0)));
  if (!process) return Fd();
  return Fd(static_cast<int>(syscall(SYS_pidfd_getfd, process.get(), fd, 0)));
}

void Home::call_munmap(Thread& thread) {
  const user_regs_struct& r = thread.call;
  const uint64_t bytes = round_up_page(r.rsi);
  if ((r.rdi & (kPageBytes - 1)) != 0 || bytes == 0 || bytes < r.rsi || r.rdi + bytes > kUserSpaceEnd ||
      r.rdi + bytes < r.rdi)
    return answer(thread, -EINVAL);
  answer(thread, unmap_range(page_of(r.rdi), page_of(r.rdi + bytes)));
}

int64_t Home::unmap_range(uint64_t first, uint64_t end) {
  const Region* region = regions_.find(first);
  const bool stays = region != nullptr && region->end >= end && region->kind == RegionKind::elastic &&
                     region->prot == Memory::kVacantProt && !native_call_in_progress();
  if (stays) {
    replaced(first, end);
    memory_.vacate(first, end - first);
    return 0;
  }
  const int64_t result = memory_.unmap(first, end - first);
  if (result == 0) replaced(first, end);
  return result;
}

// One that may map something at an address of its own, in place of what is there.
bool Home::native_call_in_progress() const {
  return std::any_of(threads_.begin(), threads_.end(),
                     [](const auto& each) { return each.second->wants_exit_stop; });
}

// What was there has ended, everywhere.
void Home::replaced(uint64_t first, uint64_t end) {
  engine_->forget(first, end);
  regions_.erase(first, end);
  tell_unmapped(first, end);
}

void Home::call_mremap(Thread& thread) {
  const user_regs_struct& r = thread.call;
  const uint64_t old_bytes = round_up_page(r.rsi), new_bytes = round_up_page(r.rdx);
  const uint64_t first = page_of(r.rdi), new_pages = page_of(new_bytes);
  uint64_t old_pages = page_of(old_bytes);
  const Region* found = regions_.find(first);
  if (found == nullptr || found->kind != RegionKind::elastic) return run_native(thread, true);
  if (pins_->holds_any(first, first + old_pages)) return retry_call(thread);
  const Region region = *found;
  const bool may_move = r.r10 & MREMAP_MAYMOVE, fixed = r.r10 & MREMAP_FIXED;
  if ((r.rdi & (kPageBytes - 1)) != 0 || new_bytes == 0 || old_bytes == 0 || (fixed && !may_move) ||
      (r.r10 & ~7ull) != 0 || ((r.r10 & MREMAP_DONTUNMAP) && (!may_move || old_bytes != new_bytes)))
    return answer(thread, -EINVAL);
  const bool keeps_old = r.r10 & MREMAP_DONTUNMAP;
  uint64_t target = 0;
  if (fixed || keeps_old) target = page_of(r.r8);
  if (fixed &&
      ((r.r8 & (kPageBytes - 1)) != 0 || new_bytes > kUserSpaceEnd || r.r8 > kUserSpaceEnd - new_bytes ||
       (target < first + old_pages && first < target + new_pages)))
    return answer(thread, -EINVAL);
  if (new_pages < old_pages) {  // what lies there goes, be it another mapping or a hole
    const int64_t result = unmap_range(first + new_pages, first + old_pages);
    if (result != 0) return answer(thread, result);
    old_pages = new_pages;
  }
  if (!fixed && !keeps_old && new_pages == old_pages) return answer(thread, static_cast<int64_t>(r.rdi));
  if (first + old_pages > region.end) return answer(thread, -EFAULT);
  const uint64_t more_pages = keeps_old ? new_pages : new_pages - old_pages;
  if (over_limits(more_pages, region.prot, 0) ||
      ((region.prot & PROT_WRITE) != 0 && beyond_backing(more_pages)))
    return answer(thread, -ENOMEM);
  if (!fixed && !keeps_old) {
    const uint64_t grown_from = first + old_pages, grown_to = first + new_pages;
    if (!regions_.overlaps(grown_from, grown_to) &&
        map_elastic(address_of(grown_from), (new_pages - old_pages) << kPageShift, region.prot,
                    MAP_FIXED_NOREPLACE, region.backing,
                    region.backing_page + (grown_from - region.start)) > 0) {
      inherit_advice(region, grown_from, grown_to);
      return answer(thread, static_cast<int64_t>(r.rdi));
    }
    if (!may_move) return answer(thread, -ENOMEM);
  }
  const int64_t at = map_elastic(address_of(target), new_bytes, region.prot, fixed ? MAP_FIXED : 0,
                                 region.backing, region.backing_page + (first - region.start));
  if (at < 0) return answer(thread, at);
  const uint64_t to = page_of(static_cast<uint64_t>(at));
  inherit_advice(region, to, to + new_pages);
  thread.state = ThreadState::held;
  move_mapping(thread, first, std::min(old_pages, new_pages), to, old_pages, first);
}

// A look at the mappings does not tell one file's pages from another's, nor what advice has said of them, nor
// where a file's pages may still be read from.
void Home::after_native_mremap(const Thread& thread, int64_t result) {
  const uint64_t from = page_of(thread.call.rdi);
  const Region* found = regions_.find(from);
  const Region moved = found != nullptr ? *found : Region{};
  const uint64_t to = page_of(static_cast<uint64_t>(result));
  const uint64_t end = to + page_of(round_up_page(thread.call.rdx));
  if (result > 0) replaced(to, end);
  resync_native();
  if (result <= 0 || found == nullptr) return;
  inherit_advice(moved, to, end);
  if (moved.kind != RegionKind::replica) return;
  regions_.update(to, end, [&](Region& region) {
    region.backing = moved.backing;
    region.backing_page = moved.backing_page + (from - moved.start) + (region.start - to);
  });
}

// What grows out of a mapping, or is where it was moved to, is what the mapping is: to a fork, and to advice.
void Home::inherit_advice(const Region& from, uint64_t first, uint64_t end) {
  regions_.update(first, end, [&](Region& region) {
    region.wipe_on_fork = from.wipe_on_fork;
    region.skip_on_fork = from.skip_on_fork;
    region.locked = from.locked;
  });
}

// Copies page by page: what is here or on the disk is renamed, what is elsewhere comes home first, a bounded
// number at a time. `old_pages`: how many there are to move; `whole`: the old mapping's length, which goes at
// the end.
void Home::move_mapping(Thread& thread, uint64_t from, uint64_t old_pages, uint64_t to, uint64_t whole,
                        uint64_t next) {
  std::vector<uint64_t> here, away;
  uint64_t reached = from + old_pages;
  table_.for_each_touched(next, from + old_pages, [&](uint64_t page, PageEntry& e) {
    if (away.size() >= kMoveBatch) {
      reached = std::min(reached, page);
      return;
    }
    if ((e.state() == PageState::resident && !e.offered()) || e.state() == PageState::spilled)
      here.push_back(page);
    else if (e.state() != PageState::untouched)
      away.push_back(page);
  });
  for (const uint64_t page : here)
    if (page < reached) engine_->rename(page, to + (page - from));
  const pid_t tid = thread.tid;
  const auto go_on = [this, tid, from, old_pages, to, whole, reached, away] {
    Thread* moving = find_thread(tid);
    if (moving == nullptr) return;
    for (const uint64_t page : away) engine_->rename(page, to + (page - from));  // while nobody can have it
    release(moving->pinned);
    if (reached < from + old_pages) return move_mapping(*moving, from, old_pages, to, whole, reached);
    if (!(moving->call.r10 & MREMAP_DONTUNMAP)) unmap_range(from, from + whole);
    answer(*moving, static_cast<int64_t>(address_of(to)));
  };
  if (away.empty()) return go_on();
  thread.pinned = away;
  engine_->make_resident(away, true, go_on);
}

}  // namespace elastic
