// Faults: what happens between "a thread touched a page" and "it runs on". See engine.hpp for the rules.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "engine.hpp"

namespace elastic {

namespace {
// First touches are filled ahead at most so far: filling what is never used costs memory here.
constexpr uint64_t kZeroAheadMax = 16;
constexpr uint64_t kFilePagesAhead = 16;
constexpr size_t kStarvedMax = 4096;
// Longer than a status is old and a disk is left alone after a failed write: whoever has room has said so.
constexpr uint64_t kStarvedUs = 2'000'000;
}  // namespace

Engine::Engine(Loop& loop, Memory& memory, PageTable& table, RegionMap& regions, Lanes& lanes, Spill& spill,
               EngineHost& host, EngineConfig config, Counters& counters)
    : loop_(loop),
      memory_(memory),
      table_(table),
      regions_(regions),
      lanes_(lanes),
      spill_(spill),
      host_(host),
      config_(config),
      limit_wanted_(config.pages_limit),
      limit_most_(config.pages_limit),
      counters_(counters),
      buffer_(Prefetch::kWindowMax * kPageBytes) {
  const char* order = getenv("ELASTICOS_EVICT");
  in_order_of_arrival_ = order != nullptr && strcmp(order, "fifo") == 0;
  // What reclaiming and the faults it serves have to say leaves in the same round.
  loop_.after_each_round([this] {
    reclaim_ahead();
    lanes_.flush();
  });
}

void Engine::on_fault(const FaultEvent& fault) {
  PageEntry& e = table_.entry(fault.page);
  switch (e.state()) {
    case PageState::resident:  // came while the event was queued, or is protected by a scan
      if (fault.write_protected) {
        if (e.offered()) return offer_waiters_.push_back(fault.page);
        if (e.copy_at() != 0) on_write_to_clean(e);
        if (e.shared) host_.before_change(fault.page);
        memory_.unprotect(fault.page, 1);
      } else {
        memory_.wake(fault.page, 1);
      }
      return;
    case PageState::in_flight:
      e.prefetched = 0;  // somebody waits for it now
      note_wait(fault.page);
      return;
    case PageState::copied: discard_copy(fault.page); [[fallthrough]];
    case PageState::remote: return fault_remote(fault, e);
    case PageState::spilled:
      if (!make_room(1)) return starve(fault);
      host_.on_local_fault(fault);
      return fault_spilled(fault.page);
    case PageState::untouched: return fault_untouched(fault, e);
  }
}

// The contiguous run from the plan's page in its direction whose pages all satisfy `same`; `first` is its
// lowest page.
template <typename Same>
uint64_t Engine::run_length(Prefetch::Plan plan, const Same& same, uint64_t& first) {
  const uint64_t page = plan.page;
  uint64_t count = 1;
  const Region* region = regions_.find(page);
  const uint64_t low = region ? region->start : page, high = region ? region->end : page + 1;
  if (plan.down) {
    while (count < plan.count && page - count >= low && page >= count && same(page - count)) count++;
    first = page - (count - 1);
  } else {
    while (count < plan.count && page + count < high && same(page + count)) count++;
    first = page;
  }
  return count;
}

void Engine::fault_untouched(const FaultEvent& fault, PageEntry& e) {
  const uint64_t page = fault.page;
  const Region* region = regions_.find(page);
  if (region == nullptr) {  // unmapped meanwhile: the thread finds out by itself
    memory_.wake(page, 1);
    return check_waiters(page);
  }
  if (region->kind == RegionKind::replica) {
    if (!make_room(1)) return starve(fault);
    return ask_file_pages(page);
  }
  if (config_.self != kHome) return fault_remote(fault, e);
  if (!make_room(1)) return starve(fault);
  host_.on_local_fault(fault);
  counters_.first_touches++;
  Prefetch::Plan plan = prefetch_.on_fault(page);
  plan.count = std::min({plan.count, plenty() ? Prefetch::kWindowMax : kZeroAheadMax,
                         static_cast<uint64_t>(std::max<int64_t>(1, room()))});
  if (const PageRun block = fresh_block(page, *region, plan.count); block.count > 0) {
    prefetch_.fetched(block.page, block.count);
    return fill_fresh(block, page);
  }
  uint64_t first = page;
  const uint64_t count = run_length(
      plan, [this](uint64_t p) { return table_.peek(p).state() == PageState::untouched; }, first);
  prefetch_.fetched(first, count);
  fill_run(first, count, page, region->backing ? region : nullptr);
}

void Engine::fault_spilled(uint64_t page) {
  Prefetch::Plan plan = prefetch_.on_fault(page);
  plan.count = std::min(plan.count, static_cast<uint64_t>(std::max<int64_t>(1, room())));
  uint64_t first = page;
  const uint64_t count = run_length(
      plan, [this](uint64_t p) { return table_.peek(p).state() == PageState::spilled; }, first);
  prefetch_.fetched(first, count);
  counters_.unspills++;
  counters_.pages_unspilled += count;
  std::array<uint32_t, Prefetch::kWindowMax> slots;
  for (uint64_t i = 0; i < count; i++) slots[i] = table_.peek(first + i).where;
  // Pages whose write has not finished come from its buffer, the others with as few reads as their slots
  // allow.
  for (uint64_t i = 0; i < count;) {
    if (const uint8_t* buffered = spill_.buffered_page(slots[i])) {
      memcpy(buffer_.data() + (i << kPageShift), buffered, kPageBytes);
      i++;
      continue;
    }
    uint64_t end = i + 1;
    while (end < count && spill_.buffered_page(slots[end]) == nullptr) end++;
    if (!spill_.read_now({&slots[i], end - i}, buffer_.data() + (i << kPageShift)))
      throw Failure("reading the spill file failed: its disk returned an error");
    i = end;
  }
  place(first, buffer_.data(), count);
  for (uint64_t i = 0; i < count; i++) {
    spill_.free_slot(slots[i]);
    table_.insert_front(first + i, first + i == page);
  }
  for (uint64_t i = 0; i < count; i++) {
    check_waiters(first + i);
    if (table_.peek(first + i).deferred) retry_deferred(first + i);
  }
  placed_since_age_ += count;
  note_peak();
}

// What comes back here from elsewhere or the disk: write-protected where somebody has to be told of a change.
void Engine::place(uint64_t first, const uint8_t* data, uint64_t count, bool clean) {
  bool shared = clean;
  for (uint64_t page = first; page < first + count; page++) shared = shared || table_.peek(page).shared;
  memory_.place(first, data, count, shared);
}

void Engine::fault_remote(const FaultEvent& fault, PageEntry& e) {
  const uint64_t page = fault.page;
  const Asking whom = whom_to_ask(page, e);
  const uint16_t owner = whom.asked;
  Node* node = lanes_.find(owner);
  if (node == nullptr || !node->up) {
    if (config_.self == kHome) throw Failure("a page belongs to a node that is gone");
    host_.want_lane(owner);
    return host_.must_go_home(page);
  }
  if (!whom.by_hint() && host_.leave_for(fault, owner)) return;  // a thread goes by what is known
  if (!make_room(1)) return starve(fault);
  Prefetch::Plan plan = prefetch_.on_fault(page);
  plan.count = std::min(plan.count, static_cast<uint64_t>(std::max<int64_t>(1, room())));
  uint64_t first = page;
  const PageState state = e.state();
  const uint64_t count = run_length(
      plan,
      [&](uint64_t p) {
        const PageEntry& other = table_.peek(p);
        return other.state() == state && whom_to_ask(p, other) == whom;
      },
      first);
  prefetch_.fetched(first, count);
  ask(whom, first, count, page, wants_copies(fault));
}

void Engine::ask(Asking whom, uint64_t first, uint64_t count, uint64_t demand, bool keep) {
  Node* node = lanes_.find(whom.asked);
  FrameHeader header;
  header.flags = (keep ? kKeepsCopies : 0) | (whom.by_hint() ? kByHint : 0);
  header.page = first;
  header.count = static_cast<uint32_t>(count);
  header.version = table_.peek(demand).version;
  header.argument = static_cast<uint32_t>(demand - first);
  for (uint64_t page = first; page < first + count; page++) {
    PageEntry& e = table_.entry(page);
    e.set_state(PageState::in_flight);
    e.set_asked(whom.asked, whom.known);
    e.prefetched = page != demand;
  }
  note_wait(demand, now_ns());
  expected_ += static_cast<int64_t>(count);
  asked_since_trickle_ += count;
  counters_.pulls++;
  lanes_.send(*node, FrameType::get, header);
}

void Engine::ask_file_pages(uint64_t page) {
  Node* home = lanes_.find(kHome);
  if (home == nullptr) return;
  const Prefetch::Plan plan{
      page, std::min<uint64_t>(kFilePagesAhead, static_cast<uint64_t>(std::max<int64_t>(1, room()))), false};
  uint64_t first = page;
  const uint64_t count = run_length(
      plan, [this](uint64_t p) { return table_.peek(p).state() == PageState::untouched; }, first);
  for (uint64_t p = first; p < first + count; p++) {
    PageEntry& e = table_.entry(p);
    e.set_state(PageState::in_flight);
    e.where = kHome;
  }
  expected_ += static_cast<int64_t>(count);
  FrameHeader header;
  header.page = first;
  header.count = static_cast<uint32_t>(count);
  lanes_.send(*home, FrameType::file_get, header);
}

// No memory at this moment: the thread stays in its fault until a lane or the spill writer has drained, or
// somebody has room again. Participants do not wait for that, the thread can go home. One with a signal
// pending, in a call that cannot be interrupted, faults again and again meanwhile.
void Engine::starve(const FaultEvent& fault) {
  const auto waits = [&](const FaultEvent& other) { return other.page == fault.page; };
  if (std::any_of(starved_.begin(), starved_.end(), waits)) return;
  if (starved_.empty()) wait_for_room();
  if (!room_may_come() || starved_.size() >= kStarvedMax) return host_.out_of_room(fault.page);
  starved_.push_back(fault);
}

// Not again for the next step of a limit that yields: nobody had any room a moment before.
void Engine::wait_for_room() {
  const uint64_t now = now_us();
  starved_until_us_ = now + (config_.self == kHome && now >= yielded_until_us_ ? kStarvedUs : 0);
}

bool Engine::room_may_come() {
  if (spill_.buffers_busy() || unconfirmed_ > 0 || expected_ > 0 || offered_ > 0) return true;
  for (const auto& [index, node] : lanes_.all())
    if (node->up && (!lanes_.bulk_has_room(*node) || !lanes_.urgent_has_room(*node))) return true;
  std::vector<uint64_t> victims;
  if (table_.resident() > 0 && pick_victims(victims, 1) == 0) return true;  // all just came, and are held
  return now_us() < starved_until_us_ || yield_limit();
}

void Engine::on_drained() {
  for (size_t left = starved_.size(); left > 0 && !starved_.empty(); left--) {
    const FaultEvent fault = starved_.front();
    if (!make_room(1)) {
      if (room_may_come()) return;
      for (const FaultEvent& each : std::exchange(starved_, {})) host_.out_of_room(each.page);
      return;
    }
    starved_.pop_front();
    wait_for_room();
    on_fault(fault);
  }
}

bool Engine::bring(uint64_t page) {
  PageEntry& e = table_.entry(page);
  if (e.state() == PageState::resident) {
    e.watched = e.offered();
    return !e.watched;
  }
  if (e.state() == PageState::in_flight) {
    e.prefetched = 0;
    e.watched = 1;
    note_wait(page);
    return false;
  }
  FaultEvent fault;
  fault.page = page;
  fault.tid = 0;
  fault.write = true;
  e.watched = 1;
  on_fault(fault);
  return table_.peek(page).state() == PageState::resident;
}

void Engine::make_resident(std::vector<uint64_t> pages, bool pin, std::function<void()> done) {
  Waiter waiter;
  for (const uint64_t page : pages) {
    const Region* region = regions_.find(page);
    if (region == nullptr || region->kind != RegionKind::elastic) continue;
    PageEntry& e = table_.entry(page);
    if (pin) e.pinned = 1;
    if (pin && e.copy_at() != 0 && !e.offered()) {
      on_write_to_clean(e);
      if (!e.shared) memory_.unprotect(page, 1);
    }
    if (!bring(page)) waiter.missing.push_back(page);
  }
  if (waiter.missing.empty()) return done();
  waiter.done = std::move(done);
  waiters_.push_back(std::move(waiter));
}

void Engine::unpin(uint64_t page) {
  PageEntry& e = table_.entry(page);
  e.pinned = 0;
  if (e.deferred) retry_deferred(page);
}

void Engine::check_waiters(uint64_t page) {
  PageEntry& e = table_.entry(page);
  if (!e.watched) return;
  e.watched = 0;
  std::vector<std::function<void()>> ready;
  for (auto it = waiters_.begin(); it != waiters_.end();) {
    std::erase(it->missing, page);
    if (it->missing.empty()) {
      ready.push_back(std::move(it->done));
      it = waiters_.erase(it);
    } else {
      ++it;
    }
  }
  // Not inside the caller's loop over a frame: a continuation may fault, drop or rename pages.
  for (auto& done : ready) loop_.at(0, std::move(done));
}

}  // namespace elastic
