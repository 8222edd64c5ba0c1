// The stream layer of a lane (lane.cpp) behind its encryption: decrypted bytes, cut anywhere, become frames
// in order or end the lane, and no frame is handed out that the checks would not have passed.
#include <sys/socket.h>

#include "../src/frame_check.hpp"
#include "../src/lane_state.hpp"
#include "fuzz_kit.hpp"

namespace elastic {

// An established lane without a handshake, over a socket on which nothing comes.
struct LaneFuzz {
  LaneFuzz() {
    int ends[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    other.reset(ends[1]);
    auto made = std::make_unique<Lane::State>(Fd(ends[0]), "7", LaneKey{});
    made->connecting = false;
    made->established = true;
    made->began = true;
    state = made.get();
    lane.reset(new Lane(std::move(made)));
    for (int i = 0; i < 3; i++) lane->send({});  // what the other side may acknowledge
    state->kept.sent(state->kept.unsent_bytes());
  }
  Fd other;
  std::unique_ptr<Lane> lane;
  Lane::State* state;
};

}  // namespace elastic

using namespace elastic;

namespace {

std::vector<uint8_t> any_stream(fuzz::Input& in) {
  std::vector<uint8_t> stream;
  uint64_t sequence = 0;
  for (uint64_t frames = 1 + in.below(6); frames > 0; frames--) {
    fuzz::judged();
    fuzz::AnyFrame frame = fuzz::any_frame(in);
    frame.header.sequence = in.rarely() ? in.take<uint64_t>() : ++sequence;
    frame.header.ack = in.below(4) == 0 ? in.below(6) : 3;
    const auto* bytes = reinterpret_cast<const uint8_t*>(&frame.header);
    stream.insert(stream.end(), bytes, bytes + sizeof frame.header);
    stream.insert(stream.end(), frame.payload.begin(), frame.payload.end());
  }
  const auto garbage = in.take_bytes(in.below(80));
  stream.insert(stream.end(), garbage.begin(), garbage.end());
  return stream;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  LaneFuzz fuzzed;
  fuzz::Input in(data, bytes);
  const std::vector<uint8_t> stream = any_stream(in);
  uint64_t sequence = 0;
  size_t handed = 0;
  Frame frame;
  for (size_t at = 0; at < stream.size();) {
    const size_t part = std::min<size_t>(stream.size() - at, 1 + in.take<uint16_t>() % 9000);
    fuzzed.state->plain.append(stream.data() + at, part);
    at += part;
    while (fuzzed.lane->next_frame(frame)) {
      REQUIRE(frame.header.sequence == ++sequence);
      REQUIRE(!frame_problem(frame.header, frame.payload));
      fuzz::read_metas(frame.header, frame.payload);
      handed += sizeof frame.header + frame.payload.size();
    }
    if (fuzzed.lane->status() == LaneIo::ok) continue;
    REQUIRE(fuzzed.lane->status() == LaneIo::refused && !fuzzed.lane->last_error().empty());
    break;
  }
  REQUIRE(handed <= stream.size());
  return 0;
}
