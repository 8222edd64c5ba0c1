// See jump.hpp.
#include "jump.hpp"

#include <algorithm>
#include <cstring>

namespace elastic {

namespace {
// Exponents.
constexpr uint8_t kStuckJumpsMax = 8, kRestlessMax = 12, kShortStaysMax = 18;
constexpr uint64_t kHotJumps = 8, kHotJumpsMax = 64;
}  // namespace

void WorkingSet::on_fault(uint64_t page) {
  const auto known = std::find_if(hot_.begin(), hot_.end(), [page](const Hot& h) { return h.page == page; });
  if (known != hot_.end()) {
    known->jumps = std::min<uint64_t>(known->jumps * 2u, kHotJumpsMax);
    known->jumps_left = known->jumps;
    return;
  }
  const auto hash = static_cast<uint16_t>(page * 0x9e3779b97f4a7c15ull >> 48);
  if (std::find(seen_.begin(), seen_.end(), hash) == seen_.end()) {
    seen_[seen_next_++ % seen_.size()] = hash;
    return;
  }
  Hot& place = *std::min_element(hot_.begin(), hot_.end(), [](const Hot& a, const Hot& b) {
    return a.jumps_left != b.jumps_left ? a.jumps_left < b.jumps_left : a.jumps < b.jumps;
  });
  place.page = page;
  place.jumps = place.jumps_left = kHotJumps;
}

void WorkingSet::on_jump() {
  for (Hot& hot : hot_) hot.jumps_left -= hot.jumps_left > 0 ? 1 : 0;
}

std::vector<uint64_t> WorkingSet::wanted(uint64_t stack_pointer) const {
  const uint64_t stack = page_of(stack_pointer);  // a register may hold anything
  std::vector<uint64_t> pages;
  if (stack < page_of(kUserSpaceEnd)) pages.push_back(stack);
  for (const Hot& hot : hot_)
    if (hot.jumps_left > 0 && hot.page != stack && hot.page < page_of(kUserSpaceEnd))
      pages.push_back(hot.page);
  std::sort(pages.begin(), pages.end());
  pages.erase(std::unique(pages.begin(), pages.end()), pages.end());  // a frame may have said one twice
  return pages;
}

std::span<const uint8_t> encode_jump(const ThreadRule& rule, const WorkingSet& set, const Context& context,
                                     JumpBytes& out) {
  memcpy(out.data(), &rule, sizeof rule);
  memcpy(out.data() + sizeof rule, &set, sizeof set);
  const size_t before = sizeof rule + sizeof set;
  return {out.data(), before + context.encode(out.data() + before)};
}

bool decode_jump(std::span<const uint8_t> bytes, ThreadRule& rule, WorkingSet& set, Context& context) {
  static_assert(std::is_trivially_copyable_v<WorkingSet>);
  if (bytes.size() <= sizeof rule + sizeof set) return false;
  memcpy(&rule, bytes.data(), sizeof rule);
  memcpy(&set, bytes.data() + sizeof rule, sizeof set);
  if (rule.events_count > kPolicyWindowMax || rule.events_next >= kPolicyWindowMax) return false;
  if (rule.stuck_jumps > kStuckJumpsMax || rule.restless > kRestlessMax) return false;
  if (rule.short_stays > kShortStaysMax) return false;
  return context.decode(bytes.subspan(sizeof rule + sizeof set));
}

}  // namespace elastic
