// Pages that somebody waits for here and that do not come, though the lane to whoever is said to have them
// lives: the owner has forgotten the page, or gives no page and no other owner, however often it is asked. No
// honest pager does that; without a limit the thread would wait, or ask, for ever. See engine.hpp.
//
// Counted in looks, ten a second, not in time: while this pager itself stands still nobody is late.
#include "engine.hpp"

namespace elastic {

namespace {
// More than a chain of nodes may take of which one stands still (30 s, docs/architecture.md, "Failure
// detection") or a slow network, whose lanes end after 4 s without a frame.
constexpr uint32_t kOverdueLooks = 600;
// An owner that answers without the page is asked again at once; who does not ask for so long has stopped.
constexpr uint32_t kIdleLooks = 10;
}  // namespace

bool Engine::waits_for(uint64_t page) const {
  const PageEntry& e = table_.peek(page);
  return e.state() == PageState::in_flight && !e.prefetched;
}

// The page's slot, or the one that it may have. Threads of one program wait for pages at equal distances,
// which must not all share one slot.
Engine::Asked& Engine::asked_at(uint64_t page) {
  constexpr uint64_t kGolden = 0x9e3779b97f4a7c15;  // Knuth's multiplicative hashing
  constexpr size_t kTried = 8;
  const size_t first = page * kGolden >> 56;
  Asked* found = &asked_[first];
  bool has_found = found->page == ~0ull || !waits_for(found->page);
  for (size_t i = 0; i < kTried; i++) {
    Asked& asked = asked_[(first + i) % asked_.size()];
    if (asked.page == page) return asked;
    if (has_found || (asked.page != ~0ull && waits_for(asked.page))) continue;
    found = &asked;
    has_found = true;
  }
  return *found;
}

void Engine::note_wait(uint64_t page, uint64_t asked_at_ns) {
  Asked& asked = asked_at(page);
  if (asked.page == page) {
    if (asked_at_ns != 0) asked.at_ns = asked_at_ns;
  } else if (asked.page == ~0ull || !waits_for(asked.page)) {
    asked = {page, asked_at_ns};
  }
}

void Engine::look_for_overdue() {
  for (Asked& asked : asked_) {
    if (asked.page == ~0ull) continue;
    if (!waits_for(asked.page)) {
      if (++asked.idle_looks > kIdleLooks) asked = {};
      continue;
    }
    asked.idle_looks = 0;
    if (++asked.looks < kOverdueLooks) continue;
    const uint64_t page = asked.page;
    asked = {};
    if (config_.self != kHome) {  // home asks for itself
      PageEntry& e = table_.entry(page);
      leave_remote(e);
      note_remote(e, kHome, e.version);
      retry_if_deferred(page);
      host_.must_go_home(page);
      continue;
    }
    const Node* owner = lanes_.find(static_cast<uint16_t>(table_.peek(page).where));
    throw Failure(format("%s has page %#lx and does not give it: its pager is broken; leave that machine out",
                         owner == nullptr ? "a node that is gone" : owner->name.c_str(), page));
  }
}

}  // namespace elastic
