// The operations of the page table port on the production classes: what the pager's engine does around them
// (checks, the table, who waits for what), without owners, lanes or disks.
#include <poll.h>
#include <sys/mman.h>

#include <algorithm>

#include "conformance.hpp"

namespace elastic {

namespace {

constexpr uint64_t kPagesEnd = kUserSpaceEnd >> kPageShift;
constexpr uint64_t kStateUnmapped = 0, kStateUntouched = 1, kStateResident = 2, kStateAway = 3;

int protection(uint64_t access) {
  return access == 0 ? PROT_NONE : access == 1 ? PROT_READ : PROT_READ | PROT_WRITE;
}

}  // namespace

ConformanceTable::ConformanceTable(const std::string& guest_program)
    : guest_(std::make_unique<GuestProcess>(memory_, guest_program)) {}

Refused ConformanceTable::check(PageRange range) const {
  if (guest_->gone()) return Refusal::gone;
  if (range.count < 1 || range.count > kPagesEnd || range.first > kPagesEnd - range.count)
    return Refusal::bad_range;
  return std::nullopt;
}

Refused ConformanceTable::check_mapped(PageRange range) const {
  if (const Refused refused = check(range)) return refused;
  uint64_t mapped = 0;
  regions_.visit(range.first, range.end(),
                 [&](const Region& region) { mapped += region.end - region.start; });
  return mapped == range.count ? Refused{} : Refusal::unmapped;
}

Refused ConformanceTable::check_resident(PageRange range) const {
  if (const Refused refused = check_mapped(range)) return refused;
  for (uint64_t page = range.first; page < range.end(); page++)
    if (table_.peek(page).state() != PageState::resident) return Refusal::not_resident;
  return std::nullopt;
}

Refused ConformanceTable::map(PageRange range, uint64_t access) {
  if (const Refused refused = check(range)) return refused;
  if (regions_.overlaps(range.first, range.end())) return Refusal::already_mapped;
  const int error = memory_.map(range.first, range.count, protection(access), true);
  if (error < 0) return Refusal::already_mapped;
  Region region;
  region.start = range.first;
  region.end = range.end();
  region.prot = protection(access);
  regions_.insert(region);
  return std::nullopt;
}

Refused ConformanceTable::unmap(PageRange range) {
  if (const Refused refused = check(range)) return refused;
  memory_.unmap(range.first, range.count);
  memory_.drop(range.first, range.count);
  regions_.erase(range.first, range.end());
  for (uint64_t page = range.first; page < range.end(); page++) {
    if (table_.peek(page).state() == PageState::untouched) continue;
    if (table_.peek(page).state() == PageState::resident) table_.remove(page);
    table_.entry(page).set_state(PageState::untouched);
    protected_.erase(page);
  }
  std::erase_if(waiting_,
                [&](const auto& item) { return item.first >= range.first && item.first < range.end(); });
  return std::nullopt;
}

Refused ConformanceTable::protect(PageRange range, uint64_t access) {
  if (const Refused refused = check_mapped(range)) return refused;
  if (memory_.protect(range.first, range.count, protection(access)) < 0) return Refusal::unmapped;
  regions_.update(range.first, range.end(), [&](Region& region) { region.prot = protection(access); });
  return std::nullopt;
}

uint64_t ConformanceTable::state(uint64_t page) const {
  if (page >= kPagesEnd || regions_.find(page) == nullptr) return kStateUnmapped;
  switch (table_.peek(page).state()) {
    case PageState::resident: return kStateResident;
    case PageState::remote: return kStateAway;
    default: return kStateUntouched;
  }
}

std::optional<AnnouncedFault> ConformanceTable::next_fault(uint64_t wait_ms) {
  const uint64_t until = now_us() + wait_ms * 1000;
  for (;;) {
    guest_->pump();
    read_faults();
    if (const auto fault = announce()) return fault;
    if (guest_->gone() || now_us() >= until) return std::nullopt;
    pollfd ready{memory_.uffd().fd(), POLLIN, 0};
    poll(&ready, 1, 1);  // short: a thread's stop does not end it
  }
}

void ConformanceTable::read_faults() {
  FaultEvent events[16];
  for (size_t got; (got = memory_.uffd().read_faults(events)) > 0;) {
    for (const FaultEvent& event : std::span(events, got)) {
      if (parked_.contains(event.tid)) continue;
      auto [place, fresh] = waiting_.try_emplace(event.page);
      if (fresh) place->second.fault = event;
      place->second.threads.insert(event.tid);
    }
  }
}

std::optional<AnnouncedFault> ConformanceTable::announce() {
  for (auto& [page, waiting] : waiting_) {
    if (waiting.announced) continue;
    const PageState state = table_.peek(page).state();
    if (state == PageState::resident && !protected_.contains(page)) {
      // The answer came while the fault was on its way.
      wake({page, 1});
      return announce();
    }
    waiting.announced = true;
    faults++;
    const FaultCause cause = state == PageState::resident ? FaultCause::protected_page
                             : state == PageState::remote ? FaultCause::away
                                                          : FaultCause::untouched;
    const pid_t thread = waiting.fault.tid;
    return AnnouncedFault{page, waiting.fault.write, thread, guest_->in_user_mode(thread), cause};
  }
  return std::nullopt;
}

void ConformanceTable::wake(PageRange range) {
  std::erase_if(waiting_,
                [&](const auto& item) { return item.first >= range.first && item.first < range.end(); });
  memory_.wake(range.first, range.count);
}

Refused ConformanceTable::place(PageRange range, std::span<const uint8_t> contents, bool zero,
                                bool write_protected) {
  if (const Refused refused = check_mapped(range)) return refused;
  if (!zero && contents.size() != range.count * kPageBytes) return Refusal::bad_range;
  for (uint64_t page = range.first; page < range.end(); page++)
    if (table_.peek(page).state() == PageState::resident) return Refusal::already_resident;
  const std::vector<uint8_t> zeros(zero ? range.count * kPageBytes : 0);
  const uint8_t* data = zero ? zeros.data() : contents.data();
  for (uint64_t i = 0; write_protected && i < range.count; i++) {
    uint64_t done = 0;
    memory_.uffd().copy(range.first + i, data + i * kPageBytes, 1, done, true);
    protected_.insert(range.first + i);
  }
  if (!write_protected && zero) memory_.place_zero(range.first, range.count);
  if (!write_protected && !zero) memory_.place(range.first, data, range.count);
  for (uint64_t page = range.first; page < range.end(); page++) table_.insert_front(page);
  pages_placed += range.count;
  wake(range);
  return std::nullopt;
}

Refused ConformanceTable::allow_write(PageRange range) {
  if (const Refused refused = check_resident(range)) return refused;
  for (uint64_t page = range.first; page < range.end(); page++) protected_.erase(page);
  memory_.unprotect(range.first, range.count);
  wake(range);
  return std::nullopt;
}

Refused ConformanceTable::evict(PageRange range, std::string& contents) {
  if (const Refused refused = check_resident(range)) return refused;
  contents.resize(range.count * kPageBytes);
  memory_.take(range.first, reinterpret_cast<uint8_t*>(contents.data()), range.count, true);
  for (uint64_t page = range.first; page < range.end(); page++) {
    table_.remove(page);
    table_.entry(page).set_state(PageState::remote);
    protected_.erase(page);
  }
  pages_evicted += range.count;
  wake(range);  // who waited for the protection now faults on a page that is away
  return std::nullopt;
}

Refused ConformanceTable::scan_accessed(PageRange range, std::vector<uint64_t>& found) {
  if (const Refused refused = check(range)) return refused;
  memory_.scan_used(range.first, range.end(), [&](PageRun run) {
    for (uint64_t page = run.page; page < run.page + run.count; page++)
      if (table_.peek(page).state() == PageState::resident) found.push_back(page);
  });
  regions_.visit(range.first, range.end(),
                 [&](const Region& region) { memory_.forget_use(region.start, region.end - region.start); });
  return std::nullopt;
}

Refused ConformanceTable::scan_written(PageRange range, std::vector<uint64_t>& found) {
  if (const Refused refused = check(range)) return refused;
  // The scan also reports empty entries: what counts is what the table says is here.
  memory_.scan_written(range.first, range.end(), [&](PageRun run) {
    for (uint64_t page = run.page; page < run.page + run.count; page++)
      if (table_.peek(page).state() == PageState::resident) found.push_back(page);
  });
  for (const uint64_t page : found) {
    memory_.protect_written(page, 1);
    protected_.insert(page);
  }
  return std::nullopt;
}

Refused ConformanceTable::park(pid_t thread, std::vector<uint8_t>& out) {
  if (!guest_->has(thread)) return Refusal::no_such_thread;
  read_faults();
  const auto waiting = std::find_if(waiting_.begin(), waiting_.end(),
                                    [&](const auto& item) { return item.second.threads.contains(thread); });
  Context context;
  if (waiting == waiting_.end() || !guest_->in_user_mode(thread) || !guest_->park(thread, context))
    return Refusal::not_in_user_mode;
  parked_.insert(thread);
  waiting->second.threads.erase(thread);
  if (waiting->second.threads.empty()) waiting_.erase(waiting);
  out.resize(kContextBytesMax);
  out.resize(context.encode(out.data()));
  return std::nullopt;
}

Refused ConformanceTable::resume_with(pid_t thread, std::span<const uint8_t> bytes) {
  if (!guest_->has(thread)) return Refusal::no_such_thread;
  if (!parked_.contains(thread)) return Refusal::not_parked;
  Context context;
  if (!context.decode(bytes)) return Refusal::bad_context;
  parked_.erase(thread);
  if (!set_context(thread, context) || !resume(thread)) return Refusal::gone;
  return std::nullopt;
}

}  // namespace elastic
