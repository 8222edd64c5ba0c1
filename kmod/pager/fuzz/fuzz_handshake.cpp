// A connection before it is a lane (lane.cpp, lane_listener.cpp, lane_tls.cpp): what a hostile dialler sends
// to one that was accepted, what a hostile listener answers to one that was dialled, and what comes in one
// piece with the end of a good handshake. It ends with a reason, or goes on waiting; it is never up without
// the key, and it never keeps its place among those in the handshake.
#include <sys/epoll.h>
#include <sys/socket.h>

#include "../src/frame_check.hpp"
#include "../src/lane_state.hpp"
#include "fuzz_kit.hpp"

namespace elastic {

// One end of a connection, and the bare socket at the other.
struct LaneFuzz {
  explicit LaneFuzz(bool accepted) {
    int ends[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    other.reset(ends[1]);
    shared->find_key = [](const std::string& identity) {
      return identity == "7" ? std::optional(kKey) : std::nullopt;
    };
    auto state = accepted ? std::make_unique<Lane::State>(Fd(ends[0]), shared)
                          : std::make_unique<Lane::State>(Fd(ends[0]), "7", kKey);
    state->connecting = false;
    lane.reset(new Lane(std::move(state)));
    if (!accepted) lane->on_event(EPOLLOUT);
  }
  // False: the lane has ended, and nothing more is wanted.
  bool give(std::span<const uint8_t> bytes) {
    REQUIRE(send(other.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
            static_cast<ssize_t>(bytes.size()));
    lane->on_event(EPOLLIN);
    Frame frame;
    while (lane->next_frame(frame)) REQUIRE(!frame_problem(frame.header, frame.payload));
    return lane->status() == LaneIo::ok;
  }
  void take(ByteQueue& to) {
    const ssize_t got = recv(other.get(), to.reserve(8192), 8192, 0);
    if (got > 0) to.commit(static_cast<size_t>(got));
  }
  static constexpr LaneKey kKey{1, 2, 3};
  std::shared_ptr<ListenerShared> shared = std::make_shared<ListenerShared>();
  Fd other;
  std::unique_ptr<Lane> lane;
};

}  // namespace elastic

using namespace elastic;

namespace {

std::vector<uint8_t> drain(ByteQueue& queue) {
  const std::vector<uint8_t> bytes(queue.data(), queue.data() + queue.size());
  queue.clear();
  return bytes;
}

void spoil(fuzz::Input& in, std::vector<uint8_t>& bytes) {
  for (uint64_t changes = in.below(4); changes > 0 && !bytes.empty(); changes--) {
    const size_t at = in.take<uint16_t>() % bytes.size();
    switch (in.below(4)) {
      case 0: bytes.resize(at); break;
      case 1: bytes.insert(bytes.begin() + static_cast<ptrdiff_t>(at), in.take<uint8_t>()); break;
      default: bytes[at] = in.take<uint8_t>();
    }
  }
  const auto more = in.take_bytes(in.below(40));
  bytes.insert(in.below(2) == 0 ? bytes.end() : bytes.begin(), more.begin(), more.end());
}

void give_in_pieces(fuzz::Input& in, LaneFuzz& fuzzed, std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const auto piece = bytes.first(std::min<size_t>(bytes.size(), 1 + in.below(128)));
    bytes = bytes.subspan(piece.size());
    fuzz::judged();
    if (!fuzzed.give(piece)) return;
  }
}

// Its first words are good or nearly so; without the key nobody gets further.
void hostile_dialler(fuzz::Input& in) {
  static const std::vector<uint8_t> kFirst = [] {
    TlsEnd end("7", LaneFuzz::kKey);
    end.handshake();
    return drain(end.outgoing());
  }();
  LaneFuzz fuzzed(true);
  std::vector<uint8_t> bytes = in.rarely() ? std::vector<uint8_t>() : kFirst;
  spoil(in, bytes);
  give_in_pieces(in, fuzzed, bytes);
  REQUIRE(!fuzzed.lane->established());
  if (fuzzed.lane->status() != LaneIo::ok) {
    REQUIRE(!fuzzed.lane->last_error().empty() && fuzzed.shared->pending == 0);
  }
  fuzzed.lane.reset();
  REQUIRE(fuzzed.shared->pending == 0);
}

void hostile_listener(fuzz::Input& in) {
  LaneFuzz fuzzed(false);
  TlsEnd end([](const std::string&) { return std::optional(LaneFuzz::kKey); });
  fuzzed.take(end.incoming());
  end.handshake();
  std::vector<uint8_t> bytes = drain(end.outgoing());
  REQUIRE(!bytes.empty());
  spoil(in, bytes);
  give_in_pieces(in, fuzzed, bytes);
}

// Its last words come in one piece with anything.
void good_dialler(fuzz::Input& in) {
  LaneFuzz fuzzed(true);
  TlsEnd end("7", LaneFuzz::kKey);
  end.handshake();
  REQUIRE(fuzzed.give(drain(end.outgoing())));
  fuzzed.take(end.incoming());
  REQUIRE(end.handshake() == TlsEnd::Step::done);
  const auto data = in.take_bytes(in.below(200));
  end.write(data.data(), data.size());
  std::vector<uint8_t> bytes = drain(end.outgoing());
  const size_t good = bytes.size();
  spoil(in, bytes);
  give_in_pieces(in, fuzzed, bytes);
  if (bytes.size() == good && fuzzed.lane->status() == LaneIo::ok) REQUIRE(fuzzed.lane->identity() == "7");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  fuzz::Input in(data, bytes);
  switch (in.below(64)) {
    case 0: hostile_listener(in); break;
    case 1: good_dialler(in); break;
    default: hostile_dialler(in);
  }
  return 0;
}
