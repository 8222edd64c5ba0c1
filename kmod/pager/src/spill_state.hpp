// The inside of a spill: buffers, jobs, workers and completions around a SpillFile (the system calls) and a
// SpillSlots (which places are taken). One mutex guards everything here; no system call on the file and no
// `done` runs under it.
//
// A slot is *busy* while a write of it has not been drained or a read of it is queued or under way. Freeing a
// busy slot only marks it; the last of its jobs gives it back. A page being written stays in its buffer until
// drain(), so a reader copies it from there and never races with the disk.
#pragma once

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <vector>

#include "spill.hpp"
#include "spill_file.hpp"
#include "spill_slots.hpp"

namespace elastic {

namespace spill_detail {

inline constexpr size_t kWritePagesMax = 128;   // 512 KiB
inline constexpr size_t kReadPagesMax = 64;     // 256 KiB, and one machine word of free bits
inline constexpr size_t kDirectReadPages = 16;  // of the staging buffer of read_now
// Blocks go back to the disk after this long without work, or when so many pages of them have gathered that
// waiting for an idle moment would not do.
inline constexpr auto kIdleBeforePunch = std::chrono::milliseconds(200);
inline constexpr uint64_t kStalePagesMax = 4096;

void ensure(bool holds, const char* what);  // aborts: a bug in the use of the spill

// Page-aligned memory that a forked child does not get: direct I/O must not meet copy-on-write.
class PageArena {
 public:
  explicit PageArena(size_t pages) : bytes_(pages * kSpillPageBytes) {
    void* at = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "spill buffers");
    madvise(at, bytes_, MADV_DONTFORK);
    base_ = static_cast<uint8_t*>(at);
  }
  ~PageArena() { munmap(base_, bytes_); }
  PageArena(const PageArena&) = delete;
  PageArena& operator=(const PageArena&) = delete;
  uint8_t* page(size_t index) const { return base_ + index * kSpillPageBytes; }

 private:
  size_t bytes_;
  uint8_t* base_;
};

class EventFd {
 public:
  EventFd() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd for the spill");
  }
  ~EventFd() { close(fd_); }
  EventFd(const EventFd&) = delete;
  EventFd& operator=(const EventFd&) = delete;
  int fd() const { return fd_; }
  void set() const { eventfd_write(fd_, 1); }
  void clear() const {
    eventfd_t value;
    eventfd_read(fd_, &value);
  }

 private:
  int fd_;
};

using WriteDone = std::function<void(SpillError)>;
using ReadDone = std::function<void(SpillError, std::span<const uint8_t>)>;

struct Job {
  std::vector<uint32_t> slots;
  std::vector<PageIo> io;  // what goes to or comes from the disk
  SpillError error = SpillError::none;
  WriteDone write_done;  // this or read_done is set
  ReadDone read_done;
  int read_start = -1;  // first page of its run in the read arena

  bool is_read() const { return static_cast<bool>(read_done); }
};

struct Busy {
  uint8_t* buffer = nullptr;  // its page in the write arena, while the write is not drained
  uint32_t reads = 0;
  bool freed = false;
  bool lost = false;  // its write failed while reads of it were waiting
};

}  // namespace spill_detail

struct Spill::State {
  using Job = spill_detail::Job;
  using JobQueue = std::deque<std::unique_ptr<Job>>;

  State(const std::string& directory, uint64_t bytes_max)
      : file(directory, bytes_max), slots(file.slots_max()) {
    for (size_t i = spill_detail::kWritePagesMax; i > 0; --i) write_free.push_back(write_arena.page(i - 1));
  }

  SpillFile file;
  spill_detail::EventFd event;
  spill_detail::PageArena write_arena{spill_detail::kWritePagesMax};
  spill_detail::PageArena read_arena{spill_detail::kReadPagesMax};

  mutable std::mutex mutex;
  std::condition_variable work;
  std::condition_variable punched;
  SpillSlots slots;
  std::unordered_map<uint32_t, spill_detail::Busy> busy;
  std::vector<uint8_t*> write_free;
  uint64_t read_free = ~0ull;
  size_t pages_refused = 0;  // by the last write(), for want of buffers
  JobQueue waiting;          // reads for which there is no buffer yet
  JobQueue reads;
  JobQueue writes;
  std::vector<std::unique_ptr<Job>> completed;
  bool stopping = false;
  std::vector<std::thread> workers;

  std::mutex staging_mutex;
  spill_detail::PageArena staging{spill_detail::kDirectReadPages};

  void worker();
  void stop();  // and joins them
  bool punch_one(std::unique_lock<std::mutex>& lock);
  void run(std::unique_ptr<Job> job, std::unique_lock<std::mutex>& lock);
  void complete(std::unique_ptr<Job> job);
  void start_reads();
  bool start_read(Job& job);
  void give(uint32_t slot);
  void release_if_unused(uint32_t slot);
  void finish_write(Job& job, std::unique_lock<std::mutex>& lock);
  void finish_read(Job& job, std::unique_lock<std::mutex>& lock);
  bool copy_buffered(std::span<const uint32_t> wanted, uint8_t* out, std::vector<PageIo>& missing);
  bool read_missing(std::vector<PageIo>& missing);
};

}  // namespace elastic
