// Contexts of jumps (jump.cpp, tracee.cpp), as another pager sends them: what is decoded encodes to the same
// bytes, names only pages that a process can have, each once, and the rule that goes on with it stays within
// its arrays.
#include <algorithm>
#include <functional>

#include "../src/jump.hpp"
#include "fuzz_kit.hpp"

using namespace elastic;

namespace {

// A context that is right but for what the input changes.
std::vector<uint8_t> nearly_right(fuzz::Input& in) {
  Context context;
  context.xstate_full_bytes = 1024;
  context.xstate_bytes = static_cast<uint32_t>(64 * in.below(17));
  for (uint32_t at = 0; at < context.xstate_bytes; at++) context.xstate[at] = at / 64 % 3 == 0 ? 0 : 1;
  JumpBytes whole;
  const std::span<const uint8_t> right = encode_jump({}, {}, context, whole);
  std::vector<uint8_t> bytes(right.begin(), right.end());
  for (uint64_t changes = in.below(40); changes > 0; changes--)
    bytes[in.take<uint16_t>() % bytes.size()] = in.take<uint8_t>();
  for (uint64_t copies = in.below(4), last = bytes.size() / 8; copies > 0; copies--)  // pages said twice
    memmove(bytes.data() + in.take<uint16_t>() % last * 8, bytes.data() + in.take<uint16_t>() % last * 8, 8);
  if (in.rarely()) bytes.resize(in.take<uint16_t>() % (bytes.size() + 16));
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static const JumpRule kRules[] = {{"always-pull", 3},
                                    {"multinode-adaptive-lru:window=64,threshold=0.1", 0},
                                    {"multinode-adaptive-lru:window=1,threshold=1,patience=12", 7}};
  fuzz::Input in(data, bytes);
  const std::vector<uint8_t> sent = nearly_right(in);
  ThreadRule rule{};
  WorkingSet set;
  Context context;
  if (!decode_jump(sent, rule, set, context)) return 0;
  JumpBytes again;
  const std::span<const uint8_t> encoded = encode_jump(rule, set, context, again);
  REQUIRE(std::equal(encoded.begin(), encoded.end(), sent.begin(), sent.end()));
  REQUIRE(context.xstate_bytes <= kXstateBytesMax && context.xstate_full_bytes <= kXstateBytesMax);
  const JumpRule& decides = kRules[in.below(3)];
  decides.on_arrival(rule, in.below(200), 7);
  for (int i = 0; i < 8; i++) {
    const uint64_t page = in.take<uint32_t>();
    set.on_fault(page);
    if (in.below(3) == 0) decides.on_local(rule);
    decides.on_remote_fault(rule, static_cast<uint8_t>(in.below(4)), in.take<uint16_t>(), in.below(3));
    if (in.below(4) == 0) set.on_jump();
  }
  const std::vector<uint64_t> wanted = set.wanted(context.registers.rsp);
  REQUIRE(std::adjacent_find(wanted.begin(), wanted.end(), std::greater_equal<>()) == wanted.end());
  REQUIRE(wanted.empty() || wanted.back() < page_of(kUserSpaceEnd));
  return 0;
}
