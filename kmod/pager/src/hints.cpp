// See hints.hpp.
#include "hints.hpp"

#include <algorithm>
#include <cstring>

#include "frame_check.hpp"

namespace elastic {

std::string pack_owned(const std::vector<OwnedRange>& ranges) {
  return {reinterpret_cast<const char*>(ranges.data()), ranges.size() * sizeof(OwnedRange)};
}

std::optional<std::vector<OwnedRange>> unpack_owned(const std::string& bytes) {
  const size_t count = bytes.size() / sizeof(OwnedRange);
  if (bytes.size() % sizeof(OwnedRange) != 0 || count > kOwnedRangesMax) return std::nullopt;
  std::vector<OwnedRange> ranges(count);
  if (count > 0) memcpy(ranges.data(), bytes.data(), bytes.size());
  uint64_t end = 0;
  for (const auto& [first, pages, version] : ranges) {
    if (first < end || first >= kPageNumberEnd || pages == 0 || pages > kPageNumberEnd - first)
      return std::nullopt;
    end = first + pages;
  }
  return ranges;
}

void Hints::set(uint16_t node, std::vector<OwnedRange> ranges) {
  if (ranges.empty())
    nodes_.erase(node);
  else
    nodes_[node] = std::move(ranges);
}

uint64_t Hints::said_of(const std::vector<OwnedRange>& ranges, uint64_t page) {
  const auto after =
      std::upper_bound(ranges.begin(), ranges.end(), page,
                       [](uint64_t wanted, const OwnedRange& range) { return wanted < range.first; });
  if (after == ranges.begin()) return 0;
  const OwnedRange& range = *std::prev(after);
  return page - range.first < range.pages ? range.version : 0;
}

}  // namespace elastic
