// What the tests of the ownership engine run against: a real Engine and real Lanes over loopback, and the
// other nodes' ends of the lanes. See engine_test.cpp.
#pragma once

#include <sys/mman.h>

#include <cstring>

#include "../src/engine.hpp"
#include "lane_test_kit.hpp"

namespace elastic::test {

constexpr uint64_t kProcess = 0xabc, kLease = 7, kPage = 0x10000;

inline Region region(uint64_t first, uint64_t pages, int prot, RegionKind kind) {
  Region made;
  made.start = first;
  made.end = first + pages;
  made.prot = prot;
  made.kind = kind;
  return made;
}

struct FakeHost : EngineHost {
  bool leave_for(const FaultEvent&, uint16_t) override { return false; }
  void on_local_fault(const FaultEvent&) override {}
  bool threads_here() const override { return false; }
  bool threads_may_run() const override { return false; }
  bool threads_stay() const override { return stay; }
  bool stay = false;
  bool fill_from_backing(uint64_t, uint8_t*) override { return false; }
  void must_go_home(uint64_t page) override { sent_home.push_back(page); }
  void want_lane(uint16_t) override {}
  void out_of_room(uint64_t) override { out_of_room_calls++; }
  void tell_room() override { tell(); }
  void before_change(uint64_t page) override { told(page); }
  std::function<void()> tell = [] {};
  std::function<void(uint64_t)> told = [](uint64_t) {};
  int out_of_room_calls = 0;
  std::vector<uint64_t> sent_home;
};

void run_copies_tests(const std::string& directory);   // engine_copies_test.cpp
void run_limit_tests(const std::string& directory);    // engine_limit_test.cpp
void run_overdue_tests(const std::string& directory);  // engine_overdue_test.cpp
void run_hint_tests(const std::string& directory);     // engine_hints_test.cpp

// Another node beside the one under test: pushes as far as the last status allows, as fast as it can.
struct Pusher {
  Pusher(Lanes& lanes, uint16_t self) : index(self) {
    urgent = Lane::dial("127.0.0.1", lanes.port(), std::to_string(self), key_of(self));
    bulk = Lane::dial("127.0.0.1", lanes.port(), std::to_string(self), key_of(self));
    for (Lane* lane : {urgent.get(), bulk.get()}) {
      HelloPayload hello;
      hello.node = self;
      hello.lane_kind = lane == bulk.get() ? 1 : 0;
      hello.process_id = kProcess;
      hello.lease_id = self;
      const iovec part{&hello, sizeof hello};
      send(*lane, FrameType::hello, {}, {&part, 1});
    }
  }
  void send(Lane& lane, FrameType type, FrameHeader header, std::span<const iovec> parts) {
    header.type = static_cast<uint16_t>(type);
    header.epoch = header.image = 1;
    lane.send(header, parts);
    lane.flush();
  }
  void turn() {
    for (Lane* lane : {urgent.get(), bulk.get()}) {
      lane->on_event(EPOLLIN | EPOLLOUT);
      Frame frame;
      while (lane->next_frame(frame))
        if (frame.header.type == static_cast<uint16_t>(FrameType::status))
          memcpy(&status, frame.payload.data(), sizeof status);
    }
  }
  bool may_push(size_t pages) const {
    return status.pages_resident + (pushed - status.pages_taken) + pages <= status.pages_limit;
  }
  void push(uint64_t first, size_t pages) {
    std::vector<PageMeta> metas(pages);
    std::vector<uint8_t> bytes(pages * kPageBytes, 0x5a);
    for (size_t i = 0; i < pages; i++) metas[i] = {first + i, 1, 0, kPageData, 0};
    const iovec parts[2] = {{metas.data(), pages * sizeof(PageMeta)}, {bytes.data(), bytes.size()}};
    FrameHeader header;
    header.page = first;
    header.count = static_cast<uint32_t>(pages);
    send(*bulk, FrameType::push, header, parts);
    pushed += static_cast<uint32_t>(pages);
  }
  uint16_t index;
  std::unique_ptr<Lane> urgent, bulk;
  StatusPayload status{};
  uint32_t pushed = 0;
};

// The node under test listens; `urgent` and `bulk` are the other node's ends.
struct Scene : LaneEvents {
  Scene(uint16_t self, uint16_t other, const std::string& directory, uint64_t spill_bytes = 64 << 20)
      : spill(directory, spill_bytes),
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
    regions.insert(region(kPage, 4096, 3, RegionKind::elastic));
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
  void on_frame(Node& node, const Frame& frame, bool) override {
    const auto type = static_cast<FrameType>(frame.header.type);
    if (type == FrameType::status) return lanes.take_status(node, frame);
    if (type == FrameType::ack) return lanes.take_acknowledgement(node, frame);
    engine.on_frame(node, frame);
  }
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

}  // namespace elastic::test
