// The file under a spill: opening it without a name, moving runs of neighbouring slots with one system call,
// and giving blocks back to the disk. Direct I/O where the file system has it; else buffered, each write
// written out and dropped from the page cache at once. All calls block; any thread may make them.
//
// For tests: ELASTICOS_SPILL_BUFFERED=1 takes the buffered way at once. ELASTICOS_FAIL_SPILL=full:N, io:N or
// read:N lets the N-th write (or read) of this file fail so; full:N+ that one and all after it.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string>

#include "spill.hpp"

namespace elastic {

constexpr size_t kSpillPageBytes = 4096;

struct PageIo {
  uint32_t slot = 0;
  uint8_t* bytes = nullptr;  // kSpillPageBytes, aligned to as much
};

class SpillFile {
 public:
  // Throws std::system_error: EOPNOTSUPP on tmpfs and ramfs, EFBIG beyond Spill::kBytesMax, EINVAL for a
  // malformed ELASTICOS_FAIL_SPILL.
  SpillFile(const std::string& directory, uint64_t bytes_max);
  ~SpillFile();
  SpillFile(const SpillFile&) = delete;
  SpillFile& operator=(const SpillFile&) = delete;

  uint32_t slots_max() const { return slots_max_; }
  bool buffered() const { return buffered_; }

  // Both sort `pages` by slot; neighbours go in one call. At most 128 pages.
  SpillError write(std::span<PageIo> pages);
  SpillError read(std::span<PageIo> pages);
  // One page by one pread; `bytes` aligned.
  SpillError read_page(uint32_t slot, uint8_t* bytes);

  // Gives the blocks of a run of slots back to the disk; what fails is not tried again.
  void punch(uint32_t first, uint32_t count);

 private:
  struct FailurePoint {
    SpillError error = SpillError::none;
    bool on_read = false;
    bool onwards = false;
    uint64_t at = 0;
  };

  void parse_failure_point();
  SpillError injected(bool is_read);
  int transfer(std::span<PageIo> run, bool is_write);
  int move_run(std::span<PageIo> run, bool is_write);
  int write_out(uint64_t offset, uint64_t bytes);
  int move_all(std::span<PageIo> pages, bool is_write);

  int fd_ = -1;
  uint32_t slots_max_ = 0;
  std::atomic<bool> buffered_ = false;
  std::atomic<bool> punchable_ = true;
  std::atomic<uint64_t> writes_ = 0;
  std::atomic<uint64_t> reads_ = 0;
  FailurePoint failure_;
};

// Why `directory` cannot hold a spill file although it exists ("… is on tmpfs, which is memory: …"), or
// nothing.
std::string spill_refusal(const std::string& directory);

}  // namespace elastic
