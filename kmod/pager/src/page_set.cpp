// See page_set.hpp.
#include "page_set.hpp"

#include <algorithm>
#include <bit>

namespace elastic {

namespace {
constexpr uint64_t bit_of(uint64_t page) { return 1ull << (page & 63); }
constexpr size_t word_of(uint64_t page) { return page >> 6 & 7; }
}  // namespace

void PageSet::add(uint64_t page) {
  Block& block = blocks_.try_emplace(blocks_.end(), page >> kBlockShift)->second;
  uint64_t& word = block.words[word_of(page)];
  if (word & bit_of(page)) return;
  word |= bit_of(page);
  block.count++;
  size_++;
}

bool PageSet::has(uint64_t page) const {
  const auto it = blocks_.find(page >> kBlockShift);
  return it != blocks_.end() && (it->second.words[word_of(page)] & bit_of(page)) != 0;
}

bool PageSet::remove(uint64_t page) {
  const auto it = blocks_.find(page >> kBlockShift);
  if (it == blocks_.end() || !(it->second.words[word_of(page)] & bit_of(page))) return false;
  it->second.words[word_of(page)] &= ~bit_of(page);
  if (--it->second.count == 0) blocks_.erase(it);
  size_--;
  return true;
}

void PageSet::remove(uint64_t first, uint64_t end) {
  for (uint64_t page = next(first, end); page < end; page = next(page + 1, end)) remove(page);
}

uint64_t PageSet::next(uint64_t first, uint64_t end) const {
  for (auto it = blocks_.lower_bound(first >> kBlockShift); it != blocks_.end() && first < end; ++it) {
    uint64_t page = std::max(first, it->first << kBlockShift);
    const uint64_t block_end = (it->first + 1) << kBlockShift;
    while (page < block_end) {
      const uint64_t left = it->second.words[word_of(page)] >> (page & 63);
      if (left != 0) return std::min(page + static_cast<uint64_t>(std::countr_zero(left)), end);
      page = (page | 63) + 1;
    }
  }
  return end;
}

}  // namespace elastic
