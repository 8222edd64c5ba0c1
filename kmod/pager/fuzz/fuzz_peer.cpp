// A participant's pager (peer.cpp, guests.cpp, engine*.cpp, regions.cpp) under frames of home and of another
// participant that are well-formed and mean anything: layout, pages, threads, resets, ends. It may refuse and
// it may end with a Failure; nothing else.
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "../src/frame_check.hpp"
#include "../src/peer.hpp"
#include "fuzz_kit.hpp"

using namespace elastic;

namespace {

std::string directory() {
  const char* given = getenv("FUZZ_DIRECTORY");  // the spill refuses file systems in memory
  return given != nullptr ? given : ".";
}

PeerOptions options() {
  PeerOptions options;
  options.id = "abc";
  options.node_name = "fuzzed";
  options.listen_host = "127.0.0.1";
  options.spill_dir = directory();
  options.node = 2;
  options.memory_pages = 256;
  options.spill_bytes_max = 16 << 20;
  return options;
}

void say(LaneEvents& peer, Node& node, fuzz::AnyFrame& frame, bool bulk) {
  if (frame_problem(frame.header, frame.payload)) return;
  try {
    peer.on_frame(node, {frame.header, frame.payload}, bulk);
  } catch (const Failure& failure) {
    REQUIRE(strlen(failure.what()) > 0);
  }
}

// What was, is forgotten: each input begins alike.
void start_anew(LaneEvents& peer, Node& home) {
  fuzz::AnyFrame reset;
  reset.header.type = static_cast<uint16_t>(FrameType::reset);
  reset.header.argument = 1;
  say(peer, home, reset, false);
  fuzz::AnyFrame setup;
  setup.header.type = static_cast<uint16_t>(FrameType::setup);
  const std::string policy = "always-pull";
  setup.payload.assign(policy.begin(), policy.end());
  setup.header.payload_bytes = static_cast<uint32_t>(policy.size());
  say(peer, home, setup, false);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static Peer pager(options());
  LaneEvents& peer = pager;
  Node home, other;
  home.name = "home";
  other.index = 1;
  other.name = "other";
  start_anew(peer, home);
  fuzz::Input in(data, bytes);
  while (!in.empty()) {
    fuzz::judged();
    fuzz::AnyFrame frame = fuzz::any_frame(in);
    say(peer, in.below(4) == 0 ? other : home, frame, in.below(2) == 0);
  }
  return 0;
}
