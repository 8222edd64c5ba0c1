// Tests of the ownership engine against a node that says exactly what the test wants, in any order on the two
// connections: a real Engine and real Lanes over loopback, without an application (pages are in the memory
// file). Each test prints its name; the first failed check ends the program with status 1.
#include <set>

#include "../src/page_set.hpp"
#include "engine_test_kit.hpp"

namespace elastic::test {

namespace {

void test_rename_replaces_its_target(const std::string& directory) {
  Scene s(kHome, 1, directory);
  s.join();
  std::vector<uint8_t> bytes(kPageBytes, 0x5a);
  s.engine.adopt(kPage, bytes.data());
  s.fault(kPage + 100);  // another thread's zero-ahead
  s.engine.rename(kPage, kPage + 100);
  CHECK(s.table.resident() == 1 && s.table.peek(kPage).state() == PageState::untouched);
  s.engine.adopt(kPage + 1, bytes.data());
  s.get(kPage + 200, 0);  // the other node has the target: its copy ends
  s.drive_until([&] { return s.seen[FrameType::pages] == 1; });
  s.engine.rename(kPage + 1, kPage + 200);
  s.drive_until([&] { return s.seen[FrameType::drop] > 0; });
  CHECK(s.last[FrameType::drop].first.page == kPage + 200 && s.table.resident() == 2);
  s.get(kPage + 200, 0);
  s.drive_until([&] { return s.seen[FrameType::pages] == 2; });
  CHECK(s.answered(FrameType::pages).flags == kPageData);
  CHECK(s.answered_word(FrameType::pages) == 0x5a5a5a5a5a5a5a5aull);
}

void test_push_over_a_replica_stays(const std::string& directory) {
  Scene s(2, kHome, directory);
  s.join();
  s.regions.insert(region(kPage, 1, 1, RegionKind::replica));
  s.fault(kPage);
  s.drive_until([&] { return s.seen[FrameType::file_get] == 1; });
  s.send_page(*s.urgent, FrameType::file_pages, kPage, 0, 1);
  s.drive_until([&] { return s.table.resident() == 1; });
  CHECK(s.engine.empty());
  s.send_page(*s.bulk, FrameType::push, kPage, 1ull << 32, 99);  // before the MAP that made it elastic
  s.drive_until([&] { return s.table.peek(kPage).version != 0; });
  CHECK(!s.engine.empty());
  s.engine.release_replicas(kPage, kPage + 1);
  CHECK(s.table.resident() == 1);
  s.get(kPage, 1ull << 32);
  s.drive_until([&] { return s.seen[FrameType::pages] == 1; });
  CHECK(s.answered_word(FrameType::pages) == 99);
}

void test_old_answer_is_asked_again(const std::string& directory) {
  Scene s(2, kHome, directory);
  s.join();
  s.send_page(*s.bulk, FrameType::push, kPage, 5, 1);
  s.drive_until([&] { return s.table.resident() == 1; });
  s.get(kPage, 0);
  s.drive_until([&] { return s.seen[FrameType::pages] == 1; });
  s.fault(kPage);
  s.drive_until([&] { return s.seen[FrameType::get] == 1; });
  s.send_page(*s.urgent, FrameType::pages, kPage, 3, 2);  // an older life
  s.settle();
  CHECK(s.table.peek(kPage).state() == PageState::remote && s.engine.empty());
  s.fault(kPage);
  s.drive_until([&] { return s.seen[FrameType::get] == 2; });
  s.send_page(*s.urgent, FrameType::pages, kPage, 7, 3);
  s.drive_until([&] { return s.table.resident() == 1; });
}

void test_owner_note_answers_who_waits(const std::string& directory) {
  Scene s(kHome, 1, directory);
  s.join();
  s.get(kPage, 0);
  s.drive_until([&] { return s.seen[FrameType::pages] == 1; });
  s.get(kPage, 2);  // it heard of version 2 before home did
  s.settle();
  CHECK(s.seen[FrameType::pages] == 1);
  FrameHeader note;
  note.page = kPage;
  note.count = 1;
  note.version = 2;
  note.argument = 1;
  s.send(*s.urgent, FrameType::owner, note);
  s.drive_until([&] { return s.seen[FrameType::pages] == 2; });
  CHECK(s.answered(FrameType::pages).flags == kPageMoved && s.answered(FrameType::pages).version == 2);
}

// Home's GET waits for a page that another node asked for and cannot have: no lane leads to its owner.
void test_who_waits_is_told_of_a_move(const std::string& directory) {
  Scene s(2, kHome, directory);
  s.join();
  s.fault(kPage);
  s.drive_until([&] { return s.seen[FrameType::get] == 1; });
  s.get(kPage, 0);
  s.settle();
  CHECK(s.seen[FrameType::pages] == 0);
  PageMeta meta{kPage, 5, 0, kPageMoved, 3};
  const iovec part{&meta, sizeof meta};
  FrameHeader header;
  header.page = kPage;
  header.count = 1;
  s.send(*s.urgent, FrameType::pages, header, {&part, 1});
  s.drive_until([&] { return s.seen[FrameType::pages] == 1; });
  CHECK(s.answered(FrameType::pages).flags == kPageMoved && s.answered(FrameType::pages).owner == 3);
}

void test_frames_before_up_are_kept(const std::string& directory) {
  Scene s(kHome, 1, directory);
  s.hello(*s.urgent, 0);
  s.get(kPage, 0);
  s.settle();
  CHECK(!s.up);
  s.hello(*s.bulk, 1);
  s.drive_until([&] { return s.seen[FrameType::pages] == 1; });
}

// A lender of 1024 pages, and two nodes that may push there. It says how much room it has as a pager does,
// but never by the clock.
struct Lender : Scene {
  explicit Lender(const std::string& directory) : Scene(2, kHome, directory) {
    engine.set_limit(kLimit);
    loop.watch(spill.event_fd(), EPOLLIN, [this](uint32_t) { spill.drain(); });
    host.tell = [this] {
      for (auto& [index, node] : lanes.all()) {
        StatusPayload status = engine.status_for(*node, false, 0);
        const iovec part{&status, sizeof status};
        lanes.send(*node, FrameType::status, {}, {&part, 1});
      }
    };
    for (const uint16_t index : {1, 3}) {
      Node node;
      node.index = index;
      node.key = key_of(static_cast<uint8_t>(index));
      node.lease.id = index;
      node.lease.pages_max = 1 << 20;
      node.lease.expires_us = now_us() + 60'000'000;
      lanes.add(std::move(node));
      pushers.push_back(std::make_unique<Pusher>(lanes, index));
    }
    drive_until([this] {
      turn_pushers();
      return lanes.find(1)->up && lanes.find(3)->up;
    });
    host.tell();
  }
  void turn_pushers() {
    for (const auto& pusher : pushers) pusher->turn();
  }
  static constexpr uint64_t kLimit = 1024;
  std::vector<std::unique_ptr<Pusher>> pushers;
  uint64_t next_page = kPage;
};

void test_two_pushers_do_not_overrun(const std::string& directory) {
  Lender s(directory);
  for (const uint64_t until = now_us() + 500'000; now_us() < until;) {
    s.turn();
    s.turn_pushers();
    for (const auto& pusher : s.pushers)
      for (; pusher->may_push(32); s.next_page += 32) pusher->push(s.next_page, 32);
  }
  CHECK(s.counters.peak_resident <= Lender::kLimit);
  CHECK(s.counters.peak_resident >= Lender::kLimit - 128);  // and all of the room is used, without a clock
}

// What nobody's share allows goes on to a lender that has room, and more than a batch a round.
void test_what_overruns_leaves_again(const std::string& directory) {
  Lender s(directory);
  StatusPayload roomy;
  roomy.pages_limit = 1 << 20;
  const iovec part{&roomy, sizeof roomy};
  s.pushers[1]->send(*s.pushers[1]->urgent, FrameType::status, {}, {&part, 1});
  s.drive_until([&] { return s.lanes.find(3)->status.pages_limit > 0; });
  std::vector<uint8_t> payload(32 * (sizeof(PageMeta) + kPageBytes));
  const auto push = [&] {  // arrives without a round of the loop
    for (uint64_t i = 0; i < 32; i++) {
      const PageMeta meta{s.next_page++, 1, 0, kPageData, 0};
      memcpy(payload.data() + i * sizeof meta, &meta, sizeof meta);
    }
    Frame frame;
    frame.header.type = static_cast<uint16_t>(FrameType::push);
    frame.header.count = 32;
    frame.payload = payload;
    s.engine.on_frame(*s.lanes.find(1), frame);
  };
  for (int i = 0; i < 16; i++) push();
  s.engine.set_limit(512);
  s.engine.reclaim_ahead();
  s.settle();
  const uint64_t before = s.table.resident();
  while (s.table.resident() <= 512 + 64) push();
  const uint64_t came = s.table.resident() - before;
  s.engine.reclaim_ahead();
  CHECK(came >= 64 && s.table.resident() <= before + came - 64);
}

// A disk that fills up, and nobody lends: what comes back from it is not room for others, however often it is
// tried, and who waits for some is given up when it has been tried again.
void test_full_disk(const std::string& directory) {
  constexpr uint64_t kLimit = 512, kLeft = 64;
  setenv("ELASTICOS_FAIL_SPILL", "full:20+", 1);
  Scene s(kHome, 1, directory);
  unsetenv("ELASTICOS_FAIL_SPILL");
  s.engine.set_limit(kLimit);
  s.loop.watch(s.spill.event_fd(), EPOLLIN, [&](uint32_t) { s.spill.drain(); });
  uint64_t full_at = ~0ull;
  for (uint64_t page = kPage; s.host.out_of_room_calls == 0; page++) {
    s.fault(page);
    s.drive_until([&] {
      const bool here = s.table.peek(page).state() == PageState::resident;
      return s.spill.buffered_bytes() == 0 && (here || s.host.out_of_room_calls > 0);
    });
    if (s.counters.spills_failed > 0) full_at = std::min(full_at, page);
    CHECK(page <= full_at || page - full_at <= kLeft);
  }
  CHECK(full_at != ~0ull && s.counters.spills_failed >= 2);
}

// Node 2 gives up its pages; node 1 may have pushed some, on either connection, before it knew.
void test_pushes_have_ended(const std::string& directory) {
  Scene s(2, 1, directory);
  s.join();
  Node& node = *s.lanes.find(1);
  CHECK(!s.lanes.no_more_pushed());
  StatusPayload status = s.engine.status_for(node, true, 0);
  CHECK(status.pages_limit == 0);
  const iovec part{&status, sizeof status};
  s.lanes.send(node, FrameType::status, {}, {&part, 1});
  node.closed_sequence = node.urgent->sequence_sent();
  s.settle();
  const uint64_t read = s.urgent->sequence_received();
  CHECK(read == node.closed_sequence && !s.lanes.no_more_pushed());
  FrameHeader ack;
  ack.version = read - 1;
  s.send(*s.bulk, FrameType::ack, ack);
  s.send(*s.urgent, FrameType::status, {}, {&part, 1});
  s.settle();
  CHECK(node.urgent->sequence_acked() == read && !s.lanes.no_more_pushed());
  ack.version = read;
  s.send(*s.bulk, FrameType::ack, ack);
  s.drive_until([&] { return s.lanes.no_more_pushed(); });
}

// Whatever ends the contents of a marked page says so while they can still be read; moves do not.
void test_marked_pages_are_told_of(const std::string& directory) {
  Scene s(kHome, 1, directory);
  s.join();
  std::vector<uint8_t> bytes(kPageBytes), read(kPageBytes);
  std::vector<uint64_t> told;
  s.host.told = [&](uint64_t page) {
    CHECK(s.engine.read_copy(page, read.data()) && read[0] == page - kPage + 1);
    s.table.entry(page).shared = 0;
    told.push_back(page);
  };
  for (uint64_t i = 0; i < 4; i++) {
    bytes[0] = static_cast<uint8_t>(i + 1);
    s.engine.adopt(kPage + i, bytes.data());
    s.table.entry(kPage + i).shared = 1;
  }
  s.get(kPage, 0);
  s.drive_until([&] { return s.seen[FrameType::pages] == 1; });
  CHECK(told.empty() && s.table.peek(kPage).shared);
  FaultEvent write;
  write.page = kPage + 1;
  write.write = write.write_protected = true;
  s.engine.on_fault(write);
  s.engine.rename(kPage + 2, kPage + 100);
  s.engine.forget(kPage + 3, kPage + 4);
  CHECK((told == std::vector<uint64_t>{kPage + 1, kPage + 2, kPage + 3}));
}

// A thread that has a signal pending in a call of its own faults without end while there is no room.
void test_repeated_fault_waits_once(const std::string& directory) {
  Scene s(kHome, 1, directory);
  s.loop.watch(s.spill.event_fd(), EPOLLIN, [&](uint32_t) { s.spill.drain(); });
  s.engine.set_limit(64);
  const uint64_t last = kPage + 199;
  for (uint64_t page = kPage; page <= last; page++) s.fault(page);
  CHECK(s.table.peek(last).state() == PageState::untouched);
  for (int i = 0; i < 10'000; i++) s.fault(last);
  CHECK(s.host.out_of_room_calls == 0);
  s.drive_until([&] { return s.table.peek(last).state() == PageState::resident; });
}

void test_layout_waits_for_others(const std::string& directory) {
  Scene s(kHome, 1, directory);
  s.join();
  s.settle();
  Node& node = *s.lanes.find(1);
  const auto unmap = [&](uint64_t page) {
    FrameHeader header;
    header.page = page;
    header.count = header.argument = 1;
    s.lanes.send(node, FrameType::drop, header);
    s.lanes.flush();
    return node.urgent->queued_bytes();
  };
  s.lanes.acknowledge(node, false);
  s.lanes.flush();
  CHECK(unmap(kPage) > 0 && unmap(kPage + 2) > sizeof(FrameHeader));
  s.drive_until([&] { return s.seen[FrameType::drop] == 2; });  // on their own, in a while
  CHECK(unmap(kPage) > 0);
  s.lanes.acknowledge(node, false);  // any other frame takes them along
  s.lanes.flush();
  CHECK(node.urgent->queued_bytes() == 0);
  node.threads_there = 1;
  CHECK(unmap(kPage) == 0);
}

// A heap is filled ahead while memory is plentiful; what is used here and there, was dropped, or would take
// the second half of the limit, is not.
void test_first_touches_fill_ahead(const std::string& directory) {
  Scene s(kHome, 1, directory);
  const auto touch = [&](uint64_t first, uint64_t end, uint64_t step) {
    const uint64_t before = s.counters.first_touches;
    for (uint64_t page = first; page < end; page += step)
      if (s.table.peek(page).state() == PageState::untouched) s.fault(page);
    return s.counters.first_touches - before;
  };
  const uint64_t in_heap = touch(kPage, kPage + 512, 4) + touch(kPage + 2, kPage + 512, 4);
  CHECK(in_heap < 128 && s.table.resident() >= 256 && s.table.resident() <= 512 + Prefetch::kWindowMax);
  const uint64_t before = s.table.resident();
  CHECK(touch(kPage + 768, kPage + 1408, 32) == 20 && s.table.resident() == before + 20);
  s.engine.forget(kPage, kPage + 768);
  s.fault(kPage + 100);
  CHECK(s.table.resident() == 21);
  CHECK(touch(kPage + 1536, kPage + 3584, 1) < 100);
  const uint64_t half = s.table.resident();
  CHECK(half >= 1800 && touch(kPage + 770, kPage + 1410, 4) == 160 && s.table.resident() == half + 160);
}

// Against std::set, with pages in and around the blocks that the set is made of.
void test_page_set(const std::string&) {
  PageSet set;
  std::set<uint64_t> model;
  uint64_t state = 1;
  const auto random = [&](uint64_t below) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (state >> 33) % below;
  };
  for (int step = 0; step < 50'000; step++) {
    const uint64_t page = kPage + random(3) * 5000 + random(600), end = page + random(700);
    switch (random(8)) {
      case 0:
        set.remove(page, end);
        model.erase(model.lower_bound(page), model.lower_bound(end));
        break;
      case 1: CHECK(set.remove(page) == (model.erase(page) == 1)); break;
      default: set.add(page); model.insert(page);
    }
    const auto next = model.lower_bound(page);
    CHECK(set.next(page, end) == (next == model.end() || *next >= end ? end : *next));
    CHECK(set.size() == model.size() && set.has(end) == model.contains(end));
  }
}

}  // namespace

int run_engine_tests(const std::string& directory) {
  const struct {
    const char* name;
    void (*run)(const std::string&);
  } tests[] = {
      {"rename replaces its target", test_rename_replaces_its_target},
      {"a push over a replica stays", test_push_over_a_replica_stays},
      {"an old answer is asked again", test_old_answer_is_asked_again},
      {"an owner note answers who waits", test_owner_note_answers_who_waits},
      {"who waits is told of a move", test_who_waits_is_told_of_a_move},
      {"frames before up are kept", test_frames_before_up_are_kept},
      {"two pushers do not overrun a lender", test_two_pushers_do_not_overrun},
      {"what overruns a lender leaves it again", test_what_overruns_leaves_again},
      {"a full disk gives no room", test_full_disk},
      {"pushes have ended when both connections say so", test_pushes_have_ended},
      {"marked pages are told of before they change", test_marked_pages_are_told_of},
      {"a fault that is repeated waits once", test_repeated_fault_waits_once},
      {"layout waits for others", test_layout_waits_for_others},
      {"first touches fill ahead", test_first_touches_fill_ahead},
      {"a set of pages is one", test_page_set},
  };
  for (const auto& test : tests) {
    std::printf("%s\n", test.name);
    std::fflush(stdout);
    test.run(directory);
  }
  run_copies_tests(directory);
  run_limit_tests(directory);
  run_overdue_tests(directory);
  run_hint_tests(directory);
  std::printf("all engine tests passed\n");
  return 0;
}

}  // namespace elastic::test

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  return elastic::test::run_engine_tests(argv[1]);
}
