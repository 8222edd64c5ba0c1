// Owners that do not give a page: one that says nothing, one that says that it has none, and slow ones.
#include "engine_test_kit.hpp"

namespace elastic::test {

namespace {

constexpr int kLooksMax = 2000;

// The page is at node 1, and a thread has asked for it.
void give_away_and_fault(Scene& s, uint64_t page) {
  const int given = s.seen[FrameType::pages], asked = s.seen[FrameType::get];
  s.fault(page);
  s.get(page, 0);
  s.drive_until([&] { return s.seen[FrameType::pages] == given + 1; });
  s.fault(page);
  s.drive_until([&] { return s.seen[FrameType::get] == asked + 1; });
}

void answer_absent(Scene& s, uint64_t page) {
  PageMeta meta{page, 0, 0, kPageAbsent, 0};
  const iovec part{&meta, sizeof meta};
  FrameHeader header;
  header.page = page;
  header.count = 1;
  s.send(*s.urgent, FrameType::pages, header, {&part, 1});
}

// How many looks it takes until the run is given up; `between` happens before each.
int looks_until_given_up(Scene& s, const std::function<void()>& between, std::string& why) {
  for (int looks = 1; looks <= kLooksMax; looks++) {
    between();
    try {
      s.engine.look_for_overdue();
    } catch (const Failure& failure) {
      why = failure.what();
      return looks;
    }
  }
  return 0;
}

void test_silent_owner(const std::string& directory) {
  Scene s(kHome, 1, directory);
  s.join();
  give_away_and_fault(s, kPage);
  std::string why;
  CHECK(looks_until_given_up(
            s, [] {}, why) == 600);
  CHECK(why == "other has page 0x10000 and does not give it: its pager is broken; leave that machine out");
}

void test_owner_that_has_forgotten(const std::string& directory) {
  Scene s(kHome, 1, directory);
  s.join();
  give_away_and_fault(s, kPage);
  std::string why;
  const auto ask_again = [&] {
    const int asked = s.seen[FrameType::get];
    answer_absent(s, kPage);
    s.drive_until([&] { return s.table.peek(kPage).state() == PageState::remote; });
    s.fault(kPage);
    s.drive_until([&] { return s.seen[FrameType::get] == asked + 1; });
  };
  CHECK(looks_until_given_up(s, ask_again, why) == 600);
}

// A page that comes late is no harm, and the next wait for it is a new one. Nor is one that nobody wants any
// more.
void test_slow_owner(const std::string& directory) {
  Scene s(kHome, 1, directory);
  s.join();
  uint64_t version = 0;
  for (int round = 0; round < 4; round++) {
    give_away_and_fault(s, kPage);
    for (int look = 0; look < 500; look++) s.engine.look_for_overdue();
    version = s.table.peek(kPage).version + 1;
    s.send_page(*s.urgent, FrameType::pages, kPage, version, 1);
    s.drive_until([&] { return s.table.peek(kPage).state() == PageState::resident; });
  }
  give_away_and_fault(s, kPage + 1);
  for (int look = 0; look < 500; look++) s.engine.look_for_overdue();
  s.engine.forget(kPage + 1, kPage + 2);
  for (int look = 0; look < 20; look++) s.engine.look_for_overdue();
  give_away_and_fault(s, kPage + 1);
  for (int look = 0; look < 500; look++) s.engine.look_for_overdue();
}

// Others that are asked for later, and whose number is alike, do not hide it.
void test_others_meanwhile(const std::string& directory) {
  Scene s(kHome, 1, directory);
  s.join();
  give_away_and_fault(s, kPage);
  give_away_and_fault(s, kPage + 256);
  std::string why;
  CHECK(looks_until_given_up(
            s, [] {}, why) == 600);
  CHECK(why.starts_with("other has page 0x10000 "));
}

// A participant ends no run: its thread goes home, and home asks.
void test_participant_sends_home(const std::string& directory) {
  Scene s(2, 1, directory);
  s.join();
  Node& node = *s.lanes.find(1);
  s.send_page(*s.bulk, FrameType::push, kPage, 5, 1);
  s.drive_until([&] { return s.table.peek(kPage).state() == PageState::resident; });
  s.get(kPage, 5);
  s.drive_until([&] { return s.seen[FrameType::pages] == 1; });
  s.fault(kPage);
  s.drive_until([&] { return s.seen[FrameType::get] == 1; });
  for (int look = 0; look < 599; look++) s.engine.look_for_overdue();
  CHECK(s.host.sent_home.empty() && node.up);
  s.engine.look_for_overdue();
  CHECK((s.host.sent_home == std::vector<uint64_t>{kPage}));
}

}  // namespace

void run_overdue_tests(const std::string& directory) {
  const std::pair<const char*, void (*)(const std::string&)> tests[] = {
      {"an owner that says nothing of a page", test_silent_owner},
      {"an owner that has forgotten a page", test_owner_that_has_forgotten},
      {"an owner that is slow", test_slow_owner},
      {"pages that come meanwhile hide none that does not", test_others_meanwhile},
      {"a participant sends its thread home", test_participant_sends_home},
  };
  for (const auto& [name, test] : tests) {
    puts(name);
    test(directory);
  }
}

}  // namespace elastic::test
