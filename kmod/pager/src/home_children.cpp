// Children of a fork while they have not had all their pages: their faults, and what is done before the
// memory they wait for changes or ends. See snapshot.hpp; their calls are in home_child_calls.cpp.
#include <algorithm>
#include <cstdio>

#include "home.hpp"
#include "proc_text.hpp"

namespace elastic {

namespace {
constexpr size_t kFetchBatch = 32;
constexpr size_t kDeliverBatch = 256;  // at once: lanes and the program's faults are served in between
constexpr uint64_t kRetryUs = 1000;
constexpr uint64_t kFilledMax = 1024;  // pages of files: the data of a program and its libraries

uint64_t available_bytes() {
  ProcLines lines("/proc/meminfo");
  uint64_t kilobytes = 0;
  while (const char* line = lines.next())
    if (sscanf(line, "MemAvailable: %lu kB", &kilobytes) == 1) break;
  return kilobytes * 1024;
}

}  // namespace

bool Home::is_here(uint64_t page) const {
  const PageState state = table_.peek(page).state();
  return state == PageState::resident || state == PageState::spilled;
}

// The page, which is here, to the snapshot or to all.
void Home::deliver(uint32_t id, uint64_t page) {
  alignas(kPageBytes) uint8_t bytes[kPageBytes];
  engine_->read_copy(page, bytes);
  snapshots_.give(id, page, bytes);
}

void Home::before_change(uint64_t page) {
  table_.entry(page).shared = 0;
  if (!snapshots_.wants(page)) return;
  if (is_here(page)) return deliver(Snapshots::kAll, page);
  give_up(Snapshots::kAll, page);
}

// For pages that the kernel is about to write. One that nobody wants may be protected, too, if it came back
// together with one that is.
void Home::unshare(uint64_t page) {
  PageEntry& e = table_.entry(page);
  if (e.shared) before_change(page);
  if (e.copy_at() != 0) e.left_at = 0;
  memory_.unprotect(page, 1);
}

void Home::give_up(uint32_t id, uint64_t page) {
  const size_t tasks = snapshots_.kill_wanting(id, page);
  control_->log(LogLevel::warning,
                format("%zu tasks of children were ended: page %#lx of their memory is lost", tasks, page));
}

// Pending pages of [first, end): at once what is here, what is elsewhere when it has come home; then `then`.
void Home::deliver_range(uint32_t id, uint64_t first, uint64_t end, std::function<void()> then) {
  std::vector<uint64_t> away;
  uint64_t page = snapshots_.next(id, first, end);
  for (size_t seen = 0; page < end && away.size() < kFetchBatch && seen < kDeliverBatch; seen++) {
    const Region* region = regions_.find(page);
    if (is_here(page))
      deliver(id, page);
    else if (region != nullptr && region->kind == RegionKind::elastic)
      away.push_back(page);
    else
      give_up(id, page);
    page = snapshots_.next(id, page + 1, end);
  }
  if (away.empty() && page < end) {
    loop_.at(0, [this, id, page, end, then = std::move(then)] { deliver_range(id, page, end, then); });
    return;
  }
  if (away.empty()) return then();
  engine_->make_resident(away, true, [this, id, away, end, then]() mutable {
    const uint64_t from = away.front();
    for (const uint64_t page : away)
      if (is_here(page)) deliver(id, page);
    release(away);
    deliver_range(id, from, end, std::move(then));
  });
}

// What has nothing pending and is not in memory: the file's bytes or zeros.
void Home::fill(Snapshot& snapshot, uint64_t page) {
  alignas(kPageBytes) uint8_t bytes[kPageBytes] = {};
  const Region* region = snapshot.regions.find(page);
  if (region != nullptr) region->read_backing(page, bytes);
  Snapshots::place(snapshot, page, bytes);
}

// Untouched pages of files in [first, end), for when the userfaultfd will not report them any more.
void Home::fill_backed(Snapshot& snapshot, uint64_t first, uint64_t end) {
  std::vector<Region> backed;
  snapshot.regions.visit(first, end, [&](const Region& region) {
    if (region.backing) backed.push_back(region);
  });
  for (const Region& region : backed)
    for (uint64_t page = region.start; page < region.end; page++)
      if (!snapshot.pending.has(page)) fill(snapshot, page);
}

void Home::on_child_faults(uint32_t id) {
  FaultEvent events[32];
  Snapshot* snapshot = snapshots_.find(id);
  const size_t count = snapshot->uffd.read_faults(events);
  for (size_t i = 0; i < count && (snapshot = snapshots_.find(id)) != nullptr; i++)
    on_child_fault(*snapshot, events[i].page);
}

// With the page come as many of its pending neighbours as prefetch says.
void Home::on_child_fault(Snapshot& snapshot, uint64_t page) {
  if (!snapshot.pending.has(page)) return fill(snapshot, page);
  const uint32_t id = snapshot.id;
  const Prefetch::Plan plan = snapshot.prefetch.on_fault(page);
  uint64_t count = 1;
  const auto at = [&](uint64_t index) { return plan.down ? page - index : page + index; };
  while (count < plan.count && snapshot.pending.has(at(count))) count++;
  snapshot.prefetch.fetched(plan.down ? at(count - 1) : page, count);
  if (!is_here(page)) {
    const uint64_t lowest = std::min(page, at(count - 1));
    const auto demanded = [this, id, lowest, count] { deliver_range(id, lowest, lowest + count, [] {}); };
    return deliver_range(id, page, page + 1, demanded);
  }
  for (uint64_t i = 0; i < count && is_here(at(i)); i++) deliver(id, at(i));
}

void Home::drop_snapshot(std::unique_ptr<Snapshot> snapshot) {
  if (!snapshot) return;
  loop_.forget(snapshot->uffd.fd());
  if (snapshot->kept_as != 0) holder_.drop(snapshot->kept_as);
}

// After each round: snapshots that lack nothing but a few pages of files get these and go, and with the last
// pending page all protection.
void Home::tidy_snapshots() {
  std::vector<uint32_t> complete;
  for (const auto& [id, snapshot] : snapshots_.all())
    if (snapshot->pending.empty() && snapshot->backed_pages <= kFilledMax && !snapshot->forking)
      complete.push_back(id);
  for (const uint32_t id : complete) {
    fill_backed(*snapshots_.find(id), 0, page_of(kUserSpaceEnd));
    drop_snapshot(snapshots_.remove(id));
  }
  if (!sharing_ || snapshots_.pending() > 0) return;
  sharing_ = false;
  PageRun run{0, 0};
  const auto unprotect = [&] {
    if (run.count > 0) memory_.unprotect(run.page, run.count);
    run.count = 0;
  };
  table_.for_each_touched(0, page_of(kUserSpaceEnd), [&](uint64_t page, PageEntry& e) {
    if (!e.shared) return;
    e.shared = 0;
    if (e.state() != PageState::resident || e.copy_at() != 0) return;
    if (run.count == 0 || run.page + run.count != page) {
      unprotect();
      run.page = page;
    }
    run.count++;
  });
  unprotect();
}

// The application's memory ends, by its exec or its end: whoever has pages of it pending gets them now, and
// at its end (`files`) untouched pages of files, too, because nobody will serve faults any more.
void Home::hand_over_memory(bool files, std::function<void()> then) {
  const uint64_t bytes = (snapshots_.pending() + (files ? snapshots_.backed() : 0)) * kPageBytes;
  if (bytes > 0 && bytes > available_bytes() / 10 * 8) {
    control_->log(
        LogLevel::warning,
        "children were ended: what they have still to get of the program's memory, which has ended, "
        "does not fit on this machine");
    snapshots_.kill_all();
  }
  deliver_range(Snapshots::kAll, 0, page_of(kUserSpaceEnd), [this, files, then = std::move(then)] {
    if (snapshots_.pending() > 0 || snapshots_.forking()) {  // or has been, meanwhile
      loop_.at(now_us() + kRetryUs, [this, files, then] { hand_over_memory(files, then); });
      return;
    }
    std::vector<uint32_t> ids;
    for (const auto& [id, snapshot] : snapshots_.all()) ids.push_back(id);
    for (const uint32_t id : files ? ids : std::vector<uint32_t>{}) {
      fill_backed(*snapshots_.find(id), 0, page_of(kUserSpaceEnd));
      drop_snapshot(snapshots_.remove(id));
    }
    then();
  });
}

}  // namespace elastic
