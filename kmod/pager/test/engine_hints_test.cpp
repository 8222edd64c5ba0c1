// Tests of hints (hints.hpp): where a participant asks first, and what it is told there.
#include "engine_test_kit.hpp"

namespace elastic::test {

namespace {

// Hints of nodes without a lane, or of none, change nothing.
void test_a_hint_needs_a_lane(const std::string& directory) {
  Scene s(2, kHome, directory);
  s.join();
  s.send_page(*s.bulk, FrameType::push, kPage, 5, 1);
  s.drive_until([&] { return s.table.resident() == 1; });
  s.engine.set_hints(3, {{kPage, 8, 9}});  // no lane leads there
  s.engine.set_hints(2, {{kPage, 8, 9}});
  s.engine.set_hints(kNodesMax, {{kPage, 8, 9}});
  s.get(kPage, 0);
  s.drive_until([&] { return s.seen[FrameType::pages] == 1; });
  s.fault(kPage);
  s.drive_until([&] { return s.seen[FrameType::get] == 1; });
  CHECK(s.last[FrameType::get].first.flags == 0 && s.last[FrameType::get].first.version == 6);
  CHECK(s.table.peek(kPage).asked() == kHome && s.table.peek(kPage).known_owner() == kHome);
}

// Who has not got the page says so at once when only a hint led to it, and waits for it otherwise.
void test_a_hint_is_not_waited_for(const std::string& directory) {
  Scene s(2, 3, directory);
  s.join();
  FrameHeader get;
  get.page = kPage;
  get.count = 1;
  get.version = 1;
  s.send(*s.urgent, FrameType::get, get);
  s.settle();
  CHECK(s.seen[FrameType::pages] == 0);
  get.flags = kByHint;
  s.send(*s.urgent, FrameType::get, get);
  s.drive_until([&] { return s.seen[FrameType::pages] == 1; });
  CHECK(s.answered(FrameType::pages).flags == kPageAbsent);
  get.version = 0;
  s.send(*s.urgent, FrameType::get, get);
  s.drive_until([&] { return s.seen[FrameType::pages] == 2; });
  CHECK(s.answered(FrameType::pages).flags == kPageAbsent);
  s.send_page(*s.bulk, FrameType::push, kPage, 5, 77);
  s.drive_until([&] { return s.seen[FrameType::pages] == 3; });  // the one that waited
  CHECK(s.answered_word(FrameType::pages) == 77);
  s.engine.set_hints(3, {{kPage, 8, 9}});
  FrameHeader drop;  // without it the page is one of which this node has never heard
  drop.page = kPage + 1;
  drop.count = 1;
  drop.version = 4;
  s.send(*s.urgent, FrameType::drop, drop);
  s.drive_until([&] { return s.table.peek(kPage + 1).version == 4; });
  s.fault(kPage + 1);
  s.drive_until([&] { return s.seen[FrameType::get] == 1; });
  CHECK(s.last[FrameType::get].first.flags == kByHint);
  CHECK(s.table.peek(kPage + 1).asked() == 3 && s.table.peek(kPage + 1).known_owner() == kHome);
}

}  // namespace

void run_hint_tests(const std::string& directory) {
  std::printf("a hint needs a lane\n");
  test_a_hint_needs_a_lane(directory);
  std::printf("a hint is not waited for\n");
  test_a_hint_is_not_waited_for(directory);
}

}  // namespace elastic::test
