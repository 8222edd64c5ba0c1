// Resource limits of the application that the kernel cannot keep for it, because the mappings are made by the
// pager: RLIMIT_STACK, RLIMIT_AS, RLIMIT_DATA; memory that is more than there can be; and the limit of what
// is here, when it moves. See home.hpp.
//
// Limits: address space and data are counted when a mapping is made or grows, not when protections change.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <cerrno>

#include "home.hpp"

namespace elastic {

namespace {
constexpr uint64_t kStackBytesMin = 1 << 20;
constexpr uint64_t kStackBytesMax = 1ull << 30;  // where the limit is "unlimited"
// The kernel keeps so much free for a stack whose limit is raised later (MIN_GAP of arch/x86/mm/mmap.c).
constexpr uint64_t kStackRoomPages = page_of(128ull << 20);
constexpr uint64_t kStackCountedPages = 34;                // of a stack that has not grown, by far the most
constexpr uint64_t kNodePagesMax = page_of(256ull << 30);  // as far as a lease may grow, and the limit here
constexpr uint64_t kLimitPagesMin = page_of(4 << 20);

bool always_overcommits() {
  const Fd file(open("/proc/sys/vm/overcommit_memory", O_RDONLY | O_CLOEXEC));
  char mode = 0;
  return file && read(file.get(), &mode, 1) == 1 && mode == '1';
}

uint64_t limit_of(pid_t pid, __rlimit_resource resource) {
  rlimit limit{};
  return prlimit(pid, resource, nullptr, &limit) == 0 ? limit.rlim_cur : RLIM_INFINITY;
}
}  // namespace

// New mappings lie below what the stack may need.
void Home::place_stack(const Region& stack) {
  stack_first_ = stack_made_first_ = stack.start;
  stack_end_ = stack.end;
  const uint64_t limit = std::min(limit_of(application_, RLIMIT_STACK), kStackBytesMax);
  const uint64_t room = std::max(page_of(round_up_page(limit)), kStackRoomPages);
  mmap_top_ = std::min(stack_first_, stack_end_ - room) - kStackGapPages;
}

// A mapping that grows by itself cannot be elastic: all that the limit allows is mapped at once, as far as
// there is room. A limit that is lowered later takes nothing away.
void Home::fit_stack() {
  if (stack_end_ == 0) return;
  const uint64_t limit = std::clamp(limit_of(application_, RLIMIT_STACK), kStackBytesMin, kStackBytesMax);
  uint64_t lowest = stack_end_ - page_of(round_up_page(limit));
  regions_.visit(lowest - kStackGapPages, stack_first_,
                 [&](const Region& region) { lowest = std::max(lowest, region.end + kStackGapPages); });
  const Region* stack = regions_.find(stack_first_);
  if (lowest >= stack_first_ || stack == nullptr || stack->kind != RegionKind::elastic) return;
  Region more;
  more.start = lowest;
  more.end = stack_first_;
  more.prot = stack->prot;
  if (const int error = memory_.map(more.start, more.end - more.start, more.prot, true); error != 0)
    throw Failure(format("cannot map the stack at %#lx: %s", address_of(lowest), strerror(-error)));
  regions_.insert(more);
  tell_mapped(more.start, more.end);
  stack_first_ = lowest;
}

// LIMIT: [pages]. Reads that hold pages, or wait for them, were let in by the present one, and so are the
// requests that are just being looked at; it stays high enough for them, and for the largest one there was,
// which the program may make again. Who says it goes on saying it.
void Home::move_limit(uint64_t pages) {
  if (pages < kLimitPagesMin || pages > kNodePagesMax) return;
  uint64_t needed = pins_->pages_needed();
  for (const auto& [tid, thread] : threads_)
    if (thread->submission) needed = std::max<uint64_t>(needed, thread->submission->pages.size());
  engine_->move_limit(std::max(pages, needed * PinnedPages::kPart));
  pins_->set_pages_max(engine_->limit() / PinnedPages::kPart);
}

// Would `pages` more be too many? `replaces`: where they take the place of what is there, or 0.
bool Home::over_limits(uint64_t pages, int prot, uint64_t replaces) const {
  const uint64_t space = limit_of(application_, RLIMIT_AS);
  const uint64_t data = (prot & PROT_WRITE) != 0 ? limit_of(application_, RLIMIT_DATA) : RLIM_INFINITY;
  if (space == RLIM_INFINITY && data == RLIM_INFINITY) return false;
  uint64_t space_pages = kStackCountedPages + pages, data_pages = pages;
  const auto count = [&](const Region& region) {
    if (region.start >= stack_first_ || is_reserved(address_of(region.start), kPageBytes)) return;
    const bool writable = region.kind == RegionKind::elastic && (region.prot & PROT_WRITE) != 0;
    space_pages += region.end - region.start;
    data_pages += writable ? region.end - region.start : 0;
  };
  regions_.visit(0, replaces == 0 ? page_of(kUserSpaceEnd) : replaces, count);
  if (replaces != 0) regions_.visit(replaces + pages, page_of(kUserSpaceEnd), count);
  return space_pages > page_of(space) || data_pages > page_of(data);
}

// The kernel refuses at once what all of the machine's memory and swap could not hold (proc(5),
// overcommit_memory). Here the disk and whoever lends may hold some of it, too.
bool Home::beyond_backing(uint64_t pages) const {
  if (pages <= engine_->limit()) return false;
  struct sysinfo machine {};
  if (sysinfo(&machine) != 0) return false;
  const uint64_t own = page_of((machine.totalram + machine.totalswap) * machine.mem_unit);
  const uint64_t others = page_of(options_.spill_bytes_max) + lanes_->all().size() * kNodePagesMax;
  return pages > own + others && !always_overcommits();
}

}  // namespace elastic
