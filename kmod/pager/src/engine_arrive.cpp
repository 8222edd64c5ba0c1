// Pages that arrive, and what other nodes say about pages. See engine.hpp for the rules.
#include <poll.h>

#include <algorithm>

#include "engine.hpp"

namespace elastic {

namespace {
const uint8_t kZeros[kPageBytes] = {};
}  // namespace

// Takes note of a page that comes with its bytes; false if it is old news and has to be thrown away. Versions
// alone decide: the mapping it belongs to may still be on its way here, on the other connection.
bool Engine::accept(const PageMeta& meta, uint16_t) {
  PageEntry& e = table_.entry(meta.page);
  if (meta.version <= e.version) return false;
  // Home knows of every page that is out: nobody can send it one that is not.
  if (config_.self == kHome && e.state() != PageState::remote && e.state() != PageState::in_flight)
    return false;
  leave_remote(e);
  if (e.state() == PageState::copied) {
    discard_copy(meta.page);
  } else if (e.state() == PageState::resident) {  // an older life of this address, not yet dropped here
    memory_.drop(meta.page, 1);
    table_.remove(meta.page);
    if (e.replica) replicas_--;  // of a mapping whose end is still on its way here
    e.replica = 0;
  } else if (e.state() == PageState::spilled) {
    spill_.free_slot(e.where);
  }
  e.version = meta.version;
  e.last_written_cut = meta.last_written_cut;
  return true;
}

void Engine::arrived(uint64_t page, bool demanded) {
  if (demanded) {
    start_hold(page);
    Asked& asked = asked_at(page);
    if (asked.page == page) {
      if (asked.at_ns != 0) counters_.pull_ns.add(now_ns() - asked.at_ns);
      asked = {};
    }
  }
  check_waiters(page);
  if (table_.peek(page).deferred) retry_deferred(page);
}

void Engine::on_pages(Node& node, const Frame& frame, bool asked) {
  const auto* metas = reinterpret_cast<const PageMeta*>(frame.payload.data());
  const uint32_t count = frame.header.count;
  const uint8_t* data = frame.payload.data() + count * sizeof(PageMeta);
  std::vector<std::pair<uint64_t, bool>>& here = came_;
  here.clear();
  const bool clean = asked && come_clean(frame);
  uint64_t run_page = 0, run_count = 0;
  const uint8_t* run_data = nullptr;
  const auto place_run = [&] {
    if (run_count > 0) place(run_page, run_data, run_count, clean);
    run_count = 0;
  };
  for (uint32_t i = 0; i < count; i++) {
    PageMeta meta;
    memcpy(&meta, metas + i, sizeof meta);  // the frame's payload need not be aligned
    const bool has_data = meta.flags == kPageData;
    const uint8_t* bytes = data;
    if (has_data) data += kPageBytes;
    if (meta.flags == kPageOffered) {
      take_offered(node, meta);
      continue;
    }
    if (!has_data && meta.flags != kPageZero) {
      place_run();  // what follows may send pages away again: those of this frame must be there
      on_answer_without_page(node, meta);
      continue;
    }
    const PageEntry& before = table_.peek(meta.page);
    const bool demanded = before.state() == PageState::in_flight && !before.prefetched;
    if (!accept(meta, node.index)) {
      if (!asked) continue;
      place_run();  // as above
      meta.flags = kPageAbsent;
      on_answer_without_page(node, meta);
      continue;
    }
    table_.insert_front(meta.page, demanded);
    here.emplace_back(meta.page, demanded);
    if (clean && has_data) table_.entry(meta.page).left_at = node.index;
    if (has_data && run_count > 0 && run_page + run_count == meta.page &&
        run_data + (run_count << kPageShift) == bytes) {
      run_count++;
    } else {
      place_run();
      if (has_data) {
        run_page = meta.page;
        run_data = bytes;
        run_count = 1;
      } else if (table_.peek(meta.page).shared) {
        place(meta.page, kZeros, 1);
      } else {
        memory_.place_zero(meta.page, 1);
      }
    }
  }
  place_run();
  drop_shipped();
  answer_offers(node);
  if (asked) counters_.pages_pulled += here.size();
  placed_since_age_ += here.size();
  note_peak();
  if (config_.self != kHome && node.index != kHome) tell_home_of(here);
  for (const auto& [page, demanded] : here) {
    if (table_.peek(page).state() == PageState::resident)
      arrived(page, demanded);
    else
      retry_if_deferred(page);  // it has left again, with an answer to somebody who waited for another one
  }
}

// Home has not seen these move.
void Engine::tell_home_of(const std::vector<std::pair<uint64_t, bool>>& came) {
  Node* home = lanes_.find(kHome);
  if (home == nullptr) return;
  for (const auto& [page, demanded] : came) {
    FrameHeader note;
    note.page = page;
    note.count = 1;
    note.version = table_.peek(page).version;
    note.argument = config_.self;
    lanes_.send(*home, FrameType::owner, note);
  }
}

void Engine::on_answer_without_page(Node& node, const PageMeta& meta) {
  if (config_.self == kHome && on_offer_answered(node, meta)) return;
  PageEntry& e = table_.entry(meta.page);
  if (e.state() != PageState::in_flight || e.asked() != node.index) return;
  const bool demanded = !e.prefetched;
  if (meta.flags == kPageMoved && meta.version >= e.version) {
    if (meta.owner == config_.self) return;  // it is on its way here on the other connection
    leave_remote(e);
    note_remote(e, meta.owner, meta.version);
    if (!demanded) return retry_if_deferred(meta.page);
    return ask_on(meta.page, meta.owner);
  }
  const uint16_t known = e.known_owner();
  leave_remote(e);
  note_remote(e, known, e.version);
  retry_if_deferred(meta.page);
  if (meta.flags == kPagePinned && config_.self != kHome) return host_.must_go_home(meta.page);
  if (!demanded) return;
  if (known != node.index) return ask_on(meta.page, known);  // the hint was wrong
  memory_.wake(meta.page, 1);
  if (e.watched) bring(meta.page);  // no thread waits in a fault that would ask again
}

// Others' GETs that waited for a page which did not come after all get an answer.
void Engine::retry_if_deferred(uint64_t page) {
  if (table_.peek(page).deferred) retry_deferred(page);
}

void Engine::on_file_pages(const Frame& frame) {
  const uint32_t count = frame.header.count;
  const uint8_t* data = frame.payload.data() + count * sizeof(PageMeta);
  for (uint32_t i = 0; i < count; i++) {
    PageMeta meta;
    memcpy(&meta, frame.payload.data() + i * sizeof meta, sizeof meta);
    const bool has_data = meta.flags == kPageData;
    const uint8_t* bytes = data;
    if (has_data) data += kPageBytes;
    PageEntry& e = table_.entry(meta.page);
    const Region* region = regions_.find(meta.page);
    if (e.state() != PageState::in_flight || region == nullptr || region->kind != RegionKind::replica)
      continue;
    expected_--;
    if (!has_data && meta.flags != kPageZero) {
      e.set_state(PageState::untouched);
      host_.must_go_home(
          meta.page);  // home cannot read it either (beyond the file's end): the thread finds out there
      continue;
    }
    if (has_data)
      memory_.place(meta.page, bytes, 1);
    else
      memory_.place_zero(meta.page, 1);
    table_.insert_front(meta.page);
    table_.entry(meta.page).replica = 1;
    replicas_++;
    placed_since_age_++;
  }
}

void Engine::release_replicas(uint64_t first, uint64_t end) {
  table_.for_each_touched(first, end, [&](uint64_t page, PageEntry& e) {
    if (e.state() == PageState::in_flight) {
      const Region* region = regions_.find(page);
      if (region == nullptr || region->kind != RegionKind::replica) return;
      expected_--;
      e.set_state(PageState::untouched);
      memory_.wake(page, 1);
    } else if (e.replica) {
      memory_.drop(page, 1);
      table_.remove(page);
      e.replica = 0;
      e.set_state(PageState::untouched);
      replicas_--;
    }
  });
}

// A participant is told that pages ended at home (munmap, MADV_DONTNEED): everything older than the new birth
// goes.
void Engine::apply_drop(const FrameHeader& header) {
  for (uint64_t page = header.page; page < header.page + header.count; page++) {
    PageEntry& e = table_.entry(page);
    if (e.version >= header.version) continue;
    if (e.state() == PageState::resident) {
      memory_.drop(page, 1);
      table_.remove(page);
      if (e.replica) replicas_--;
      e.replica = 0;
    } else if (e.state() == PageState::copied) {
      discard_copy(page);
    } else if (e.state() == PageState::spilled) {
      spill_.free_slot(e.where);
    } else if (e.state() == PageState::in_flight) {
      expected_--;
      memory_.wake(page, 1);
    }
    e.set_state(PageState::untouched);
    e.version = header.version;
    e.last_written_cut = 0;
    if (e.deferred) retry_deferred(page);
  }
}

// A node owns these: it says so itself, or one that gave them to it, that is where they are known to be, and
// has lost the lane to it.
void Engine::on_owner_note(uint16_t from, const FrameHeader& header) {
  const auto owner = static_cast<uint16_t>(header.argument);
  if (config_.self != kHome || header.argument >= kNodesMax || owner == kHome) return;
  for (uint64_t page = header.page; page < header.page + std::min<uint64_t>(header.count, kMaxPagesPerFrame);
       page++) {
    if (table_.peek(page).state() == PageState::untouched) continue;
    PageEntry& e = table_.entry(page);
    const bool asked = e.state() == PageState::in_flight && e.asked() != owner;
    if ((e.state() != PageState::remote && !asked) || e.version >= header.version) continue;
    if (owner != from && (asked ? e.asked() : e.where) != from) continue;
    const bool demanded = asked && !e.prefetched;
    leave_remote(e);
    note_remote(e, owner, header.version);
    if (demanded)
      ask_on(page, owner);
    else
      retry_if_deferred(page);  // whoever asks for this version is told where it went
  }
}

void Engine::forget(uint64_t first, uint64_t end) {
  const uint64_t version = static_cast<uint64_t>(++birth_) << 32;
  PageRun punch{0, 0}, drop{0, 0};
  const auto flush_drop = [&] {
    if (drop.count == 0) return;
    FrameHeader header;
    header.page = drop.page;
    header.count = static_cast<uint32_t>(drop.count);
    header.version = version;
    for (const auto& [index, node] : lanes_.all()) lanes_.send(*node, FrameType::drop, header);
    drop.count = 0;
  };
  const auto extend = [](PageRun& run, uint64_t page, const auto& flush) {
    if (run.count > 0 && run.page + run.count == page && run.count < kMaxPagesPerFrame) {
      run.count++;
      return;
    }
    flush();
    run = {page, 1};
  };
  std::vector<uint64_t> deferred, watched, offered;
  table_.for_each_touched(first, end, [&](uint64_t page, PageEntry& e) {
    if (e.shared) host_.before_change(page);
    if (e.watched) watched.push_back(page);  // it will not come: whoever waits for it goes on without
    if (e.state() == PageState::untouched) return;
    const bool is_offered = e.offered();
    if (is_offered) offered.push_back(page);
    const bool here = e.state() == PageState::resident || e.state() == PageState::spilled;
    // Others may be told of pages that they never had, so that few frames are enough.
    if (is_offered || (here && drop.count > 0 && drop.page + drop.count == page))
      extend(drop, page, flush_drop);
    if (e.state() == PageState::resident) {
      table_.remove(page);
      if (punch.count == 0) punch.page = page;
      punch.count = page + 1 - punch.page;  // nothing in between is to stay, and a call costs more than pages
    } else if (e.state() == PageState::spilled) {
      spill_.free_slot(e.where);
    } else {
      if (e.state() == PageState::in_flight) memory_.wake(page, 1);
      leave_remote(e);
      extend(drop, page, flush_drop);
    }
    e.set_state(PageState::untouched);
    e.version = version;
    e.last_written_cut = 0;
    e.pinned = 0;
    if (e.deferred) deferred.push_back(page);
  });
  if (punch.count > 0) memory_.drop(punch.page, punch.count);
  flush_drop();
  for (const uint64_t page : offered) end_offer(page);
  for (const uint64_t page : deferred) retry_if_deferred(page);
  for (const uint64_t page : watched) check_waiters(page);
}

void Engine::adopt(uint64_t page, const uint8_t* data) {
  // Nothing runs that could wait for the disk instead of us.
  while (!make_room(1) && spill_.buffers_busy()) {
    pollfd written{spill_.event_fd(), POLLIN, 0};
    poll(&written, 1, 1000);
    spill_.drain();
  }
  memory_.place(page, data, 1);
  table_.insert_front(page);
  counters_.pages_touched++;
  placed_since_age_++;
  note_peak();
}

void Engine::rename(uint64_t from, uint64_t to) {
  // Another thread's fault may have filled or fetched the target. Twice at most: a GET that waited for it is
  // served.
  while (table_.peek(to).state() != PageState::untouched) forget(to, to + 1);
  PageEntry& source = table_.entry(from);
  PageEntry& target = table_.entry(to);
  if (source.shared) host_.before_change(from);
  target.last_written_cut = source.last_written_cut;
  if (source.state() == PageState::spilled) {
    target.set_state(PageState::spilled);
    target.where = source.where;
  } else if (source.state() == PageState::resident) {
    memory_.take(from, buffer_.data(), 1, host_.threads_may_run());
    table_.remove(from);
    memory_.place(to, buffer_.data(), 1);
    table_.insert_front(to);
  } else {
    return;
  }
  source.set_state(PageState::untouched);
}

bool Engine::read_copy(uint64_t page, uint8_t* out) {
  const PageEntry& e = table_.peek(page);
  if (e.state() == PageState::resident) {
    memory_.read(page, out, 1);
    return true;
  }
  if (e.state() == PageState::spilled) {
    const uint32_t slot = e.where;
    if (const uint8_t* buffered = spill_.buffered_page(slot))
      memcpy(out, buffered, kPageBytes);
    else if (!spill_.read_now({&slot, 1}, out))
      throw Failure("reading the spill file failed: its disk returned an error");
    return true;
  }
  if (e.state() != PageState::untouched) return false;
  if (!host_.fill_from_backing(page, out)) memset(out, 0, kPageBytes);
  return true;
}

void Engine::reset() {
  table_.for_each_touched(0, kUserSpaceEnd >> kPageShift, [&](uint64_t, PageEntry& e) {
    if (e.state() == PageState::spilled) spill_.free_slot(e.where);
  });
  table_.clear();
  for (const auto& [index, node] : lanes_.all()) {
    node->pages_owned_hint = 0;
    node->pages_pushed = 0;
    node->pages_taken = 0;
    node->moved_sequence = {};
    node->status = {};  // nothing is pushed there before it has spoken in this image
  }
  expected_ = 0;
  replicas_ = 0;
  deferred_.clear();
  starved_.clear();
  waiters_.clear();
  offered_ = 0;
  offer_waiters_.clear();
  copies_.clear();
  copied_ = 0;
  held_.fill({});
  hints_.clear();
}

}  // namespace elastic
