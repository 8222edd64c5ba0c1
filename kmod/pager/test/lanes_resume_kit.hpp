// Two pagers' lanes with a relay between them, for lanes_resume_test.cpp.
#pragma once

#include "engine_test_kit.hpp"
#include "relay.hpp"

namespace elastic::test {

inline uint64_t sum_of(std::span<const uint8_t> bytes) {
  uint64_t sum = 1469598103934665603ull;
  for (const uint8_t byte : bytes) sum = (sum ^ byte) * 1099511628211ull;
  return sum;
}

// One pager's lanes, and what it is to say and has heard on the two connections to the other one.
struct Side : LaneEvents {
  Side(Loop& loop, uint16_t self) : lanes(loop, kProcess, self, *this, counters), other(1 - self) {}
  Node& node() { return *lanes.find(other); }
  // A frame with a number and contents that its number gives.
  void say(bool bulk, size_t payload_bytes) {
    std::vector<uint8_t> bytes(payload_bytes);
    const uint32_t number = ++said[bulk];
    for (size_t i = 0; i < bytes.size(); i++) bytes[i] = static_cast<uint8_t>(number * 7 + i);
    FrameHeader header;
    header.argument = number;
    header.version = sum_of(bytes);
    header.count = static_cast<uint32_t>(payload_bytes);
    const iovec part{bytes.data(), bytes.size()};
    CHECK(lanes.send(node(), FrameType::echo, header, {&part, 1}, bulk));
  }
  void on_up(Node&) override { up = true; }
  void on_down(Node&, const std::string& reason) override { down = reason; }
  void on_frame(Node&, const Frame& frame, bool bulk) override {
    if (frame.header.type != static_cast<uint16_t>(FrameType::echo)) return;
    CHECK(frame.header.argument == ++heard[bulk]);
    CHECK(frame.payload.size() == frame.header.count && sum_of(frame.payload) == frame.header.version);
  }
  void on_refused(const std::string& reason) override { refused = reason; }
  void on_drained(Node&) override {}

  Counters counters;
  Lanes lanes;
  uint16_t other;
  bool up = false;
  std::string down, refused;
  std::array<uint32_t, 2> said{}, heard{};
};

// Node 0 dials node 1 through the relay.
struct Two {
  explicit Two(bool bulk_held = false) {
    one.lanes.listen("127.0.0.1");
    relay = std::make_unique<Relay>(loop, one.lanes.port());
    if (bulk_held)
      relay->plan_of_next = [this] {
        Relay::Plan plan;
        plan.held = relay->accepted() == 2;  // of wires, this one is among them
        return plan;
      };
    one.lanes.add(node_for(0, 0));
    zero.lanes.add(node_for(1, relay->port()));
    drive([&] { return bulk_held ? one.node().greeted[0] && zero.node().greeted[0] : zero.up && one.up; });
  }
  static Node node_for(uint16_t index, uint16_t port) {
    Node node;
    node.index = index;
    node.name = "other";
    node.host = "127.0.0.1";
    node.port = port;
    node.key = key_of(1);
    node.lease.id = kLease;
    node.lease.expires_us = now_us() + 60'000'000;
    return node;
  }
  void drive(const std::function<bool()>& done, uint64_t seconds = 20) {
    const uint64_t give_up_us = now_us() + seconds * 1'000'000;
    while (!done()) {
      CHECK(now_us() < give_up_us);
      loop.run_once(1);
    }
  }
  void settle() {
    for (const uint64_t until = now_us() + 30'000; now_us() < until;) loop.run_once(1);
  }
  bool all_heard() const { return zero.heard == one.said && one.heard == zero.said; }
  bool unharmed() const {
    return zero.down.empty() && one.down.empty() && zero.counters.frames_refused == 0 &&
           one.counters.frames_refused == 0;
  }

  Loop loop;
  Side zero{loop, 0}, one{loop, 1};
  std::unique_ptr<Relay> relay;
};

}  // namespace elastic::test
