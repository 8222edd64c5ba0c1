// A peer that holds the right lane key and sends what it must not: each case is refused with a reason,
// delivers nothing, and leaves the process alive. The hostile end is a TlsEnd of its own, so it can send any
// bytes.
#include <arpa/inet.h>
#include <sys/socket.h>

#include <cstring>

#include "../src/frame_check.hpp"
#include "../src/lane_socket.hpp"
#include "../src/lane_tls.hpp"
#include "lane_test_kit.hpp"
#include "lane_tests.hpp"

namespace elastic::test {

namespace {

// An established lane whose other end writes raw bytes.
struct Hostile {
  Hostile() : listener("127.0.0.1", [](const std::string&) { return key_of(1); }), tls("7", key_of(1)) {
    fd = start_connect("127.0.0.1", listener.port());
    bool up = false;
    for (int i = 0; i < 200 && !(up && lane && lane->established()); ++i) {
      std::vector<Lane*> lanes;
      if (lane) lanes.push_back(lane.get());
      poll_once(lanes, &listener, &lane);
      if (!up) up = tls.handshake() == TlsEnd::Step::done;
      push();
      if (!up) pull();
    }
    CHECK(up && lane && lane->established());
  }
  void push() {
    while (!tls.outgoing().empty()) {
      const ssize_t sent = send(fd.get(), tls.outgoing().data(), tls.outgoing().size(), MSG_NOSIGNAL);
      if (sent <= 0) return;
      tls.outgoing().consume(static_cast<size_t>(sent));
    }
  }
  void pull() {
    const ssize_t got = recv(fd.get(), tls.incoming().reserve(4096), 4096, 0);
    if (got > 0) tls.incoming().commit(static_cast<size_t>(got));
  }
  void write(const void* bytes, size_t count) {
    tls.write(static_cast<const uint8_t*>(bytes), count);
    push();
  }
  // Drives until the lane has ended; counts the frames it handed out.
  int frames_until_end() {
    int frames = 0;
    Frame frame;
    drive({lane.get()}, [&] {
      while (lane->next_frame(frame)) ++frames;
      push();
      return lane->status() != LaneIo::ok;
    });
    return frames;
  }

  LaneListener listener;
  TlsEnd tls;
  Fd fd;
  std::unique_ptr<Lane> lane;
};

FrameHeader good_header(uint64_t sequence) {
  FrameHeader header;
  header.type = static_cast<uint16_t>(FrameType::echo);
  header.sequence = sequence;
  return header;
}

// Sends one good frame and then the bad one; only the good one may arrive.
void expect_refused(const char* reason, const std::function<void(FrameHeader&)>& spoil,
                    const std::vector<uint8_t>& payload = {}) {
  Hostile peer;
  const FrameHeader first = good_header(1);
  peer.write(&first, sizeof first);
  FrameHeader header = good_header(2);
  header.payload_bytes = static_cast<uint32_t>(payload.size());
  spoil(header);
  peer.write(&header, sizeof header);
  if (!payload.empty()) peer.write(payload.data(), payload.size());
  CHECK(peer.frames_until_end() == 1);
  if (peer.lane->status() != LaneIo::refused || peer.lane->last_error().find(reason) == std::string::npos) {
    std::fprintf(stderr, "wanted \"%s\", got \"%s\"\n", reason, peer.lane->last_error().c_str());
    std::exit(1);
  }
}

void test_bad_headers() {
  expect_refused("bad magic", [](FrameHeader& h) { h.magic ^= 1; });
  expect_refused("unknown frame type", [](FrameHeader& h) { h.type = 0; });
  expect_refused("unknown frame type",
                 [](FrameHeader& h) { h.type = static_cast<uint16_t>(FrameType::last) + 1; });
  expect_refused("unknown frame type", [](FrameHeader& h) { h.type = 0xffff; });
  expect_refused("payload too large", [](FrameHeader& h) { h.payload_bytes = kMaxPayloadBytes + 1; });
  expect_refused("payload too large", [](FrameHeader& h) { h.payload_bytes = 0xffffffff; });
  expect_refused("out of sequence", [](FrameHeader& h) { h.sequence = 1; });
  expect_refused("out of sequence", [](FrameHeader& h) { h.sequence = 3; });
  expect_refused("out of sequence", [](FrameHeader& h) { h.sequence = ~0ull; });
  expect_refused("acknowledges what was not sent", [](FrameHeader& h) { h.ack = 1; });
}

void test_bad_payloads() {
  const auto as = [](FrameType type, uint32_t count) {
    return [type, count](FrameHeader& h) {
      h.type = static_cast<uint16_t>(type);
      h.count = count;
    };
  };
  std::vector<uint8_t> push(sizeof(PageMeta) + 4096, 0);
  PageMeta meta;
  meta.page = 5;
  meta.flags = kPageData;
  std::memcpy(push.data(), &meta, sizeof meta);
  expect_refused("page count out of bounds", as(FrameType::push, 0), push);
  expect_refused("page count out of bounds", as(FrameType::push, 257), push);
  expect_refused("page count out of bounds", as(FrameType::push, 0xffffffff), push);
  expect_refused("page flags not allowed here", as(FrameType::push, 2), push);  // data where a meta should be
  meta.flags = kPageZero;
  std::memcpy(push.data(), &meta, sizeof meta);
  expect_refused("does not fit its page metas", as(FrameType::push, 1), push);
  meta.flags = kPageData | kPageZero;
  std::memcpy(push.data(), &meta, sizeof meta);
  expect_refused("page flags not allowed here", as(FrameType::push, 1), push);
  meta.flags = kPageData;
  meta.page = kPageNumberEnd;
  std::memcpy(push.data(), &meta, sizeof meta);
  expect_refused("page number out of bounds", as(FrameType::push, 1), push);
  expect_refused("wrong payload size", as(FrameType::hello, 0), {1, 2, 3});
  expect_refused("wrong payload size", as(FrameType::map, 0), {1, 2, 3});
  expect_refused("wrong payload size", as(FrameType::jump, 0), std::vector<uint8_t>(kMaxContextBytes + 1, 0));
  expect_refused("page range out of bounds", [](FrameHeader& h) {
    h.type = static_cast<uint16_t>(FrameType::get);
    h.count = 16;
    h.page = kPageNumberEnd - 8;
  });
}

void test_closed_in_mid_frame() {
  Hostile peer;
  FrameHeader header = good_header(1);
  header.payload_bytes = 100'000;
  peer.write(&header, sizeof header);
  const std::vector<uint8_t> some(40'000, 1);
  peer.write(some.data(), some.size());
  peer.fd.reset();
  CHECK(peer.frames_until_end() == 0);
  CHECK(peer.lane->status() == LaneIo::closed);
  CHECK(peer.lane->last_error().find("in the middle of a frame") != std::string::npos);
}

void test_spoiled_records() {
  Hostile peer;
  const uint8_t spoiled[40] = {23, 3, 3, 0, 35};
  CHECK(send(peer.fd.get(), spoiled, sizeof spoiled, MSG_NOSIGNAL) == sizeof spoiled);
  CHECK(peer.frames_until_end() == 0 && peer.lane->status() == LaneIo::refused);
  CHECK(peer.lane->last_error().find("broken TLS record") != std::string::npos);
}

// Frames byte by byte, and thousands in one record: where they are cut says nothing.
void test_odd_cuts() {
  Hostile peer;
  std::vector<uint8_t> bytes;
  for (uint64_t i = 1; i <= 500; ++i) {
    FrameHeader header = good_header(i);
    header.payload_bytes = static_cast<uint32_t>(i % 7);
    const auto* raw = reinterpret_cast<const uint8_t*>(&header);
    bytes.insert(bytes.end(), raw, raw + sizeof header);
    bytes.insert(bytes.end(), i % 7, static_cast<uint8_t>(i));
  }
  Random random(5);
  int frames = 0;
  Frame frame;
  for (size_t at = 0; at < bytes.size();) {
    const size_t part = std::min<size_t>(bytes.size() - at, random.below(4) == 0 ? random.below(5000) : 1);
    if (part > 0) peer.write(bytes.data() + at, part);
    at += part;
    poll_once({peer.lane.get()}, nullptr, nullptr);
    while (peer.lane->next_frame(frame)) {
      ++frames;
      CHECK(frame.header.sequence == static_cast<uint64_t>(frames));
      for (uint8_t byte : frame.payload) CHECK(byte == static_cast<uint8_t>(frames));
    }
  }
  drive({peer.lane.get()}, [&] {
    while (peer.lane->next_frame(frame)) ++frames;
    return frames == 500;
  });
}

// Random spoiling of one good stream: refused or closed or unharmed, never a crash (run under the
// sanitizers).
void test_random_spoiling() {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Random random(seed);
    FrameHeader header = good_header(1);
    header.type = static_cast<uint16_t>(1 + random.below(static_cast<uint16_t>(FrameType::last)));
    std::vector<uint8_t> payload(random.below(3) == 0 ? random.below(9000) : random.below(64));
    header.payload_bytes = static_cast<uint32_t>(payload.size());
    header.count = static_cast<uint32_t>(random.below(4));
    auto* raw = reinterpret_cast<uint8_t*>(&header);
    for (uint64_t i = random.below(3); i > 0; --i) raw[random.below(sizeof header)] ^= 1 << random.below(8);
    for (auto& byte : payload) byte = static_cast<uint8_t>(random.below(9) == 0 ? random.next() : 0);
    (void)frame_problem(header, payload);
    payload.resize(random.below(payload.size() + 1));
    (void)frame_problem(header, payload);
  }
}

}  // namespace

std::vector<LaneTest> hostile_tests() {
  return {{"bad headers", test_bad_headers},
          {"bad payloads", test_bad_payloads},
          {"closed in the middle of a frame", test_closed_in_mid_frame},
          {"spoiled records", test_spoiled_records},
          {"odd cuts", test_odd_cuts},
          {"random spoiling", test_random_spoiling}};
}

}  // namespace elastic::test
