// Answers to other nodes' GETs. See engine.hpp for the rules.
#include <algorithm>

#include "engine.hpp"

namespace elastic {

namespace {
constexpr size_t kDeferredMax = 4096;
constexpr uint64_t kUrgentPagesMax = 16;  // larger answers take the bulk connection
// docs/architecture.md, "Ownership": a page just received is held from 30 µs, doubling while the same nodes
// fight.
constexpr uint64_t kHoldUs = 30, kHoldMaxUs = 10'000, kFightUs = 20'000;
const uint8_t kZeros[kPageBytes] = {};

bool is_zero(const uint8_t* page) { return memcmp(page, kZeros, kPageBytes) == 0; }
}  // namespace

bool Engine::on_frame(Node& node, const Frame& frame) {
  switch (static_cast<FrameType>(frame.header.type)) {
    case FrameType::get: serve_get(node, frame.header); return true;
    case FrameType::pages: on_pages(node, frame, true); return true;
    case FrameType::push:
      node.pages_taken += frame.header.count;
      pushed_here_ += frame.header.count;
      on_pages(node, frame, false);
      return true;
    case FrameType::file_pages: on_file_pages(frame); return true;
    case FrameType::drop: apply_drop(frame.header); return true;
    case FrameType::owner: on_owner_note(node.index, frame.header); return true;
    default: return false;
  }
}

void Engine::serve_get(Node& node, const FrameHeader& header) {
  if (header.count == 0 || header.count > Prefetch::kWindowMax || header.argument >= header.count) return;
  const bool keep = (header.flags & kKeepsCopies) != 0 && node.index == kHome;
  const bool by_hint = (header.flags & kByHint) != 0;
  const uint64_t demand = header.page + header.argument;
  serve({node.index, keep, by_hint, header.page, header.count, demand, header.version, 0});
}

bool Engine::must_defer(uint64_t page, uint64_t version, uint64_t& not_before_us) {
  const PageEntry& e = table_.peek(page);
  not_before_us = 0;
  if (e.state() == PageState::in_flight) return true;
  // Named owner, but the page is still on its way here; or an older life of this address, whose end is.
  if (e.version < version) return true;
  if (e.state() != PageState::resident) return false;
  if (e.offered()) return true;
  const Held& held = held_[page % held_.size()];
  if (held.page != page || held.until_us <= now_us() || !host_.threads_here()) return false;
  not_before_us = held.until_us;
  return true;
}

void Engine::defer(Deferred deferred) {
  if (deferred_.size() >= kDeferredMax) return refuse(deferred);  // the asker tries again
  table_.entry(deferred.demand).deferred = 1;
  const uint64_t not_before = deferred.not_before_us;
  deferred_.push_back(deferred);
  if (not_before == 0 || (held_timer_us_ != 0 && held_timer_us_ <= not_before)) return;
  held_timer_us_ = not_before;
  loop_.at(not_before, [this] { retry_held(); });
}

void Engine::refuse(const Deferred& get) {
  Node* node = lanes_.find(get.from);
  if (node == nullptr) return;
  metas_.resize(get.count);
  for (uint64_t i = 0; i < get.count; i++) metas_[i] = {get.page + i, 0, 0, kPageAbsent, 0};
  send_pages(*node, FrameType::pages, metas_, 0, false);
}

// Whether this node has the page, or can say who got it.
bool Engine::knows(uint64_t page, uint64_t version) const {
  const PageEntry& e = table_.peek(page);
  return e.version >= version && e.state() != PageState::untouched && e.state() != PageState::in_flight;
}

void Engine::retry_deferred(uint64_t page) {
  table_.entry(page).deferred = 0;
  std::vector<Deferred> now;
  for (auto it = deferred_.begin(); it != deferred_.end();) {
    if (it->demand != page) {
      ++it;
      continue;
    }
    now.push_back(*it);
    it = deferred_.erase(it);
  }
  for (const Deferred& d : now) serve(d);
}

void Engine::retry_held() {
  held_timer_us_ = 0;
  const uint64_t now = now_us();
  std::vector<uint64_t> due;
  uint64_t next = 0;
  for (const Deferred& d : deferred_) {
    if (d.not_before_us == 0) continue;
    if (d.not_before_us <= now)
      due.push_back(d.demand);
    else if (next == 0 || d.not_before_us < next)
      next = d.not_before_us;
  }
  for (const uint64_t page : due) retry_deferred(page);
  if (next == 0 || held_timer_us_ != 0) return;
  held_timer_us_ = next;
  loop_.at(next, [this] { retry_held(); });
}

void Engine::start_hold(uint64_t page) {
  Held& held = held_[page % held_.size()];
  const uint64_t now = now_us();
  const bool fight = held.page == page && now - held.left_us < kFightUs;
  held.hold_us = fight ? std::min(held.hold_us * 2, kHoldMaxUs) : kHoldUs + 2u * config_.self;
  held.page = page;
  held.until_us = now + held.hold_us;
}

void Engine::set_gone(uint64_t page, PageEntry& e, uint16_t owner) {
  Held& held = held_[page % held_.size()];
  if (held.page == page) held.left_us = now_us();
  note_remote(e, owner, e.version + 1);
}

void Engine::note_remote(PageEntry& e, uint16_t owner, uint64_t version) {
  e.version = version;
  e.set_state(PageState::remote);
  e.where = owner;
  if (config_.self == kHome)
    if (Node* node = lanes_.find(owner)) node->pages_owned_hint++;
}

void Engine::leave_remote(PageEntry& e) {
  if (e.state() != PageState::remote && e.state() != PageState::in_flight) return;
  if (e.state() == PageState::in_flight) expected_--;
  if (config_.self != kHome) return;
  if (Node* node = lanes_.find(static_cast<uint16_t>(e.where)); node != nullptr && node->pages_owned_hint > 0)
    node->pages_owned_hint--;
}

// One page this node owns (resident or spilled) or home has never given out: its bytes to `out`, ownership to
// `to`. The caller has copied resident pages to `out` already.
void Engine::fill_meta_of_owned(Node& to, uint64_t page, PageMeta& meta, uint8_t* out) {
  PageEntry& e = table_.entry(page);
  bool zero = false;
  if (e.state() == PageState::resident) {
    table_.remove(page);
    zero = is_zero(out);
  } else if (e.state() == PageState::spilled) {
    const uint32_t slot = e.where;
    if (const uint8_t* buffered = spill_.buffered_page(slot))
      memcpy(out, buffered, kPageBytes);
    else if (!spill_.read_now({&slot, 1}, out))
      throw Failure("reading the spill file failed: its disk returned an error");
    spill_.free_slot(slot);
    zero = is_zero(out);
  } else if (e.state() != PageState::untouched) {
    throw Failure(format("bug: page %#lx is given away and is not here", page));
  } else {  // at home
    const Region* region = regions_.find(page);
    zero = !(region->backing && host_.fill_from_backing(page, out));
    counters_.pages_touched++;
  }
  set_gone(page, e, to.index);
  meta.version = e.version;
  meta.last_written_cut = e.last_written_cut;
  meta.flags = zero ? kPageZero : kPageData;
}

// Resident and free to go now.
bool Engine::leaves_memory(uint64_t page, bool demanded) {
  const PageEntry& e = table_.peek(page);
  if (e.state() != PageState::resident || e.pinned || e.replica || e.offered()) return false;
  uint64_t ignored = 0;
  return demanded || !must_defer(page, 0, ignored);
}

// Every page that does not leave memory: from the disk, from nowhere, or not at all.
void Engine::serve_page(Node& to, uint64_t page, bool demanded, PageMeta& meta, uint8_t* out) {
  PageEntry& e = table_.entry(page);
  const Region* region = regions_.find(page);
  const bool elastic = region != nullptr && region->kind == RegionKind::elastic;  // as far as home goes
  meta.page = page;
  meta.flags = demanded ? kPagePinned : kPageAbsent;
  if (e.state() == PageState::remote || e.state() == PageState::copied) {
    meta.flags = kPageMoved;
    meta.owner = static_cast<uint16_t>(e.where);
    meta.version = e.version;
    return;
  }
  if (e.pinned) return;
  if (e.state() == PageState::spilled ||
      (e.state() == PageState::untouched && config_.self == kHome && elastic))
    fill_meta_of_owned(to, page, meta, out);
}

void Engine::serve(const Deferred& get) {
  const auto& [from, keeps, by_hint, page, count, demand, version, was_not_before] = get;
  Node* to = lanes_.find(from);
  if (to == nullptr || !to->up) return;
  if (by_hint && !knows(demand, version)) return refuse(get);  // it may never come here
  uint64_t not_before = 0;
  if (must_defer(demand, version, not_before)) {
    Deferred deferred = get;
    deferred.not_before_us = not_before;
    return defer(deferred);
  }
  std::vector<PageMeta>& metas = metas_;
  metas.assign(count, {});
  size_t data_pages = 0;
  const bool protect = host_.threads_may_run();
  const bool keep = keeps && keeps_copies();
  for (uint64_t i = 0; i < count;) {
    uint8_t* base = buffer_.data() + (data_pages << kPageShift);
    uint64_t end = i;
    while (end < count && leaves_memory(page + end, page + end == demand)) end++;
    if (end == i) {
      serve_page(*to, page + i, page + i == demand, metas[i], base);
      if (metas[i].flags == kPageData) data_pages++;
      i++;
      continue;
    }
    // Runs of resident pages leave with one protect, one read, one punch; zero pages are then closed up.
    if (keep)
      memory_.read(page + i, base, end - i);
    else
      copy_out(page + i, base, end - i, protect);
    for (uint64_t k = i; k < end; k++) {
      uint8_t* copied = base + ((k - i) << kPageShift);
      metas[k].page = page + k;
      fill_meta_of_owned(*to, page + k, metas[k], copied);
      if (keep && metas[k].flags == kPageZero) shipped_.push_back({page + k, 1});
      if (metas[k].flags != kPageData) continue;
      if (keep) keep_copy(page + k);
      uint8_t* target = buffer_.data() + (data_pages << kPageShift);
      if (target != copied) memmove(target, copied, kPageBytes);
      data_pages++;
    }
    i = end;
  }
  const bool bulk = data_pages > kUrgentPagesMax;
  send_pages(*to, FrameType::pages, metas, data_pages, bulk, keep ? kKeepsCopies : 0);
  lanes_.send_now(*to, bulk);
  drop_shipped();  // nobody waits for that
}

// Pages that are sent now and dropped by drop_shipped(), before the next frame is read: a thread here that
// reads them in between cannot know of anything that was done with them elsewhere. None can write to them.
void Engine::copy_out(uint64_t page, uint8_t* out, uint64_t count, bool protect) {
  if (protect) memory_.protect_written(page, count);
  memory_.read(page, out, count);
  shipped_.push_back({page, count});
}

// `metas` and the first `data_pages` pages of the staging buffer.
void Engine::send_pages(Node& to, FrameType type, const std::vector<PageMeta>& metas, size_t data_pages,
                        bool bulk, uint16_t flags) {
  FrameHeader header;
  header.flags = flags;
  header.page = metas.front().page;
  header.count = static_cast<uint32_t>(metas.size());
  const iovec parts[2] = {{const_cast<PageMeta*>(metas.data()), metas.size() * sizeof(PageMeta)},
                          {buffer_.data(), data_pages << kPageShift}};
  const auto moves = [](const PageMeta& meta) {
    return (meta.flags & (kPageData | kPageZero | kPageOffered)) != 0;
  };
  const std::span<const iovec> whole{parts, data_pages > 0 ? 2u : 1u};
  if (std::any_of(metas.begin(), metas.end(), moves))
    lanes_.send_moving(to, type, header, whole, bulk);
  else
    lanes_.send(to, type, header, whole, bulk);
}

void Engine::ship_with_jump(Node& node, std::vector<uint64_t> pages) {
  std::erase_if(pages, [this](uint64_t page) {
    const PageEntry& e = table_.peek(page);
    return e.state() != PageState::resident || e.pinned || e.replica;
  });
  if (!pages.empty()) push(node, pages, false, true);
  counters_.pages_with_jumps += pages.size();
}

void Engine::drop_shipped() {
  for (const PageRun& run : shipped_) memory_.drop(run.page, run.count);
  shipped_.clear();
}

}  // namespace elastic
