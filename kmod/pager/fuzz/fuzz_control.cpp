// The control socket's messages (control.cpp): what is decoded encodes to the same bytes.
#include "../src/control.hpp"
#include "fuzz_kit.hpp"

using namespace elastic;

namespace {

constexpr uint16_t kTypes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 101, 0};
constexpr uint16_t kNumbers[] = {1, 6, 4, 1, 0, 0, 1, 0, 1, 9, 0};
constexpr uint16_t kStrings[] = {0, 4, 1, 0, 0, 1, 1, 0, 0, 3, 0};

std::vector<uint8_t> nearly_right(fuzz::Input& in) {
  const uint64_t which = in.below(std::size(kTypes));
  uint16_t head[4] = {kTypes[which], kNumbers[which], kStrings[which], 0};
  if (in.rarely()) head[1 + in.below(2)] = in.take<uint16_t>();
  std::vector<uint8_t> body(sizeof head);
  memcpy(body.data(), head, sizeof head);
  for (size_t i = 0; i < std::min<size_t>(head[1], 16); i++) {
    const auto number = in.take<int64_t>();
    const auto* bytes = reinterpret_cast<const uint8_t*>(&number);
    body.insert(body.end(), bytes, bytes + sizeof number);
  }
  for (size_t i = 0; i < std::min<size_t>(head[2], 16); i++) {
    const auto text = in.take_bytes(in.below(20));
    const uint32_t length = in.rarely() ? in.take<uint32_t>() : static_cast<uint32_t>(text.size());
    const auto* bytes = reinterpret_cast<const uint8_t*>(&length);
    body.insert(body.end(), bytes, bytes + sizeof length);
    body.insert(body.end(), text.begin(), text.end());
  }
  if (in.rarely()) body.resize(in.below(body.size() + 9));
  return body;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  fuzz::Input in(data, bytes);
  std::vector<uint8_t> body;
  if (in.below(4) == 0) {
    const auto rest = in.rest();
    body.assign(rest.begin(), rest.end());
  } else {
    body = nearly_right(in);
  }
  const auto message = decode_control(body.data(), body.size());
  if (!message) return 0;
  const std::string frame = encode_control(*message);
  REQUIRE(frame.size() == body.size() + 4);
  // The two bytes between head and fields say nothing; all others come back.
  REQUIRE(memcmp(frame.data() + 4, body.data(), 6) == 0);
  REQUIRE(memcmp(frame.data() + 12, body.data() + 8, body.size() - 8) == 0);
  return 0;
}
