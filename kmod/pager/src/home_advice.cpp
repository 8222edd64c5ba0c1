// Advice and promises about paging: madvise and the mlock family. What changes contents is done; what is only
// about where pages are is answered as the kernel would, and elastic memory does as it must. See home.hpp.
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>

#include "home.hpp"

namespace elastic {

namespace {

// Advice that is refused of locked memory.
bool spares_locked(int advice) {
  return advice == MADV_DONTNEED || advice == MADV_FREE || advice == MADV_COLD || advice == MADV_PAGEOUT;
}

}  // namespace

// 0, or the error of the first page that is not mapped, or not with `prot`.
int Home::all_mapped(uint64_t first, uint64_t end, int prot) const {
  int error = 0;
  uint64_t at = first;
  regions_.visit(first, end, [&](const Region& region) {
    if (error == 0 && region.start != at) error = -ENOMEM;
    if (error == 0 && (region.prot & prot) != prot) error = -EINVAL;
    at = region.end;
  });
  return error == 0 && at < end ? -ENOMEM : error;
}

// The promise is what elastic memory does not keep; only calls that the kernel would refuse are refused. What
// is locked is remembered, because advice does not take its contents away.
int Home::lock_memory(const user_regs_struct& r) {
  constexpr uint64_t kAllFlags = MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT;
  const bool locks = r.orig_rax != SYS_munlock && r.orig_rax != SYS_munlockall;
  const auto mark = [&](uint64_t first, uint64_t end) {
    regions_.update(first, end, [&](Region& region) { region.locked = locks; });
  };
  if (r.orig_rax == SYS_mlockall || r.orig_rax == SYS_munlockall) {
    if (locks && (r.rdi == 0 || (r.rdi & ~kAllFlags) != 0 || r.rdi == MCL_ONFAULT)) return -EINVAL;
    locks_new_ = locks && (r.rdi & MCL_FUTURE) != 0;
    if (!locks || (r.rdi & MCL_CURRENT) != 0) mark(0, page_of(kUserSpaceEnd));
    return 0;
  }
  if (r.orig_rax == SYS_mlock2 && (r.rdx & ~static_cast<uint64_t>(MLOCK_ONFAULT)) != 0) return -EINVAL;
  const uint64_t start = r.rdi & ~(kPageBytes - 1);
  const uint64_t bytes = round_up_page(r.rsi + (r.rdi - start));
  if (bytes == 0) return 0;
  if (start + bytes < start) return -EINVAL;
  uint64_t mapped_end = page_of(start);
  bool brought = true;
  const bool brings = locks && (r.orig_rax == SYS_mlock || r.rdx == 0);
  regions_.visit(page_of(start), page_of(start + bytes), [&](const Region& region) {
    if (region.start != mapped_end) return;
    mapped_end = region.end;
    if (brings && region.prot == PROT_NONE) brought = false;
  });
  mark(page_of(start), mapped_end);
  return mapped_end < page_of(start + bytes) || !brought ? -ENOMEM : 0;
}

void Home::call_madvise(Thread& thread) {
  const user_regs_struct& r = thread.call;
  const uint64_t first = page_of(r.rdi), end = page_of(r.rdi + round_up_page(r.rsi));
  const auto advice = static_cast<int>(r.rdx);
  bool ours = false;
  if (r.rsi + kPageBytes - 1 >= r.rsi && (r.rdi & (kPageBytes - 1)) == 0 && end >= first &&
      end <= kUserSpaceEnd >> kPageShift)
    regions_.visit(first, end, [&](const Region& region) {
      ours = ours || region.kind == RegionKind::elastic || (region.locked && spares_locked(advice));
    });
  if (!ours) return run_native(thread, false);
  const auto each_elastic = [&](const std::function<void(const Region&)>& act) {
    std::vector<Region> parts;
    regions_.visit(first, end, [&](const Region& region) {
      if (region.kind == RegionKind::elastic) parts.push_back(region);
    });
    for (const Region& part : parts) act(part);
  };
  uint64_t covered = 0, allowed_end = end;  // what the kernel refuses it refuses from there on
  regions_.visit(first, end, [&](const Region& region) {
    covered += region.end - region.start;
    const bool of_file = region.kind != RegionKind::elastic || region.backing || region.file;
    if ((region.locked && spares_locked(advice)) || (of_file && advice == MADV_FREE))
      allowed_end = std::min(allowed_end, region.start);
  });
  const int64_t result = allowed_end < end ? -EINVAL : covered < end - first ? -ENOMEM : 0;
  switch (advice) {
    case MADV_FREE:  // may be taken away at any time: now
    case MADV_DONTNEED:
    case kMadvDontneedLocked:
      each_elastic([&](const Region& part) {
        if (part.start < allowed_end) engine_->forget(part.start, part.end);
      });
      return answer(thread, result);
    case MADV_POPULATE_READ: return answer(thread, all_mapped(first, end, PROT_READ));
    case MADV_POPULATE_WRITE: return answer(thread, all_mapped(first, end, PROT_WRITE));
    case MADV_DONTFORK:
    case MADV_DOFORK:
      regions_.update(first, end, [&](Region& region) { region.skip_on_fork = r.rdx == MADV_DONTFORK; });
      return answer(thread, result);
    case MADV_WIPEONFORK:
    case MADV_KEEPONFORK:
      regions_.update(first, end, [&](Region& region) { region.wipe_on_fork = r.rdx == MADV_WIPEONFORK; });
      return answer(thread, result);
    default: return answer(thread, is_about_paging(advice) ? result : -EINVAL);
  }
}

}  // namespace elastic
