// Tests of a memory limit that moves: how fast a lower one comes into force, and where it stops.
#include <algorithm>

#include "engine_test_kit.hpp"

namespace elastic::test {

namespace {

constexpr uint64_t kLower = 1024, kHad = 3000;
constexpr int kAway = 400;  // more than the reserve takes

void fill(Scene& s, uint64_t pages) {
  s.loop.watch(s.spill.event_fd(), EPOLLIN, [&s](uint32_t) { s.spill.drain(); });
  std::vector<uint8_t> bytes(kPageBytes);
  for (uint64_t i = 0; i < pages; i++) {
    memcpy(bytes.data(), &i, sizeof i);
    s.engine.adopt(kPage + i, bytes.data());
  }
}

uint64_t word_of(Scene& s, uint64_t page) {
  std::vector<uint8_t> bytes(kPageBytes);
  uint64_t word = 0;
  CHECK(s.engine.read_copy(page, bytes.data()));
  memcpy(&word, bytes.data(), sizeof word);
  return word;
}

void test_a_lower_limit_leaves_faults_alone(const std::string& directory) {
  Scene s(kHome, 1, directory);
  fill(s, kHad);
  s.engine.move_limit(kLower);
  CHECK(s.engine.limit() == kLower);
  s.turn();
  s.fault(kPage + kHad);
  CHECK(s.table.peek(kPage + kHad).state() == PageState::resident);
  CHECK(s.table.resident() > kHad - 256);  // it has not made room for all that is too much
  s.drive_until([&] { return s.table.resident() <= kLower; });
  s.engine.move_limit(4096);
  for (uint64_t i = 0; i < kHad; i++) s.fault(kPage + i);
  s.drive_until([&] { return s.table.resident() > kHad; });
  for (uint64_t i = 0; i < kHad; i++) CHECK(word_of(s, kPage + i) == i);
}

// The disk takes 256 pages and nobody lends: the program keeps the room it had, also for pages that are new.
void test_a_lower_limit_ends_no_run(const std::string& directory) {
  Scene s(kHome, 1, directory, 1 << 20);
  fill(s, kHad);
  s.engine.move_limit(kLower);
  s.settle();
  CHECK(s.table.resident() < kHad && s.table.resident() > kHad - 512);
  for (uint64_t page = kPage + kHad; page < kPage + 4000; page++) {
    s.fault(page);
    s.drive_until([&] { return s.table.peek(page).state() == PageState::resident; });
    if (page % 100 == 0) s.engine.move_limit(kLower);  // whoever wants it says so again and again
  }
  CHECK(s.host.out_of_room_calls == 0);
}

// A step at a time, of which only the first one is waited for.
void test_a_limit_gives_way_in_steps(const std::string& directory) {
  Scene s(kHome, 1, directory, 1 << 20);
  fill(s, kHad);
  s.engine.move_limit(kLower);
  s.settle();
  uint64_t page = kPage + kHad, steps = 0, longest_us = 0;
  for (uint64_t limit = s.engine.limit(); s.engine.limit() < 4096; page++) {
    CHECK(page < kPage + 4096);
    const uint64_t asked_us = now_us();
    s.fault(page);
    s.drive_until([&] { return s.table.peek(page).state() == PageState::resident; });
    if (s.engine.limit() == limit) continue;
    if (steps++ > 0) longest_us = std::max(longest_us, now_us() - asked_us);
    limit = s.engine.limit();
  }
  CHECK(steps > 2);
  CHECK(longest_us < 1'500'000);  // one wait is 2 s
  CHECK(s.host.out_of_room_calls == 0);
}

// The disk takes no more and nobody else lends: what the node has comes here all the same.
void test_a_limit_gives_way_to_a_node_that_leaves(const std::string& directory) {
  Scene s(kHome, 1, directory, 1 << 20);
  s.join();
  fill(s, kHad);
  for (int i = 0; i < kAway; i++) s.get(kPage + i, 0);
  s.drive_until([&] { return s.seen[FrameType::pages] == kAway; });
  s.engine.move_limit(kLower);
  s.settle();
  CHECK(s.table.resident() > kHad - 1024);
  s.lanes.find(1)->draining = true;
  std::vector<bool> answered(kAway);
  s.drive_until([&] {
    for (int i = 0; i < kAway; i++) {
      if (answered[i] || s.table.peek(kPage + i).state() != PageState::in_flight) continue;
      s.send_page(*s.urgent, FrameType::pages, kPage + i, 9, i);
      answered[i] = true;
    }
    return s.engine.fetch_from(1);
  });
  for (uint64_t i = 0; i < kAway; i++) CHECK(word_of(s, kPage + i) == i);
}

// What the other node has comes back while a quarter is free, and not where threads go there instead.
void test_pages_come_home(const std::string& directory) {
  Scene s(kHome, 1, directory);
  s.join();
  fill(s, 40);
  for (uint64_t i = 0; i < 40; i++) s.get(kPage + i, 0);
  s.drive_until([&] { return s.seen[FrameType::pages] == 40; });
  s.engine.bring_home();
  s.settle();
  CHECK(s.seen[FrameType::get] == 0);
  s.host.stay = true;
  s.engine.bring_home();
  s.drive_until([&] { return s.seen[FrameType::get] == 2; });
  CHECK(s.last[FrameType::get].first.page == kPage + 32 && s.last[FrameType::get].first.count == 8);
  for (uint64_t i = 0; i < 40; i++) s.send_page(*s.urgent, FrameType::pages, kPage + i, 9, i);
  s.drive_until([&] { return s.table.resident() == 40; });
}

void test_no_page_comes_where_it_is_full(const std::string& directory) {
  Scene s(kHome, 1, directory);
  s.join();
  s.host.stay = true;
  fill(s, 1200);
  s.get(kPage, 0);
  s.drive_until([&] { return s.seen[FrameType::pages] == 1; });
  s.engine.set_limit(1500);
  s.engine.bring_home();
  s.settle();
  CHECK(s.seen[FrameType::get] == 0);
  s.engine.move_limit(2000);
  s.engine.bring_home();
  s.drive_until([&] { return s.seen[FrameType::get] == 1; });
}

}  // namespace

void run_limit_tests(const std::string& directory) {
  const std::pair<const char*, void (*)(const std::string&)> tests[] = {
      {"a lower limit leaves faults alone", test_a_lower_limit_leaves_faults_alone},
      {"a lower limit ends no run", test_a_lower_limit_ends_no_run},
      {"a limit gives way in steps", test_a_limit_gives_way_in_steps},
      {"a limit gives way to a node that leaves", test_a_limit_gives_way_to_a_node_that_leaves},
      {"pages come home", test_pages_come_home},
      {"no page comes where it is full", test_no_page_comes_where_it_is_full},
  };
  for (const auto& [name, test] : tests) {
    puts(name);
    test(directory);
  }
}

}  // namespace elastic::test
