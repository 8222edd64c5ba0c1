// Making room: which pages go, and where to. Kept ahead of demand by a free reserve, so that a fault seldom
// waits for an eviction. See engine.hpp.
#include <algorithm>
#include <utility>

#include "engine.hpp"

namespace elastic {

namespace {
constexpr size_t kBatch = 32, kSmallBatch = 16;
// As many leave as were asked for, so many at a time, while a thread waits for a page or two: what is in the
// way of one answer is then in the way of no other.
constexpr size_t kTrickle = 8;
constexpr uint64_t kAgeEveryMin = 16, kAgeEveryMax = 64, kAgeRoundMin = 128;  // new pages
constexpr size_t kPassedMax = 4096;  // pages that cannot leave, in one search for victims
constexpr size_t kSparedMax = 4096;  // pages that were used lately, in the same
constexpr uint64_t kReserveMin = 32, kReserveMax = 1024;
// How many pages follow one another to one lender: neighbours stay together, so that prefetch finds them
// there.
constexpr uint64_t kTargetPages = 1024;
constexpr uint64_t kHomeRoomMin = 256;
// Buffers up to here are no burden on the limit: staging, and the queues of two lenders as they usually are.
constexpr size_t kBufferBytesFree = 512 << 10;
constexpr size_t kNotesQueueBytes = 256 << 10;  // of owner notes at once
constexpr int64_t kFetchPagesMax = 256;         // asked for at once when a participant is contracted
}  // namespace

uint64_t Engine::reserve() const { return std::clamp(config_.pages_limit / 32, kReserveMin, kReserveMax); }

// Home promises a limit for pages and the buffers they pass through; a lender's lease speaks of pages alone.
void Engine::count_buffers() {
  if (config_.self != kHome) return;
  const size_t bytes =
      buffer_.size() + lanes_.buffer_bytes() + (counters_.pages_spilled > 0 ? Spill::kBufferBytes : 0);
  pages_in_buffers_ = bytes > kBufferBytesFree ? (bytes - kBufferBytesFree) >> kPageShift : 0;
  // A burst of layout must not leave the program without any room.
  pages_in_buffers_ = std::min(pages_in_buffers_, config_.pages_limit / 2);
}

// One batch a round of the loop, a small one while a thread waits for a page: the answer to its GET, and the
// faults of other threads, must not queue behind a long eviction.
//
// While over the limit, as much leaves as others have pushed here, as far as lanes and disk take it.
void Engine::reclaim_ahead() {
  count_buffers();
  trim_copies(0);
  while (pushed_here_ > kBatch && room() < 0 && evict_batch(kBatch)) {
    pushed_here_ -= kBatch;
    lanes_.flush();  // a queue takes a few batches
  }
  if (room() >= 0 || pushed_here_ <= kBatch) pushed_here_ = 0;
  lower_limit();
  const auto target = static_cast<int64_t>(reserve());
  if (asked_since_trickle_ >= kTrickle && expected_ > 0 && expected_ <= static_cast<int64_t>(kTrickle) &&
      room() > 0) {
    if (room() < target) evict_batch(kTrickle);
    asked_since_trickle_ = 0;
  }
  if (room() < target / 2) reclaiming_ = true;
  if (reclaiming_ && table_.resident() > 0 && room() < target) {
    if (evict_batch(expected_ > 0 && room() > 0 ? kSmallBatch : kBatch))
      loop_.again();
    else
      reclaiming_ = false;
  } else {
    reclaiming_ = false;
  }
  if (!starved_.empty()) on_drained();
  tell_if_room_changed();
}

int64_t Engine::pushers() const {
  return std::max<int64_t>(1, std::count_if(lanes_.all().begin(), lanes_.all().end(),
                                            [](const auto& each) { return each.second->up; }));
}

// A status is up to 100 ms old, and others push by it: when as much has come as a quarter of one's share they
// are told at once, so that they neither overrun this node nor wait for it. So is home when a participant
// that was full has room again, before it takes everything to its disk.
void Engine::tell_if_room_changed() {
  const auto batch = static_cast<int64_t>(kBatch);
  const int64_t much = std::max(batch, room_told_ / (4 * pushers()));
  const bool less = room_told_ > 0 && room() <= room_told_ - much;
  const bool again = config_.self != kHome && room_told_ < batch && room() >= 2 * batch;
  if (less || again) host_.tell_room();
}

StatusPayload Engine::status_for(const Node& to, bool closed, uint32_t threads_running) {
  room_told_ = std::max<int64_t>(0, room());
  const auto share = static_cast<uint64_t>(room_told_ / pushers());
  StatusPayload status;
  status.pages_resident = table_.resident();
  status.pages_limit = closed ? 0 : std::min(config_.pages_limit, table_.resident() + share);
  status.pages_spilled = spill_.slots_used();
  status.threads_running = threads_running;
  status.pages_taken = to.pages_taken;
  return status;
}

bool Engine::make_room(uint64_t pages) {
  while (room() < static_cast<int64_t>(pages))
    if (!evict_batch(kBatch)) break;
  return room() >= static_cast<int64_t>(pages);
}

// Learns which resident pages were used since last time, and forgets the marks (measured: dropping
// translations and looking which come back is the cheapest exact way; about 1.3 µs for each page in use). All
// of memory once for as many new pages as an eighth of it, but little at a time: somebody may wait.
void Engine::age() {
  const uint64_t round = std::max(kAgeRoundMin, table_.resident() / 8);
  const uint64_t chunks = table_.touched_chunks() * placed_since_age_ / round + 1;
  placed_since_age_ = 0;
  std::vector<PageRun> used;
  const auto scan = [&](uint64_t first, uint64_t end) {
    memory_.scan_used(first, end, [&](PageRun run) {
      for (uint64_t page = run.page; page < run.page + run.count; page++)
        if (table_.peek(page).state() == PageState::resident) table_.mark_used(page);
      used.push_back(run);
    });
  };
  uint64_t first = 0, end = 0;  // touched chunks, joined while they follow one another
  table_.scan_on(chunks, [&](uint64_t from, uint64_t to) {
    if (from != end) {
      if (end > first) scan(first, end);
      first = from;
    }
    end = to;
  });
  if (end > first) scan(first, end);
  for (size_t i = 0; i < used.size();) {
    const Region* region = regions_.find(used[i].page);
    if (region == nullptr || region->kind == RegionKind::native) {
      i++;
      continue;
    }
    const uint64_t from = used[i].page;
    uint64_t to = std::min(used[i].page + used[i].count, region->end);
    while (++i < used.size() && used[i].page < region->end)
      to = std::min(used[i].page + used[i].count, region->end);
    if (config_.self == kHome && region->kind != RegionKind::elastic)
      continue;  // native there: not ours to touch
    memory_.forget_use(from, to - from);
  }
}

bool Engine::may_leave(uint64_t page, uint64_t now) const {
  const PageEntry& e = table_.peek(page);
  const Held& held = held_[page % held_.size()];
  return e.state() == PageState::resident && !e.pinned && !e.offered() &&
         (held.page != page || held.until_us <= now);
}

// What was used lately is spared, but not for ever: a batch must not become a walk over all of memory. With a
// page go its idle neighbours, so that what was together is found together by prefetch.
size_t Engine::pick_victims(std::vector<uint64_t>& victims, size_t wanted) {
  const uint64_t now = now_us();
  size_t passed = 0, spared = 0;
  for (uint64_t index = table_.last(); index != 0 && victims.size() < wanted && passed < kPassedMax;) {
    const uint64_t at = std::exchange(index, table_.before(index));
    const uint64_t page = table_.page_at(at);
    if (!may_leave(page, now)) {
      passed++;
      if (table_.peek(page).pinned) table_.pass(at);  // not in the way of the next search
    } else if (!in_order_of_arrival_ && spared < kSparedMax && table_.spare(at)) {
      spared++;
      if (index == 0) index = table_.last();
    } else if (std::find(victims.begin(), victims.end(), page) == victims.end()) {
      victims.push_back(page);
      if (!in_order_of_arrival_) add_idle_neighbours(victims, wanted, page, now);
    }
  }
  return victims.size();
}

void Engine::add_idle_neighbours(std::vector<uint64_t>& victims, size_t wanted, uint64_t page, uint64_t now) {
  for (const int64_t step : {1, -1}) {
    // Page 0 and the last one have a neighbour on one side only.
    for (uint64_t next = page + step; victims.size() < wanted && next < page_of(kUserSpaceEnd);
         next += step) {
      if (!may_leave(next, now) || !table_.is_idle(next)) break;
      if (std::find(victims.begin(), victims.end(), next) != victims.end()) break;
      victims.push_back(next);
    }
  }
}

bool Engine::takes_pages(const Node& node) const {
  if (!node.up || node.left || node.draining || !node.synced) return false;
  return node.index == kHome || (!node.lease.revoked && now_us() <= node.lease.expires_us);
}

bool Engine::node_has_room(const Node& node, size_t pages) const {
  if (!takes_pages(node)) return false;
  const uint64_t limit =
      node.index == kHome ? node.status.pages_limit : std::min(node.lease.pages_max, node.status.pages_limit);
  const uint64_t used = node.status.pages_resident + pages_on_the_way(node);
  return used + pages + (node.index == kHome ? kHomeRoomMin : 0) <= limit;
}

// The lender with most room, kept for a while; null: the disk. `wait`: a lender has room but its queue is
// full.
Node* Engine::choose_target(size_t pages, bool& wait) {
  wait = false;
  Node* best = lanes_.find(last_target_);
  if (best == nullptr || target_left_ < pages || !node_has_room(*best, pages)) {
    best = nullptr;
    uint64_t best_room = 0;
    for (const auto& [index, node] : lanes_.all()) {
      if (!node_has_room(*node, pages)) continue;
      const uint64_t free = node->status.pages_limit - node->status.pages_resident - pages_on_the_way(*node);
      if (best == nullptr || free > best_room) {
        best = node.get();
        best_room = free;
      }
    }
    target_left_ = kTargetPages;
    if (best != nullptr) last_target_ = best->index;
  }
  if (best == nullptr) return nullptr;
  if (!lanes_.bulk_has_room(*best)) {
    wait = true;
    return nullptr;
  }
  target_left_ -= std::min<uint64_t>(target_left_, pages);
  return best;
}

bool Engine::evict_batch(size_t pages) {
  const uint64_t part = std::clamp(table_.resident() / 64, kAgeEveryMin, kAgeEveryMax);
  if (!in_order_of_arrival_ && placed_since_age_ >= part) age();
  std::vector<uint64_t>& victims = victims_;
  victims.clear();
  if (pick_victims(victims, pages) == 0) return false;
  // Copies of read-only file pages just go.
  const auto elastic_end = std::partition(victims.begin(), victims.end(),
                                          [this](uint64_t page) { return !table_.peek(page).replica; });
  for (auto it = elastic_end; it != victims.end(); ++it) {
    memory_.drop(*it, 1);
    table_.remove(*it);
    PageEntry& e = table_.entry(*it);
    e.replica = 0;
    e.set_state(PageState::untouched);
    replicas_--;
  }
  const bool dropped = elastic_end != victims.end();
  victims.erase(elastic_end, victims.end());
  if (victims.empty()) return dropped;
  std::sort(victims.begin(), victims.end());
  const bool gone = offer(victims) || dropped;
  if (victims.empty()) return gone;
  bool wait = false;
  if (Node* target = choose_target(victims.size(), wait)) {
    push(*target, victims, true);
    counters_.pushes++;
    counters_.pages_pushed += victims.size();
    return true;
  }
  if (wait) return gone;
  return spill_pages(victims) || gone;
}

// `pages` ascending or not; all resident. Ownership moves with the frame.
void Engine::push(Node& to, const std::vector<uint64_t>& pages, bool bulk, bool drop_later) {
  std::vector<PageMeta>& metas = metas_;
  metas.assign(pages.size(), {});
  size_t data_pages = 0;
  const bool protect = host_.threads_may_run();
  for (size_t i = 0; i < pages.size();) {
    size_t end = i + 1;
    while (end < pages.size() && pages[end] == pages[end - 1] + 1) end++;
    uint8_t* base = buffer_.data() + (data_pages << kPageShift);
    if (drop_later)
      copy_out(pages[i], base, end - i, protect);  // protected: other processes may write here, too
    else
      memory_.take(pages[i], base, end - i, protect);
    for (size_t k = i; k < end; k++) {
      uint8_t* copied = base + ((k - i) << kPageShift);
      metas[k].page = pages[k];
      fill_meta_of_owned(to, pages[k], metas[k], copied);
      if (metas[k].flags != kPageData) continue;
      uint8_t* target = buffer_.data() + (data_pages << kPageShift);
      if (target != copied) memmove(target, copied, kPageBytes);
      data_pages++;
    }
    i = end;
  }
  to.pages_pushed += static_cast<uint32_t>(pages.size());
  send_pages(to, FrameType::push, metas, data_pages, bulk);
}

bool Engine::fetch_from(uint16_t node) {
  if (expected_ >= kFetchPagesMax / 2) return false;  // a walk over the table: not for every frame
  bool none_left = true, full = false;
  PageRun run{0, 0};
  const auto flush = [&] {
    if (run.count > 0) ask({node, node}, run.page, run.count, run.page);
    run.count = 0;
  };
  table_.for_each_touched_chunk([&](uint64_t first, uint64_t end) {
    for (uint64_t page = first; page < end; page++) {
      const PageEntry& e = table_.peek(page);
      const bool there =
          (e.state() == PageState::remote || e.state() == PageState::in_flight) && e.where == node;
      none_left = none_left && !there;
      if (e.state() != PageState::remote || !there ||
          expected_ + static_cast<int64_t>(run.count) >= kFetchPagesMax)
        continue;
      if (run.count > 0 && (run.page + run.count != page || run.count >= kBatch)) flush();
      if (run.count == 0 && !full && !make_room(kBatch)) {
        full = true;
        room_may_come();  // else the limit gives way: what is not fetched may be lost with the node
      }
      if (full) continue;
      if (run.count == 0) run.page = page;
      run.count++;
    }
    flush();
  });
  return none_left;
}

bool Engine::tell_owned(Node& to) {
  FrameHeader note;
  note.argument = config_.self;
  const auto flush = [&] {
    if (note.count > 0) lanes_.send(to, FrameType::owner, note);
    note.count = 0;
  };
  bool full = false;
  table_.for_each_touched_chunk([&](uint64_t first, uint64_t end) {
    if (full || end <= tell_from_) return;
    if (!lanes_.urgent_has_room(to) || to.urgent->queued_bytes() > kNotesQueueBytes) {
      full = true;
      tell_from_ = first;
      return;
    }
    for (uint64_t page = first; page < end; page++) {
      const PageEntry& e = table_.peek(page);
      if (e.replica || (e.state() != PageState::resident && e.state() != PageState::spilled)) continue;
      if (note.count > 0 &&
          (note.page + note.count != page || note.version != e.version || note.count == kMaxPagesPerFrame))
        flush();
      if (note.count++ == 0) {
        note.page = page;
        note.version = e.version;
      }
    }
    flush();
  });
  if (!full) tell_from_ = 0;
  return !full;
}

uint64_t Engine::on_node_down(Node& node) {
  if (last_target_ == node.index) target_left_ = 0;
  std::erase_if(deferred_, [&](const Deferred& d) { return d.from == node.index; });
  hints_.set(node.index, {});
  if (config_.self == kHome) return 0;  // home decides whether the run can go on without it
  // Home knows where they went, if it gave them away before it left: whoever waits for one asks there. What
  // it had from here home may not have heard of, if the lane between them was cut.
  FrameHeader note;
  note.argument = node.index;
  const auto tell = [&] {
    const bool is_news = note.count > 0 && (!node.left || node.left_with_pages);
    if (Node* home = lanes_.find(kHome); is_news && home != nullptr)
      lanes_.send(*home, FrameType::owner, note);
    note.count = 0;
  };
  std::vector<uint64_t> pages;
  uint64_t asked_as_owner = 0;  // not by a hint: its answer may have been on the way
  table_.for_each_touched(0, page_of(kUserSpaceEnd), [&](uint64_t page, PageEntry& e) {
    const bool asked = e.state() == PageState::in_flight;
    if (asked && e.asked() != node.index && e.known_owner() == node.index) e.set_asked(e.asked(), kHome);
    if (!(asked ? e.asked() == node.index : e.state() == PageState::remote && e.where == node.index)) return;
    if (asked) {
      pages.push_back(page);
      if (e.known_owner() == node.index) asked_as_owner++;
    } else if (note.count > 0 && note.page + note.count == page && note.version == e.version &&
               note.count < kMaxPagesPerFrame) {
      note.count++;
    } else {
      tell();
      note.page = page;
      note.count = 1;
      note.version = e.version;
    }
    const uint16_t known = asked && e.known_owner() != node.index ? e.known_owner() : kHome;
    leave_remote(e);
    note_remote(e, known, e.version);
  });
  tell();
  for (const uint64_t page : pages) {
    memory_.wake(page, 1);
    retry_if_deferred(page);
  }
  return asked_as_owner;
}

}  // namespace elastic
