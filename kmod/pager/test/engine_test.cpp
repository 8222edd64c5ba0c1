// Tests of the ownership engine against a node that says exactly what the test wants, in any order on the two
// connections: a real Engine and real Lanes over loopback, without an application (pages are in the memory
// file). Each test prints its name; the first failed check ends the program with status 1.
#include <cstring>

#include "../src/engine.hpp"
#include "lane_test_kit.hpp"

namespace elastic::test {

namespace {

constexpr uint64_t kProcess = 0xabc, kLease = 7, kPage = 0x10000;

struct FakeHost : EngineHost {
  bool leave_for(const FaultEvent&, uint16_t) override { return false; }
  void on_local_fault(const FaultEvent&) override {}
  void on_page_arrived(uint64_t) override {}
  bool threads_here() const override { return false; }
  bool threads_may_run() const override { return false; }
  bool fill_from_backing(uint64_t, uint8_t*) override { return false; }
  void must_go_home(uint64_t) override {}
  void want_lane(uint16_t) override {}
  void out_of_room(uint64_t) override { out_of_room_calls++; }
  int out_of_room_calls = 0;
};

// The node under test listens; `urgent` and `bulk` are the other node's ends.
struct Scene : LaneEvents {
  Scene(uint16_t self, uint16_t other, const std::string& directory)
      : spill(directory, 64 << 20),
        lanes(loop, kProcess, self, *this, counters),
        engine(loop, memory, table, regions, lanes, spill, host, {self, 4096}, counters),
        other_index(other) {
    lanes.listen("127.0.0.1");
    Node node;
    node.index = other;
    node.name = "other";
    node.key = key_of(1);
    node.lease.id = kLease;
    node.lease.expires_us = now_us() + 60'000'000;
    lanes.add(std::move(node));
    regions.insert({kPage, kPage + 4096, 3, RegionKind::elastic, nullptr, 0, false, false, ""});
    urgent = Lane::dial("127.0.0.1", lanes.port(), std::to_string(kLease), key_of(1));
    bulk = Lane::dial("127.0.0.1", lanes.port(), std::to_string(kLease), key_of(1));
  }
  void hello(Lane& lane, uint16_t kind) {
    HelloPayload hello;
    hello.node = other_index;
    hello.lane_kind = kind;
    hello.process_id = kProcess;
    hello.lease_id = kLease;
    const iovec part{&hello, sizeof hello};
    send(lane, FrameType::hello, {}, {&part, 1});
  }
  void join() {
    hello(*urgent, 0);
    hello(*bulk, 1);
    drive_until([this] { return up; });
  }
  void send(Lane& lane, FrameType type, FrameHeader header, std::span<const iovec> parts = {}) {
    header.type = static_cast<uint16_t>(type);
    header.epoch = 1;
    header.image = 1;
    lane.send(header, parts);
    lane.flush();
  }
  // A frame of one page with data that begins with `word`.
  void send_page(Lane& lane, FrameType type, uint64_t page, uint64_t version, uint64_t word) {
    PageMeta meta{page, version, 0, kPageData, 0};
    std::vector<uint8_t> bytes(kPageBytes);
    memcpy(bytes.data(), &word, sizeof word);
    const iovec parts[2] = {{&meta, sizeof meta}, {bytes.data(), bytes.size()}};
    FrameHeader header;
    header.page = page;
    header.count = 1;
    send(lane, type, header, parts);
  }
  void get(uint64_t page, uint64_t version) {
    FrameHeader header;
    header.page = page;
    header.count = 1;
    header.version = version;
    send(*urgent, FrameType::get, header);
  }
  void turn() {
    loop.run_once(2);
    for (Lane* lane : {urgent.get(), bulk.get()}) {
      lane->on_event(EPOLLIN | EPOLLOUT);
      Frame frame;
      while (lane->next_frame(frame)) {
        const auto type = static_cast<FrameType>(frame.header.type);
        seen[type]++;
        last[type] = {frame.header, {frame.payload.begin(), frame.payload.end()}};
      }
    }
  }
  void drive_until(const std::function<bool()>& done) {
    const uint64_t give_up_us = now_us() + 5'000'000;
    while (!done()) {
      CHECK(now_us() < give_up_us);
      turn();
    }
  }
  void settle() {
    for (const uint64_t until = now_us() + 60'000; now_us() < until;) turn();
  }
  PageMeta answered(FrameType type) {
    PageMeta meta;
    CHECK(last[type].second.size() >= sizeof meta);
    memcpy(&meta, last[type].second.data(), sizeof meta);
    return meta;
  }
  uint64_t answered_word(FrameType type) {
    uint64_t word = 0;
    CHECK(last[type].second.size() >= sizeof(PageMeta) + kPageBytes);
    memcpy(&word, last[type].second.data() + sizeof(PageMeta), sizeof word);
    return word;
  }
  void fault(uint64_t page) {
    FaultEvent event;
    event.page = page;
    event.tid = 1;
    engine.on_fault(event);
  }
  // LaneEvents
  void on_up(Node& node) override { up = node.synced = true; }
  void on_down(Node&, const std::string&) override {}
  void on_frame(Node& node, const Frame& frame, bool) override { engine.on_frame(node, frame); }
  void on_refused(const std::string&) override {}
  void on_drained(Node&) override {}

  Loop loop;
  Counters counters;
  Memory memory;
  PageTable table;
  RegionMap regions;
  Spill spill;
  FakeHost host;
  Lanes lanes;
  Engine engine;
  uint16_t other_index;
  bool up = false;
  std::unique_ptr<Lane> urgent, bulk;
  std::map<FrameType, int> seen;
  std::map<FrameType, std::pair<FrameHeader, std::vector<uint8_t>>> last;
};

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
  s.regions.insert({kPage, kPage + 1, 1, RegionKind::replica, nullptr, 0, false, false, ""});
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

void test_frames_before_up_are_kept(const std::string& directory) {
  Scene s(kHome, 1, directory);
  s.hello(*s.urgent, 0);
  s.get(kPage, 0);
  s.settle();
  CHECK(!s.up);
  s.hello(*s.bulk, 1);
  s.drive_until([&] { return s.seen[FrameType::pages] == 1; });
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
      {"frames before up are kept", test_frames_before_up_are_kept},
  };
  for (const auto& test : tests) {
    std::printf("%s\n", test.name);
    std::fflush(stdout);
    test.run(directory);
  }
  std::printf("all engine tests passed\n");
  return 0;
}

}  // namespace elastic::test

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  return elastic::test::run_engine_tests(argv[1]);
}
