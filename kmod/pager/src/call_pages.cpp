// See call_pages.hpp.
#include "call_pages.hpp"

#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#include <algorithm>

#include "util.hpp"

namespace elastic {

CallRange range_of(uint64_t address, uint64_t bytes) {
  const uint64_t end = address + std::min(bytes, kUserSpaceEnd);
  if (address >= kUserSpaceEnd) return {};
  return {page_of(address), page_of(round_up_page(std::min(end, kUserSpaceEnd)))};
}

bool drops_contents(int advice) {
  return advice == MADV_DONTNEED || advice == MADV_FREE || advice == kMadvDontneedLocked;
}

bool is_about_paging(int advice) {
  switch (advice) {
    case MADV_NORMAL:
    case MADV_RANDOM:
    case MADV_SEQUENTIAL:
    case MADV_WILLNEED:
    case MADV_MERGEABLE:
    case MADV_UNMERGEABLE:
    case MADV_HUGEPAGE:
    case MADV_NOHUGEPAGE:
    case MADV_DONTDUMP:
    case MADV_DODUMP:
    case MADV_COLD:
    case MADV_PAGEOUT: return true;
    default: return false;
  }
}

std::vector<uint64_t> futex_pages(const user_regs_struct& call) {
  // The fifth argument is a second word in these only; elsewhere it is whatever the register held.
  constexpr uint64_t kTwoWords = 1 << FUTEX_REQUEUE | 1 << FUTEX_CMP_REQUEUE | 1 << FUTEX_WAKE_OP |
                                 1 << FUTEX_WAIT_REQUEUE_PI | 1 << FUTEX_CMP_REQUEUE_PI;
  const uint64_t operation = call.rsi & static_cast<uint64_t>(FUTEX_CMD_MASK) & 63;
  std::vector<uint64_t> pages;
  if (call.rdi < kUserSpaceEnd) pages.push_back(page_of(call.rdi));
  if ((kTwoWords >> operation & 1) != 0 && call.r8 < kUserSpaceEnd) pages.push_back(page_of(call.r8));
  return pages;
}

std::array<CallRange, 2> ended_by(const user_regs_struct& call, uint64_t heap_start, uint64_t heap_end) {
  switch (call.orig_rax) {
    case SYS_munmap:
    case SYS_remap_file_pages: return {range_of(call.rdi, call.rsi)};
    case SYS_madvise:
      if (drops_contents(static_cast<int>(call.rdx))) return {range_of(call.rdi, call.rsi)};
      return {};
    case SYS_mmap:
      if (call.r10 & MAP_FIXED) return {range_of(call.rdi, call.rsi)};
      return {};
    case SYS_mremap:
      if (call.r10 & MREMAP_FIXED) return {range_of(call.rdi, call.rsi), range_of(call.r8, call.rdx)};
      return {range_of(call.rdi, call.rsi)};
    case SYS_brk:
      if (call.rdi < heap_start || call.rdi >= heap_end) return {};
      return {range_of(round_up_page(call.rdi), round_up_page(heap_end) - round_up_page(call.rdi))};
    case SYS_shmat: {
      shmid_ds info{};
      if ((call.rdx & SHM_REMAP) == 0 || shmctl(static_cast<int>(call.rdi), IPC_STAT, &info) != 0) return {};
      return {range_of(call.rsi, info.shm_segsz)};
    }
    default: return {};
  }
}

}  // namespace elastic
