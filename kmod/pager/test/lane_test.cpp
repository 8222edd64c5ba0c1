// Tests of the lane over real loopback sockets in one process: handshake, refusals, floods, frames of every
// size both ways, and ends at awkward moments. What a hostile peer with the right key may send is in
// lane_hostile_test.cpp, TLS itself in lane_tls_test.cpp. Each test prints its name; the first failed check
// ends the program with status 1.
#include <arpa/inet.h>
#include <sys/socket.h>

#include <cstring>
#include <numeric>

#include "../src/lane_tls.hpp"
#include "lane_test_kit.hpp"
#include "lane_tests.hpp"

namespace elastic::test {

namespace {

FrameHeader header_of(FrameType type) {
  FrameHeader header;
  header.type = static_cast<uint16_t>(type);
  return header;
}

void send_bytes(Lane& lane, FrameType type, const std::vector<uint8_t>& bytes) {
  iovec part{const_cast<uint8_t*>(bytes.data()), bytes.size()};
  lane.send(header_of(type), {&part, 1});
}

// A plain TCP connection to the listener, for bytes that are no TLS at all.
Fd plain_connection(uint16_t port) {
  Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
  CHECK(connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof to) == 0);
  return fd;
}

std::unique_ptr<Lane> accept_one(LaneListener& listener) {
  std::unique_ptr<Lane> lane;
  for (int i = 0; i < 100 && !lane; ++i) poll_once({}, &listener, &lane);
  CHECK(lane);
  return lane;
}

uint64_t sum_of(std::span<const uint8_t> bytes) {
  uint64_t sum = 1469598103934665603ull;
  for (uint8_t byte : bytes) sum = (sum ^ byte) * 1099511628211ull;
  return sum;
}

}  // namespace

void test_handshake_and_first_frames() {
  LaneListener listener("127.0.0.1", [](const std::string&) { return key_of(1); });
  auto dialled = Lane::dial("127.0.0.1", listener.port(), "7", key_of(1));
  send_bytes(*dialled, FrameType::echo, {1, 2, 3});  // before anything is established
  CHECK(dialled->queued_bytes() == 67 && !dialled->established());
  dialled->flush();
  std::unique_ptr<Lane> accepted;
  Frame frame;
  while (!accepted || !accepted->next_frame(frame)) {
    std::vector<Lane*> lanes{dialled.get()};
    if (accepted) lanes.push_back(accepted.get());
    poll_once(lanes, &listener, &accepted);
  }
  CHECK(accepted->identity() == "7" && accepted->established() && dialled->established());
  CHECK(frame.header.sequence == 1 && frame.header.ack == 0);
  CHECK(frame.payload.size() == 3 && frame.payload[2] == 3);
  CHECK(!accepted->next_frame(frame) && accepted->status() == LaneIo::ok);
  accepted->send(header_of(FrameType::echo_reply));
  accepted->flush();
  drive({dialled.get()}, [&] { return dialled->next_frame(frame); });
  CHECK(frame.header.sequence == 1 && frame.header.ack == 1 && dialled->sequence_acked() == 1);
  CHECK(dialled->bytes_sent() == accepted->bytes_received() && dialled->queued_bytes() == 0);
  CHECK((dialled->wanted_events() & EPOLLOUT) == 0);
}

// The dialler's frames may arrive together with the end of its handshake.
void test_large_early_frames() {
  LaneListener listener("127.0.0.1", [](const std::string&) { return key_of(1); });
  auto dialled = Lane::dial("127.0.0.1", listener.port(), "7", key_of(1));
  for (int i = 0; i < 4; ++i) send_bytes(*dialled, FrameType::echo, std::vector<uint8_t>(1u << 20, 9));
  auto accepted = accept_one(listener);
  for (int i = 0; i < 3; ++i) accepted->on_event(EPOLLIN);  // the listener is slow: let much pile up
  while (!dialled->established()) {
    poll_once({dialled.get()}, nullptr, nullptr);
    if (!dialled->established()) accepted->on_event(EPOLLIN);
  }
  for (int i = 0; i < 20; ++i) dialled->flush();
  int frames = 0;
  Frame frame;
  drive({dialled.get(), accepted.get()}, [&] {
    CHECK(accepted->status() == LaneIo::ok);
    while (accepted->next_frame(frame)) frames += frame.payload.size() == 1u << 20 && frame.payload[77] == 9;
    return frames == 4;
  });
}

void test_refusals() {
  Pair wrong_key(key_of(2));
  CHECK(wrong_key.dialled->status() == LaneIo::refused && wrong_key.accepted->status() == LaneIo::refused);
  CHECK(wrong_key.dialled->last_error().find("refused lane identity 7") != std::string::npos);
  CHECK(wrong_key.accepted->last_error().find("wrong lane key for identity 7") != std::string::npos);
  Pair unknown(key_of(1), "8");
  CHECK(unknown.dialled->status() == LaneIo::refused && unknown.accepted->status() == LaneIo::refused);
  CHECK(unknown.dialled->last_error().find("refused lane identity 8") != std::string::npos);
  CHECK(unknown.accepted->last_error().find("unknown lane identity 8") != std::string::npos);
  Frame frame;
  CHECK(!unknown.accepted->next_frame(frame) && !unknown.accepted->established());
  std::printf("  dialler:  %s\n  listener: %s\n", wrong_key.dialled->last_error().c_str(),
              wrong_key.accepted->last_error().c_str());
  bool thrown = false;
  try {
    Lane::dial("not an address", 1, "7", key_of(1));
  } catch (const std::system_error&) {
    thrown = true;
  }
  CHECK(thrown);
}

void test_nobody_listens() {
  uint16_t port = 0;
  {
    LaneListener gone("127.0.0.1", [](const std::string&) { return std::nullopt; });
    port = gone.port();
  }
  auto lane = Lane::dial("127.0.0.1", port, "7", key_of(1));
  drive({lane.get()}, [&] { return lane->status() != LaneIo::ok; });
  CHECK(lane->status() == LaneIo::closed && lane->last_error().find("cannot connect") != std::string::npos);
}

void test_not_tls() {
  LaneListener listener("127.0.0.1", [](const std::string&) { return key_of(1); });
  Random random(3);
  for (int round = 0; round < 40; ++round) {
    Fd fd = plain_connection(listener.port());
    auto lane = accept_one(listener);
    std::vector<uint8_t> junk(1 + random.below(3000));
    for (auto& byte : junk) byte = static_cast<uint8_t>(random.next());
    if (round % 2 == 1) {  // looks like a handshake record
      const uint8_t start[] = {22, 3, 1, 0x0a, 0, 1, 0, 9, 0xfc, 3, 3};
      std::memcpy(junk.data(), start, std::min(junk.size(), sizeof start));
    }
    CHECK(send(fd.get(), junk.data(), junk.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(junk.size()));
    shutdown(fd.get(), SHUT_WR);
    drive({lane.get()}, [&] { return lane->status() != LaneIo::ok; });
    CHECK(!lane->established() && !lane->last_error().empty());
  }
  // A record that never ends: bounded by what a handshake needs.
  Fd fd = plain_connection(listener.port());
  auto lane = accept_one(listener);
  std::vector<uint8_t> endless(200'000, 0);
  for (size_t i = 0; i < endless.size(); i += 4101) {  // handshake records of one huge ClientHello
    const uint8_t start[] = {22, 3, 1, 0x10, 0x00};
    std::memcpy(endless.data() + i, start, std::min(sizeof start, endless.size() - i));
  }
  const uint8_t hello[] = {1, 1, 0xff, 0xff};
  std::memcpy(endless.data() + 5, hello, sizeof hello);
  const ssize_t sent = send(fd.get(), endless.data(), endless.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  CHECK(sent > 0);
  drive({lane.get()}, [&] { return lane->status() != LaneIo::ok; });
  CHECK(lane->status() == LaneIo::refused);
}

void test_handshake_flood() {
  LaneListener listener("127.0.0.1", [](const std::string&) { return key_of(1); });
  std::vector<Fd> connections;
  std::vector<std::unique_ptr<Lane>> lanes;
  for (int i = 0; i < 60; ++i) {
    connections.push_back(plain_connection(listener.port()));
    pollfd entry{listener.fd(), POLLIN, 0};
    CHECK(poll(&entry, 1, 1000) == 1);
    if (auto lane = listener.accept()) lanes.push_back(std::move(lane));
  }
  CHECK(lanes.size() == static_cast<size_t>(kMaxPendingLanes));
  lanes.clear();  // the owner drops them after its two seconds
  auto dialled = Lane::dial("127.0.0.1", listener.port(), "7", key_of(1));
  auto accepted = accept_one(listener);
  drive({dialled.get(), accepted.get()}, [&] { return dialled->established() && accepted->established(); });
}

void test_slow_reader() {
  Pair pair;
  const std::vector<uint8_t> payload(1u << 20, 0x5a);
  for (int i = 0; i < 24; ++i) {
    send_bytes(*pair.dialled, FrameType::echo, payload);
    CHECK(pair.dialled->flush() == LaneIo::ok);
  }
  CHECK(pair.dialled->queued_bytes() > 4u << 20);
  CHECK((pair.dialled->wanted_events() & EPOLLOUT) != 0);
  int frames = 0;
  Frame frame;
  drive(pair.both(), [&] {
    while (pair.accepted->next_frame(frame)) {
      CHECK(frame.payload.size() == payload.size() && frame.payload[12345] == 0x5a);
      ++frames;
    }
    return frames == 24;
  });
  CHECK(pair.dialled->queued_bytes() == 0);
}

void test_bye_survives_close() {
  Pair pair;
  send_bytes(*pair.accepted, FrameType::echo, std::vector<uint8_t>(300'000, 1));  // unread by the leaver
  pair.accepted->flush();
  send_bytes(*pair.dialled, FrameType::bye, {'b', 'y', 'e'});
  CHECK(pair.dialled->finish() == LaneIo::ok);
  Frame frame;
  drive({pair.accepted.get()}, [&] { return pair.accepted->next_frame(frame); });
  CHECK(frame.header.type == static_cast<uint16_t>(FrameType::bye) && frame.payload.size() == 3);
  CHECK(!pair.accepted->next_frame(frame));
  drive({pair.accepted.get()}, [&] { return pair.accepted->status() == LaneIo::ended; });
  drive({pair.dialled.get()}, [&] { return pair.dialled->next_frame(frame); });  // the other way still works
  CHECK(frame.payload.size() == 300'000);
}

void test_killed_peer() {
  Pair pair;
  send_bytes(*pair.accepted, FrameType::echo, std::vector<uint8_t>(100, 1));
  pair.accepted->flush();
  const linger at_once{1, 0};  // the socket is reset, as when a process dies with unread data
  setsockopt(pair.dialled->fd(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  shutdown(pair.dialled->fd(), SHUT_WR);
  pair.dialled.reset();
  for (int i = 0; i < 50; ++i) {  // writing into it: no SIGPIPE, and the end is told by on_event
    send_bytes(*pair.accepted, FrameType::echo, std::vector<uint8_t>(100'000, 1));
    pair.accepted->flush();
  }
  drive({pair.accepted.get()}, [&] { return pair.accepted->status() == LaneIo::closed; });
}

namespace {

// One direction of the mass test: sends frames of random size, checks those of the other side.
struct Stream {
  Lane& lane;
  Random sizes, expected;
  int left_to_send, left_to_read;
  std::vector<uint8_t> bytes;

  static std::vector<uint8_t> contents(Random& random) {
    const uint64_t kind = random.below(100);
    const size_t length = random.below(kind < 60 ? 200 : kind < 97 ? 9000 : 60'000);
    std::vector<uint8_t> bytes(length);
    const uint64_t salt = random.next();
    for (size_t i = 0; i < length; ++i) bytes[i] = static_cast<uint8_t>((salt >> (i % 8 * 8)) + i);
    return bytes;
  }

  void turn() {
    Frame frame;
    while (lane.next_frame(frame)) {
      const std::vector<uint8_t> wanted = contents(expected);
      CHECK(frame.header.argument == static_cast<uint32_t>(wanted.size()));
      CHECK(frame.header.version == sum_of(frame.payload) && frame.header.version == sum_of(wanted));
      --left_to_read;
    }
    CHECK(lane.status() == LaneIo::ok);
    while (left_to_send > 0 && lane.queued_bytes() < 1u << 20) {
      bytes = contents(sizes);
      FrameHeader header = header_of(FrameType::echo);
      header.argument = static_cast<uint32_t>(bytes.size());
      header.version = sum_of(bytes);
      const size_t cut = bytes.size() / 3;  // several parts, some of them empty
      const iovec parts[] = {{bytes.data(), cut}, {nullptr, 0}, {bytes.data() + cut, bytes.size() - cut}};
      lane.send(header, parts);
      --left_to_send;
    }
    lane.flush();
  }
};

}  // namespace

void test_many_frames(int frames) {
  Pair pair;
  Stream one{*pair.dialled, Random(11), Random(22), frames, frames, {}};
  Stream two{*pair.accepted, Random(22), Random(11), frames, frames, {}};
  drive(
      pair.both(),
      [&] {
        one.turn();
        two.turn();
        return one.left_to_read == 0 && two.left_to_read == 0;
      },
      120);
  CHECK(pair.dialled->sequence_sent() == static_cast<uint64_t>(frames));
}

// The key of a direction is replaced long before AES-GCM's limit; here after every 16 records.
void test_key_update() {
  TlsEnd accepting([](const std::string&) { return key_of(1); });
  TlsEnd dialling("7", key_of(1));
  const auto carry = [](TlsEnd& from, TlsEnd& to) {
    to.incoming().append(from.outgoing().data(), from.outgoing().size());
    from.outgoing().clear();
  };
  bool up = false;
  while (!up) {
    dialling.handshake();
    carry(dialling, accepting);
    up = accepting.handshake() == TlsEnd::Step::done;
    carry(accepting, dialling);
  }
  dialling.set_records_per_key(16);
  uint8_t bytes[100] = {};
  for (int i = 0; i < 1000; ++i) {
    bytes[0] = static_cast<uint8_t>(i);
    CHECK(dialling.write(bytes, sizeof bytes));
    carry(dialling, accepting);
    ByteQueue got;
    CHECK(accepting.read(got) == TlsEnd::Step::done && got.size() == 100 && got.data()[0] == bytes[0]);
  }
}

}  // namespace elastic::test

int main(int argc, char** argv) {
  using namespace elastic::test;
  const int frames = argc > 1 ? std::atoi(argv[1]) : 100'000;
  const auto run = [](const char* name, const std::function<void()>& test) {
    const uint64_t from = elastic::now_us();
    std::printf("%s\n", name);
    std::fflush(stdout);
    test();
    std::printf("  ok, %.1f ms\n", static_cast<double>(elastic::now_us() - from) / 1000);
  };
  run("handshake and first frames", test_handshake_and_first_frames);
  run("large frames right after the handshake", test_large_early_frames);
  run("wrong key, unknown identity, bad address", test_refusals);
  run("nobody listens", test_nobody_listens);
  run("bytes that are no TLS", test_not_tls);
  run("handshake flood", test_handshake_flood);
  run("slow reader with a full queue", test_slow_reader);
  run("a bye survives the close", test_bye_survives_close);
  run("killed peer", test_killed_peer);
  run("key update", test_key_update);
  for (const LaneTest& test : tls_tests()) run(test.name, test.run);
  for (const LaneTest& test : hostile_tests()) run(test.name, test.run);
  run("random frames both ways", [frames] { test_many_frames(frames); });
  std::printf("all lane tests passed\n");
  return 0;
}
