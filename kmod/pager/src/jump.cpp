// See jump.hpp.
#include "jump.hpp"

#include <cstring>

namespace elastic {

namespace {
constexpr uint8_t kStuckJumpsMax = 8;  // it is an exponent
}

std::vector<uint8_t> encode_jump(const ThreadRule& rule, const Context& context) {
  const std::vector<uint8_t> tail = context.encode();
  std::vector<uint8_t> out(sizeof rule + tail.size());
  memcpy(out.data(), &rule, sizeof rule);
  memcpy(out.data() + sizeof rule, tail.data(), tail.size());
  return out;
}

bool decode_jump(std::span<const uint8_t> bytes, ThreadRule& rule, Context& context) {
  if (bytes.size() <= sizeof rule) return false;
  memcpy(&rule, bytes.data(), sizeof rule);
  if (rule.events_count > kPolicyWindowMax || rule.events_next >= kPolicyWindowMax) return false;
  if (rule.stuck_jumps > kStuckJumpsMax) return false;
  return context.decode(bytes.subspan(sizeof rule));
}

std::vector<uint64_t> working_set(const std::array<uint64_t, 8>& recent, const user_regs_struct& r,
                                  uint64_t wanted) {
  std::vector<uint64_t> pages{page_of(r.rsp), page_of(r.rsp) + 1, page_of(r.fs_base), page_of(r.rbp)};
  for (const uint64_t value :
       {r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15})
    if (value >= kPageBytes && value < kUserSpaceEnd) pages.push_back(page_of(value));
  for (const uint64_t page : recent)
    if (page != 0) pages.push_back(page);
  // Any register may hold anything, the stack pointer and base too.
  std::erase_if(pages, [wanted](uint64_t page) { return page == wanted || page >= page_of(kUserSpaceEnd); });
  return pages;
}

}  // namespace elastic
