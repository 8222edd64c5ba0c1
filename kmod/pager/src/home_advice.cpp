// Advice and promises about paging: madvise and the mlock family. What changes contents is done; what is only
// about where pages are is answered as the kernel would, and elastic memory does as it must. See home.hpp.
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>

#include "home.hpp"

namespace elastic {

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

// The promise is what elastic memory does not keep; only calls that the kernel would refuse are refused.
int Home::lock_result(const user_regs_struct& r) const {
  constexpr uint64_t kAllFlags = MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT;
  switch (r.orig_rax) {
    case SYS_mlockall: return r.rdi == 0 || (r.rdi & ~kAllFlags) != 0 || r.rdi == MCL_ONFAULT ? -EINVAL : 0;
    case SYS_munlockall: return 0;
    case SYS_mlock2:
      if ((r.rdx & ~static_cast<uint64_t>(MLOCK_ONFAULT)) != 0) return -EINVAL;
      break;
    default: break;
  }
  const uint64_t start = r.rdi & ~(kPageBytes - 1);
  const uint64_t bytes = round_up_page(r.rsi + (r.rdi - start));
  if (start + bytes < start) return -EINVAL;
  return all_mapped(page_of(start), page_of(start + bytes), PROT_NONE);
}

void Home::call_madvise(Thread& thread) {
  const user_regs_struct& r = thread.call;
  const uint64_t first = page_of(r.rdi), end = page_of(r.rdi + round_up_page(r.rsi));
  bool elastic = false;
  if (r.rsi + kPageBytes - 1 >= r.rsi && (r.rdi & (kPageBytes - 1)) == 0 && end >= first &&
      end <= kUserSpaceEnd >> kPageShift)
    regions_.visit(first, end,
                   [&](const Region& region) { elastic = elastic || region.kind == RegionKind::elastic; });
  if (!elastic) return run_native(thread, false);
  const auto each_elastic = [&](const std::function<void(const Region&)>& act) {
    std::vector<Region> parts;
    regions_.visit(first, end, [&](const Region& region) {
      if (region.kind == RegionKind::elastic) parts.push_back(region);
    });
    for (const Region& part : parts) act(part);
  };
  uint64_t covered = 0;
  regions_.visit(first, end, [&](const Region& region) { covered += region.end - region.start; });
  int64_t result = covered == end - first ? 0 : -ENOMEM;
  switch (static_cast<int>(r.rdx)) {
    case MADV_FREE: {  // may be taken away at any time: now; of files' pages it is refused, from there on
      uint64_t anonymous_end = end;
      regions_.visit(first, end, [&](const Region& region) {
        if (region.kind != RegionKind::elastic || region.backing)
          anonymous_end = std::min(anonymous_end, region.start);
      });
      if (anonymous_end < end) result = -EINVAL;
      each_elastic([&](const Region& part) {
        if (part.start < anonymous_end) engine_->forget(part.start, part.end);
      });
      return answer(thread, result);
    }
    case MADV_DONTNEED:
    case kMadvDontneedLocked:
      each_elastic([this](const Region& part) { engine_->forget(part.start, part.end); });
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
    default: return answer(thread, is_about_paging(static_cast<int>(r.rdx)) ? result : -EINVAL);
  }
}

}  // namespace elastic
