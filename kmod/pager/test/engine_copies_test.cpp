// Tests of inactive copies: what a lender keeps of a page that it gives to home, and what home offers back.
// See engine_test.cpp.
#include "engine_test_kit.hpp"

namespace elastic::test {

namespace {

constexpr uint64_t kWord = 0x1122334455667788;

void offer(Scene& s, uint64_t page, uint64_t version) {
  PageMeta meta{page, version, 0, kPageOffered, 0};
  const iovec part{&meta, sizeof meta};
  FrameHeader header;
  header.page = page;
  header.count = 1;
  const int answers = s.seen[FrameType::pages];
  s.send(*s.bulk, FrameType::push, header, {&part, 1});
  s.drive_until([&] { return s.seen[FrameType::pages] == answers + 1; });
}

void get_for_reading(Scene& s, uint64_t page, uint64_t version) {
  FrameHeader header;
  header.page = page;
  header.count = 1;
  header.version = version;
  header.flags = kKeepsCopies;
  const int answers = s.seen[FrameType::pages];
  s.send(*s.urgent, FrameType::get, header);
  s.drive_until([&] { return s.seen[FrameType::pages] == answers + 1; });
}

// A lender that has given `page` to home as version 6 and keeps a copy.
struct Keeper : Scene {
  Keeper(const std::string& directory, uint64_t page) : Scene(2, kHome, directory) {
    join();
    send_page(*bulk, FrameType::push, page, 5, kWord);
    drive_until([&] { return table.resident() == 1; });
    get_for_reading(*this, page, 5);
    CHECK(answered_word(FrameType::pages) == kWord && answered(FrameType::pages).version == 6);
    CHECK(last[FrameType::pages].first.flags == kKeepsCopies && table.resident() == 0);
  }
};

void test_lender_takes_what_it_kept(const std::string& directory) {
  Keeper s(directory, kPage);
  offer(s, kPage, 7);
  const PageMeta taken = s.answered(FrameType::pages);
  CHECK(taken.flags == kPageMoved && taken.owner == 2 && taken.version == 7 && s.table.resident() == 1);
  s.get(kPage, 7);
  s.drive_until([&] { return s.answered(FrameType::pages).flags == kPageData; });
  CHECK(s.answered_word(FrameType::pages) == kWord && s.answered(FrameType::pages).version == 8);
  offer(s, kPage, 9);  // not asked to keep it this time
  CHECK(s.answered(FrameType::pages).flags == kPageAbsent && s.table.resident() == 0);
}

void test_lender_refuses_what_is_old(const std::string& directory) {
  Keeper s(directory, kPage);
  offer(s, kPage, 8);  // another life of the page
  CHECK(s.answered(FrameType::pages).flags == kPageAbsent);
  s.send_page(*s.bulk, FrameType::push, kPage, 9, 99);  // it was written at home
  s.drive_until([&] { return s.table.resident() == 1; });
  offer(s, kPage, 7);
  CHECK(s.answered(FrameType::pages).flags == kPageAbsent);
  get_for_reading(s, kPage, 9);
  CHECK(s.answered_word(FrameType::pages) == 99);
  FrameHeader drop;
  drop.page = kPage;
  drop.count = 1;
  drop.version = 1ull << 32;
  s.send(*s.urgent, FrameType::drop, drop);
  s.settle();
  offer(s, kPage, 11);
  CHECK(s.answered(FrameType::pages).flags == kPageAbsent);
  CHECK(s.table.peek(kPage).state() == PageState::untouched && s.engine.empty());
}

void test_lender_gives_up_copies_for_room(const std::string& directory) {
  Keeper s(directory, kPage);
  s.engine.discard_copies();
  offer(s, kPage, 7);
  CHECK(s.answered(FrameType::pages).flags == kPageAbsent);
  Keeper full(directory, kPage);
  full.engine.set_limit(64);
  for (uint64_t i = 1; i <= 64; i++) full.send_page(*full.bulk, FrameType::push, kPage + i, 5, i);
  full.settle();
  offer(full, kPage, 7);
  CHECK(full.answered(FrameType::pages).flags == kPageAbsent);
}

// Home that has pulled `kPage` for reading as version 3, and has offered it back.
struct Offering : Scene {
  explicit Offering(const std::string& directory, bool write = false) : Scene(kHome, 1, directory) {
    host.stay = true;
    join();
    get(kPage, 0);
    drive_until([&] { return seen[FrameType::pages] == 1; });
    fault(kPage);
    drive_until([&] { return seen[FrameType::get] == 1; });
    CHECK(last[FrameType::get].first.flags == kKeepsCopies);
    version = answered(FrameType::pages).version + 1;
    PageMeta meta{kPage, version, 0, kPageData, 0};
    std::vector<uint8_t> bytes(kPageBytes, 0x77);
    const iovec parts[2] = {{&meta, sizeof meta}, {bytes.data(), bytes.size()}};
    FrameHeader header;
    header.page = kPage;
    header.count = 1;
    header.flags = kKeepsCopies;
    send(*urgent, FrameType::pages, header, parts);
    drive_until([&] { return table.resident() == 1; });
    CHECK(table.peek(kPage).copy_at() == 1);
    if (write) protected_write();
    engine.set_limit(16);
  }
  void protected_write() {
    FaultEvent event;
    event.page = kPage;
    event.tid = 1;
    event.write = event.write_protected = true;
    engine.on_fault(event);
  }
  void wait_for_offer() {
    drive_until([&] { return seen[FrameType::push] == 1; });
    CHECK(answered(FrameType::push).flags == kPageOffered &&
          answered(FrameType::push).version == version + 1);
    CHECK(table.resident() == 1);
  }
  void answer(uint16_t flags) {
    PageMeta meta{kPage, version + 1, 0, flags, 1};
    const iovec part{&meta, sizeof meta};
    FrameHeader header;
    header.page = kPage;
    header.count = 1;
    send(*urgent, FrameType::pages, header, {&part, 1});
    settle();
  }
  uint64_t version = 0;
};

void test_home_drops_what_is_taken(const std::string& directory) {
  Offering s(directory);
  s.wait_for_offer();
  s.get(kPage, 0);  // somebody else's: waits for the answer
  s.settle();
  CHECK(s.seen[FrameType::pages] == 1 && s.table.resident() == 1);
  s.answer(kPageMoved);
  const PageEntry& e = s.table.peek(kPage);
  CHECK(e.state() == PageState::remote && e.where == 1 && e.version == s.version + 1 &&
        s.table.resident() == 0);
  CHECK(s.seen[FrameType::pages] == 2 && s.answered(FrameType::pages).flags == kPageMoved);
}

void test_home_keeps_what_is_refused(const std::string& directory) {
  Offering s(directory);
  s.wait_for_offer();
  s.answer(kPageAbsent);  // goes to the disk then: the other has told of no room
  s.drive_until([&] { return s.table.peek(kPage).state() == PageState::spilled; });
  uint8_t bytes[kPageBytes];
  CHECK(s.engine.read_copy(kPage, bytes) && bytes[0] == 0x77 && bytes[kPageBytes - 1] == 0x77);
}

void test_written_pages_are_not_offered(const std::string& directory) {
  Offering s(directory, true);
  s.drive_until([&] { return s.table.peek(kPage).state() == PageState::spilled; });
  CHECK(s.seen[FrameType::push] == 0);
}

void test_pages_end_while_offered(const std::string& directory) {
  Offering s(directory);
  s.wait_for_offer();
  s.protected_write();  // waits
  s.engine.forget(kPage, kPage + 1);
  s.drive_until([&] { return s.seen[FrameType::drop] == 1; });
  CHECK(s.last[FrameType::drop].first.page == kPage);
  s.answer(kPageMoved);
  CHECK(s.table.peek(kPage).state() == PageState::untouched && s.table.resident() == 0);
}

void test_pinned_pages_wait_for_the_answer(const std::string& directory) {
  Offering s(directory);
  s.wait_for_offer();
  bool pinned = false;
  s.engine.make_resident({kPage}, true, [&] { pinned = true; });
  s.settle();
  CHECK(!pinned);
  s.engine.set_limit(4096);
  s.answer(kPageMoved);
  s.drive_until([&] { return s.seen[FrameType::get] == 2; });
  CHECK(s.last[FrameType::get].first.flags == 0);
  s.send_page(*s.urgent, FrameType::pages, kPage, s.version + 2, kWord);
  s.drive_until([&] { return pinned; });
  CHECK(s.table.peek(kPage).copy_at() == 0 && s.table.resident() == 1);
}

}  // namespace

void run_copies_tests(const std::string& directory) {
  const std::pair<const char*, void (*)(const std::string&)> tests[] = {
      {"a lender takes what it kept", test_lender_takes_what_it_kept},
      {"a lender refuses what is old", test_lender_refuses_what_is_old},
      {"a lender gives up copies for room", test_lender_gives_up_copies_for_room},
      {"home drops what is taken", test_home_drops_what_is_taken},
      {"home keeps what is refused", test_home_keeps_what_is_refused},
      {"written pages are not offered", test_written_pages_are_not_offered},
      {"pages end while offered", test_pages_end_while_offered},
      {"pinned pages wait for the answer", test_pinned_pages_wait_for_the_answer},
  };
  for (const auto& [name, test] : tests) {
    puts(name);
    test(directory);
  }
}

}  // namespace elastic::test
