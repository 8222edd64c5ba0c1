// A set of pages: a bit for each, in blocks of 512 that exist where there is something in them (64 bytes and
// a node of the tree for 2 MB of addresses). Looking up and removing allocate nothing.
#pragma once

#include <array>
#include <cstdint>
#include <map>

namespace elastic {

class PageSet {
 public:
  void add(uint64_t page);
  bool has(uint64_t page) const;
  bool remove(uint64_t page);  // true: it was there
  void remove(uint64_t first, uint64_t end);
  uint64_t next(uint64_t first, uint64_t end) const;  // the lowest in [first, end), or `end`
  uint64_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

 private:
  static constexpr int kBlockShift = 9;
  struct Block {
    std::array<uint64_t, 8> words{};
    uint32_t count = 0;
  };
  std::map<uint64_t, Block> blocks_;
  uint64_t size_ = 0;
};

}  // namespace elastic
