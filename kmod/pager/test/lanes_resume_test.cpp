// A lane whose connections are cut, between two real Lanes over a relay: wherever the cut falls, each side
// sees every frame of the other one once and in order. And who may not resume: what was never sent, what was
// acknowledged, another lease, a fresh start, a recording.
#include <cstring>

#include "../src/lane_tls.hpp"
#include "lanes_resume_kit.hpp"

namespace elastic::test {

namespace {

// Some frames each way on both connections, of which the named one is cut after so many bytes.
int exchange_with_cut(size_t wire, int direction, uint64_t bytes, Relay::Cut cut) {
  Two two;
  Relay::Plan plan;
  plan.bytes[direction] = bytes;
  plan.cut = cut;
  two.relay->set_plan(wire, plan);
  for (const size_t payload : {0, 300, 40, 0, 90}) {
    for (Side* side : {&two.zero, &two.one})
      for (const bool bulk : {false, true}) side->say(bulk, payload);
    two.loop.run_once(1);
  }
  two.drive([&] { return two.all_heard(); });
  CHECK(two.unharmed());
  return two.relay->cuts();
}

void test_cut_anywhere(uint64_t step) {
  const Relay::Cut cuts[] = {Relay::Cut::both, Relay::Cut::dialler_only, Relay::Cut::reset};
  for (const size_t wire : {0, 1})
    for (const int direction : {0, 1}) {
      uint64_t bytes = 1;
      while (exchange_with_cut(wire, direction, bytes, cuts[bytes / step % std::size(cuts)]) > 0)
        bytes += step;
      std::printf("  connection %zu, direction %d: cut at each %lu of %lu bytes\n", wire, direction, step,
                  bytes);
    }
}

size_t payload_of(Random& random) {
  const uint64_t kind = random.below(10);
  return random.below(kind < 6 ? 100 : kind < 9 ? 5000 : 90'000);
}

// Every connection is cut again after a while, whatever it was doing: in its handshake too. Now and then
// one lasts long enough for the largest frame.
int cuts_survived(uint64_t seed) {
  Random random(seed);
  Two two;
  const auto plan = [&random] {
    Relay::Plan next;
    next.bytes[random.below(2)] = 1 + random.below(random.below(4) == 0 ? 2000 : 300'000);
    next.cut = static_cast<Relay::Cut>(random.below(4));
    if (next.cut == Relay::Cut::listener_only) next.cut = Relay::Cut::both;  // the dialler must learn of it
    return next;
  };
  two.relay->plan_of_next = plan;
  for (const size_t wire : {0, 1}) two.relay->set_plan(wire, plan());
  for (int round = 0; round < 60; round++) {
    for (Side* side : {&two.zero, &two.one})
      for (const bool bulk : {false, true})
        if (random.below(3) != 0) side->say(bulk, payload_of(random));
    if (random.below(3) == 0) two.loop.run_once(1);
  }
  two.drive([&] { return two.all_heard(); }, 60);
  if (!two.unharmed())
    std::fprintf(stderr, "seed %lu: %s %s\n", seed, two.zero.down.c_str(), two.one.refused.c_str());
  CHECK(two.unharmed());
  return two.relay->cuts();
}

void test_cut_again_and_again(uint64_t seeds) {
  int cuts = 0;
  for (uint64_t seed = 1; seed <= seeds; seed++) cuts += cuts_survived(seed);
  std::printf("  %lu seeds, %d cuts\n", seeds, cuts);
  CHECK(static_cast<uint64_t>(cuts) > 2 * seeds);
}

// Nobody listens any more, and nobody dials: both sides give up, and say why.
void test_not_resumed() {
  Two two;
  two.relay.reset();
  two.drive([&] { return !two.zero.down.empty() && !two.one.down.empty(); });
  CHECK(two.zero.down.find("; then refused for 3 s") != std::string::npos);
  CHECK(two.one.down.find("; not resumed within 4 s") != std::string::npos);
  CHECK(two.zero.counters.frames_refused == 0 && two.one.counters.frames_refused == 0);
}

// Connections come about, and each breaks before the frame that waits is through.
void test_no_frame_gets_through() {
  Two two;
  Relay::Plan plan;
  plan.bytes[0] = 20'000;
  two.relay->plan_of_next = [plan] { return plan; };
  two.relay->set_plan(0, plan);
  two.zero.say(false, 90'000);
  two.drive([&] { return !two.zero.down.empty() && !two.one.down.empty(); });
  CHECK(two.zero.down.find("; not resumed within 4 s") != std::string::npos);
  CHECK(two.zero.counters.lanes_resumed > 2 && two.relay->accepted() < 100);
}

// What only one side sends is acknowledged too, and no more is kept than the bound says.
void test_one_way_is_acknowledged() {
  Two two;
  Side& from = two.zero;
  size_t most = 0;
  for (int left = 400; left > 0 || !two.all_heard();) {
    for (; left > 0 && from.lanes.bulk_has_room(from.node()); left--) from.say(true, 128 << 10);
    most = std::max(most, from.node().bulk->kept_bytes());
    two.loop.run_once(1);
  }
  CHECK(most < kKeptBytesMax + (256 << 10) && most > 0);
  FrameHeader nothing;
  two.zero.lanes.acknowledge(two.zero.node());  // as a tick does
  two.one.lanes.acknowledge(two.one.node());
  two.drive([&] { return from.node().bulk->kept_bytes() < 1000; });
}

// More than may be kept, all in one round: whether the other side reads is seen after that.
void test_much_at_once() {
  Two two;
  for (size_t bytes = 0; bytes <= kQueueBytesMax; bytes += 128 << 10) two.zero.say(true, 128 << 10);
  CHECK(two.zero.node().bulk->kept_bytes() > kQueueBytesMax);
  two.drive([&] { return two.all_heard(); });
  CHECK(two.unharmed() && two.relay->accepted() == 2);
}

// What was said before a connection broke does not mean that this side may end.
void test_more_may_come_in_a_gap() {
  Two two;
  Node& node = two.zero.node();
  node.closed_sequence = node.read_sequence = node.urgent->sequence_sent();
  two.one.say(false, 10);
  two.drive([&] { return two.zero.lanes.no_more_pushed(); });
  Relay::Plan plan;
  plan.bytes[1] = 1;
  two.relay->set_plan(1, plan);
  two.one.say(true, 10);
  two.drive([&] { return node.has_gap(); });
  CHECK(!two.zero.lanes.no_more_pushed());
  two.drive([&] { return two.all_heard(); });
  CHECK(two.zero.lanes.no_more_pushed() && two.unharmed());
}

// Half of a pair: what comes on it waits without waking the loop, and not for ever.
void test_half_of_a_pair() {
  {
    Two two(true);
    FrameHeader header;
    header.type = static_cast<uint16_t>(FrameType::status);
    header.epoch = header.image = 1;
    StatusPayload status{};
    const iovec part{&status, sizeof status};
    for (int i = 0; i < 2; i++) {
      for (Side* side : {&two.zero, &two.one}) side->node().urgent->send(header, {&part, 1});
      two.settle();
    }
    int rounds = 0;
    for (const uint64_t until = now_us() + 500'000; now_us() < until; rounds++) two.loop.run_once(100);
    std::printf("  %d rounds in 0.5 s\n", rounds);
    CHECK(rounds < 100);
    two.relay->release(1);
    two.drive([&] { return two.zero.up && two.one.up; });
    for (Side* side : {&two.zero, &two.one})
      for (const bool bulk : {false, true}) side->say(bulk, 20);
    two.drive([&] { return two.all_heard(); });
    CHECK(two.unharmed());
  }
  Two two(true);
  two.drive([&] { return two.one.lanes.find(0) == nullptr && two.zero.lanes.find(1) == nullptr; });
}

// Connections of which nothing comes fill the table; a lane is resumed all the same.
void test_idle_connections() {
  Two two;
  std::vector<Fd> idle;
  for (int i = 0; i < 2 * kMaxPendingLanes; i++) {
    idle.push_back(start_connect("127.0.0.1", two.one.lanes.port()));
    two.loop.run_once(1);
  }
  two.settle();
  Relay::Plan plan;
  plan.bytes[0] = 1;
  two.relay->set_plan(0, plan);
  two.zero.say(false, 10);
  two.drive([&] { return two.all_heard(); });
  CHECK(two.unharmed() && two.relay->accepted() == 3);
}

// One connection goes silent and nobody is told; then both, which is not the connections' fault.
void test_silent_alone() {
  for (const bool bulk : {false, true}) {
    Two two;
    uint64_t tick_us = 0;
    const auto tick = [&] {
      if (now_us() < tick_us) return;
      tick_us = now_us() + 50'000;
      for (Side* side : {&two.zero, &two.one})
        for (const bool each : {false, true}) side->say(each, 20);
    };
    two.relay->hold(bulk);
    two.drive([&] {
      tick();
      return two.relay->accepted() == 3 && two.zero.counters.lanes_resumed == 1;
    });
    two.drive([&] { return two.all_heard(); });
    for (const size_t wire : {bulk ? 0 : 1, 2}) two.relay->hold(wire);
    for (const uint64_t until = now_us() + 2'500'000; now_us() < until; two.loop.run_once(1)) tick();
    for (const size_t wire : {bulk ? 0 : 1, 2}) two.relay->release(wire);
    two.drive([&] { return two.all_heard(); });
    CHECK(two.unharmed() && two.relay->accepted() == 3);
  }
}

// Somebody who has the key of the lease and writes what he likes.
struct Stranger {
  explicit Stranger(uint16_t port) : tls(std::to_string(kLease), key_of(1)) {
    fd = start_connect("127.0.0.1", port);
  }
  void turn() {
    if (!up) up = tls.handshake() == TlsEnd::Step::done;
    if (up && !bytes.empty()) {
      tls.write(bytes.data(), bytes.size());
      bytes.clear();
    }
    ByteQueue& out = tls.outgoing();
    const ssize_t sent = ::send(fd.get(), out.data(), out.size(), MSG_NOSIGNAL);
    if (sent > 0) out.consume(static_cast<size_t>(sent));
    const ssize_t got = recv(fd.get(), tls.incoming().reserve(4096), 4096, MSG_DONTWAIT);
    if (got > 0) tls.incoming().commit(static_cast<size_t>(got));
  }
  TlsEnd tls;
  Fd fd;
  bool up = false;
  std::vector<uint8_t> bytes;
};

// Two frames have come and been acknowledged each way, and one more is out: what was there has to go on.
void expect_turned_away(const std::function<void(FrameHeader&, HelloPayload&)>& spoil) {
  Two two;
  for (Side* side : {&two.zero, &two.one}) side->say(false, 10);
  two.drive([&] { return two.all_heard(); });
  for (Side* side : {&two.zero, &two.one}) side->say(false, 10);
  two.drive([&] { return two.all_heard() && two.one.node().urgent->sequence_acked() >= 2; });
  FrameHeader header;
  header.type = static_cast<uint16_t>(FrameType::hello);
  header.payload_bytes = sizeof(HelloPayload);
  header.epoch = header.image = 1;
  header.version = two.one.node().urgent->sequence_sent();  // as one who may resume
  HelloPayload hello;
  hello.process_id = kProcess;
  hello.lease_id = kLease;
  spoil(header, hello);
  Stranger stranger(two.one.lanes.port());
  const auto* raw = reinterpret_cast<const uint8_t*>(&header);
  stranger.bytes.assign(raw, raw + sizeof header);
  raw = reinterpret_cast<const uint8_t*>(&hello);
  stranger.bytes.insert(stranger.bytes.end(), raw, raw + sizeof hello);
  two.drive([&] {
    stranger.turn();
    return two.one.counters.frames_refused > 0;
  });
  for (Side* side : {&two.zero, &two.one}) side->say(false, 20);
  two.drive([&] { return two.all_heard(); });
  CHECK(two.zero.down.empty() && two.one.down.empty() && two.relay->accepted() == 2);
}

void test_who_may_not_resume() {
  expect_turned_away([](FrameHeader& h, HelloPayload&) { h.version++; });    // was never sent
  expect_turned_away([](FrameHeader& h, HelloPayload&) { h.version = 1; });  // acknowledged more before
  expect_turned_away([](FrameHeader& h, HelloPayload&) { h.version = ~0ull; });
  expect_turned_away([](FrameHeader& h, HelloPayload&) { h.version = 0; });  // no kind of hello
  expect_turned_away([](FrameHeader& h, HelloPayload&) {  // begins anew: not the one that was here
    h.version = 0;
    h.sequence = 1;
  });
  expect_turned_away([](FrameHeader& h, HelloPayload&) { h.epoch++; });
  expect_turned_away([](FrameHeader&, HelloPayload& hello) { hello.process_id++; });
  expect_turned_away([](FrameHeader&, HelloPayload& hello) { hello.lease_id++; });
  expect_turned_away([](FrameHeader&, HelloPayload& hello) { hello.node = 2; });
}

// What went over the wire when a lane was resumed, once more: the handshake is another one.
void test_a_recording_does_not_resume() {
  Two two;
  Relay::Plan plan;
  plan.bytes[0] = 1;
  two.relay->set_plan(0, plan);
  two.zero.say(false, 10);
  two.drive([&] { return two.all_heard() && two.relay->accepted() == 3; });
  two.settle();
  const std::vector<uint8_t> recorded = two.relay->heard(2);
  CHECK(recorded.size() > 300);
  Fd fd = start_connect("127.0.0.1", two.one.lanes.port());
  two.settle();
  CHECK(::send(fd.get(), recorded.data(), recorded.size(), MSG_NOSIGNAL) > 0);
  two.drive([&] { return two.one.counters.frames_refused > 0; });
  for (Side* side : {&two.zero, &two.one}) side->say(false, 20);
  two.drive([&] { return two.all_heard(); });
  CHECK(two.zero.down.empty() && two.one.down.empty() && two.relay->accepted() == 3);
}

// Bytes that do not verify are not a cut: nothing is resumed.
void test_garbage_ends_a_lane() {
  Two two;
  two.relay->inject(0, std::vector<uint8_t>(64, 0x17));
  two.drive([&] { return !two.one.down.empty(); });
  CHECK(two.one.down.find("broken TLS record") != std::string::npos && two.one.counters.frames_refused == 1);
}

// Who was to be dialled has ended what it lent: no harm is done, and nothing is to be counted or said of it.
void test_key_is_known_no_more() {
  Loop loop;
  Side zero{loop, 0}, one{loop, 1};
  one.lanes.listen("127.0.0.1");
  zero.lanes.add(Two::node_for(1, one.lanes.port()));
  for (const uint64_t give_up_us = now_us() + 20'000'000; zero.down.empty();) {
    CHECK(now_us() < give_up_us);
    loop.run_once(1);
  }
  CHECK(zero.down.find("the listener refused lane identity") != std::string::npos);
  CHECK(zero.refused.empty() && zero.counters.frames_refused == 0 && one.counters.frames_refused > 0);
}

// Who closes on purpose does not come back.
void test_closed_on_purpose() {
  Two two;
  two.zero.lanes.remove(1, "");
  two.drive([&] { return !two.one.down.empty(); });
  CHECK(two.one.down.find("closed by the other side") != std::string::npos);
  CHECK(two.one.down.find("resumed") == std::string::npos && two.one.counters.frames_refused == 0);
}

}  // namespace

int run_resume_tests(uint64_t step, uint64_t seeds) {
  const struct {
    const char* name;
    std::function<void()> run;
  } tests[] = {
      {"cut anywhere", [=] { test_cut_anywhere(step); }},
      {"cut again and again", [=] { test_cut_again_and_again(seeds); }},
      {"not resumed", test_not_resumed},
      {"no frame gets through", test_no_frame_gets_through},
      {"one way is acknowledged", test_one_way_is_acknowledged},
      {"much at once", test_much_at_once},
      {"more may come in a gap", test_more_may_come_in_a_gap},
      {"half of a pair", test_half_of_a_pair},
      {"idle connections", test_idle_connections},
      {"silent alone", test_silent_alone},
      {"who may not resume", test_who_may_not_resume},
      {"a recording does not resume", test_a_recording_does_not_resume},
      {"garbage ends a lane", test_garbage_ends_a_lane},
      {"key is known no more", test_key_is_known_no_more},
      {"closed on purpose", test_closed_on_purpose},
  };
  for (const auto& test : tests) {
    const uint64_t from = now_us();
    std::printf("%s\n", test.name);
    std::fflush(stdout);
    test.run();
    std::printf("  ok, %.1f ms\n", static_cast<double>(now_us() - from) / 1000);
  }
  std::printf("all lane resume tests passed\n");
  return 0;
}

}  // namespace elastic::test

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  return elastic::test::run_resume_tests(std::strtoull(argv[1], nullptr, 10),
                                         std::strtoull(argv[2], nullptr, 10));
}
