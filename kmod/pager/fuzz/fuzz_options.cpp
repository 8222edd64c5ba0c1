// The pager's command line (options.cpp) and the text of a policy (policy.cpp), which travels in a frame too:
// understood, or a Failure of one line.
#include "../src/options.hpp"
#include "../src/policy.hpp"
#include "fuzz_kit.hpp"

using namespace elastic;

namespace {

std::string any_word(fuzz::Input& in) {
  static const char* const kWords[] = {"--",  "--memory", "--id", "--none", "7", "", "18446744073709551616",
                                       "0x7", "-1"};
  if (in.below(4) != 0) return kWords[in.below(std::size(kWords))];
  const auto bytes = in.take_bytes(in.below(12));
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string any_policy(fuzz::Input& in) {
  static const char* const kParts[] = {"always-pull", "multinode-adaptive-lru",
                                       ":",           ",",
                                       "window=",     "threshold=",
                                       "localUs=",    "patience=",
                                       "1",           "0",
                                       ".",           "e308",
                                       "64",          "nan",
                                       "-",           "9"};
  std::string text;
  for (uint64_t left = in.below(12); left > 0; left--) text += kParts[in.below(std::size(kParts))];
  const auto bytes = in.take_bytes(in.below(6));
  return text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

void read_options(fuzz::Input& in) {
  std::vector<std::string> words;
  for (uint64_t left = in.below(8); left > 0; left--) words.push_back(any_word(in));
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  const Options options(static_cast<int>(arguments.size()), arguments.data(), {"memory", "id"});
  REQUIRE(options.rest().size() <= arguments.size());
  if (!options.text_or("id", "").empty()) REQUIRE(!options.text("id").empty());
  options.number("memory");
}

void use_policy(const JumpRule& rule, fuzz::Input& in) {
  ThreadRule thread{};
  for (int i = 0; i < 40; i++) {
    rule.on_remote_fault(thread, static_cast<uint8_t>(in.below(3)), in.take<uint32_t>(), in.below(3));
    if (in.below(4) == 0) rule.on_local(thread);
    if (thread.jumping != 0) rule.on_arrival(thread, in.take<uint32_t>(), in.below(2));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  fuzz::Input in(data, bytes);
  try {
    if (in.below(2) == 0) {
      read_options(in);
    } else {
      use_policy(JumpRule(any_policy(in), in.below(4)), in);
    }
  } catch (const Failure& failure) {
    REQUIRE(strlen(failure.what()) > 0);
  }
  return 0;
}
