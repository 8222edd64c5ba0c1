// What other nodes say they own, and where a page is likely to be by that; with the ranges as agents and
// pagers hand them to each other. TypeScript twins: kmod/ownership/hints.ts, which says why a hint is to be
// trusted as little as it is, and kmod/pager-owned.ts.
//
// Limits: 64 ranges of each node.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace elastic {

constexpr size_t kOwnedRangesMax = 64;

// Neighbouring pages that one node owns; all have at least this version.
struct OwnedRange {
  uint64_t first = 0, pages = 0, version = 0;
};
static_assert(sizeof(OwnedRange) == 24);

std::string pack_owned(const std::vector<OwnedRange>& ranges);
// Nothing unless they are few, in bounds, ascending, and share no page.
std::optional<std::vector<OwnedRange>> unpack_owned(const std::string& bytes);

class Hints {
 public:
  // All that `node` owns, as it says; what it said before is forgotten.
  void set(uint16_t node, std::vector<OwnedRange> ranges);
  void clear() { nodes_.clear(); }
  // Who of those that are `usable` says the newest of the page, and something newer than `version`.
  template <typename Usable>
  std::optional<uint16_t> owner(uint64_t page, uint64_t version, const Usable& usable) const {
    std::optional<uint16_t> owner;
    for (const auto& [node, ranges] : nodes_) {
      const uint64_t said = said_of(ranges, page);
      if (said <= version || !usable(node)) continue;
      version = said;
      owner = node;
    }
    return owner;
  }

 private:
  static uint64_t said_of(const std::vector<OwnedRange>& ranges, uint64_t page);  // version; 0: nothing

  std::map<uint16_t, std::vector<OwnedRange>> nodes_;
};

}  // namespace elastic
