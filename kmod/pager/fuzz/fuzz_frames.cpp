// frame_check.cpp: what it lets pass can be read without leaving the payload, and its judgement does not
// depend on how often it is asked.
#include "../src/frame_check.hpp"
#include "fuzz_kit.hpp"

using namespace elastic;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  fuzz::Input in(data, bytes);
  const bool raw = in.below(4) == 0;
  fuzz::AnyFrame frame;
  if (raw) {
    frame.header = in.take<FrameHeader>();
    const auto rest = in.rest();
    frame.payload.assign(rest.begin(), rest.end());
  } else {
    frame = fuzz::any_frame(in);
  }
  const auto problem = frame_problem(frame.header, frame.payload);
  REQUIRE(problem == frame_problem(frame.header, frame.payload));
  if (problem) {
    REQUIRE(!problem->empty());
    return 0;
  }
  REQUIRE(header_problem(frame.header) == nullptr && frame.header.payload_bytes == frame.payload.size());
  fuzz::read_metas(frame.header, frame.payload);
  return 0;
}
