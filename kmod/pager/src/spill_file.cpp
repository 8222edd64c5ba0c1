// The file under a spill; see spill_file.hpp.
#include "spill_file.hpp"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <system_error>
#include <vector>

namespace elastic {

namespace {

constexpr size_t kPagesPerCall = 128;

[[noreturn]] void fail(int error, const std::string& what) {
  throw std::system_error(error, std::generic_category(), what);
}

// A file with no name: O_TMPFILE, or where the file system has none a file that is unlinked at once.
int open_nameless(const std::string& directory, int flags) {
  const int fd = open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC | flags, 0600);
  if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR)) return fd;
  std::string name = directory + "/.elasticos-spill-XXXXXX";
  const int named = mkostemp(name.data(), O_CLOEXEC);
  if (named < 0) return -1;
  unlink(name.c_str());
  // Direct only now: an open that creates and then finds O_DIRECT unsupported leaves the file behind.
  if (flags == 0 || fcntl(named, F_SETFL, O_RDWR | flags) == 0) return named;
  const int error = errno;
  close(named);
  errno = error;
  return -1;
}

bool asked_for_buffered() {
  const char* value = std::getenv("ELASTICOS_SPILL_BUFFERED");
  return value != nullptr && std::strcmp(value, "1") == 0;
}

SpillError classify(int error) {
  if (error == 0) return SpillError::none;
  // EFBIG: a file size limit below the one that was seen at the start.
  return error == ENOSPC || error == EDQUOT || error == EFBIG ? SpillError::full : SpillError::io;
}

}  // namespace

std::string spill_refusal(const std::string& directory) {
  struct statfs fs {};
  if (statfs(directory.c_str(), &fs) != 0) return {};
  const char* kind = nullptr;
  switch (static_cast<unsigned long>(fs.f_type)) {
    case TMPFS_MAGIC: kind = "tmpfs"; break;
    case RAMFS_MAGIC: kind = "ramfs"; break;
    case HUGETLBFS_MAGIC: kind = "hugetlbfs"; break;
    default: return {};
  }
  return directory + " is on " + kind + ", which is memory: pages spilled there would free nothing; " +
         "choose a directory on a disk with the agent's --data DIR (without an agent: with XDG_STATE_HOME)";
}

SpillFile::SpillFile(const std::string& directory, uint64_t bytes_max) {
  const std::string refusal = spill_refusal(directory);
  if (!refusal.empty()) fail(EOPNOTSUPP, refusal);
  if (bytes_max > Spill::kBytesMax) fail(EFBIG, "a spill file holds at most 256 GiB (--spill-max 256G)");
  parse_failure_point();
  if (!asked_for_buffered()) fd_ = open_nameless(directory, O_DIRECT);
  if (fd_ < 0 && (asked_for_buffered() || errno == EINVAL)) {
    fd_ = open_nameless(directory, 0);
    buffered_ = true;
  }
  if (fd_ < 0) fail(errno, "cannot make a spill file in " + directory);
  rlimit limit{};
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    bytes_max = std::min<uint64_t>(bytes_max, limit.rlim_cur);  // beyond it there is SIGXFSZ
  }
  slots_max_ = static_cast<uint32_t>(bytes_max / kSpillPageBytes);
  // The full size from the start, all holes: a write that does not change the size needs no exclusive lock of
  // the inode. A file system that cannot hold so large a file gets it step by step.
  if (ftruncate(fd_, static_cast<off_t>(slots_max_) * static_cast<off_t>(kSpillPageBytes)) != 0 &&
      errno != EFBIG) {
    const int error = errno;
    close(fd_);
    fail(error, "cannot size the spill file in " + directory);
  }
  if (buffered_) posix_fadvise(fd_, 0, 0, POSIX_FADV_RANDOM);
}

SpillFile::~SpillFile() { close(fd_); }

void SpillFile::parse_failure_point() {
  const char* text = std::getenv("ELASTICOS_FAIL_SPILL");
  if (text == nullptr || *text == 0) return;
  const std::string value = text;
  const size_t colon = value.find(':');
  const std::string kind = value.substr(0, colon);
  char* end = nullptr;
  if (colon != std::string::npos) failure_.at = std::strtoull(text + colon + 1, &end, 10);
  if (end != nullptr && *end == '+') {
    failure_.onwards = true;
    ++end;
  }
  failure_.on_read = kind == "read";
  failure_.error = kind == "full" ? SpillError::full : SpillError::io;
  const bool known = kind == "full" || kind == "io" || kind == "read";
  if (!known || failure_.at == 0 || end == nullptr || *end != 0) {
    fail(EINVAL, "ELASTICOS_FAIL_SPILL=" + value + ": want full:N, io:N or read:N");
  }
}

SpillError SpillFile::injected(bool is_read) {
  const uint64_t now = ++(is_read ? reads_ : writes_);
  if (failure_.at == 0 || failure_.on_read != is_read) return SpillError::none;
  return now == failure_.at || (failure_.onwards && now > failure_.at) ? failure_.error : SpillError::none;
}

// Waits until the pages are on the disk and drops them from the page cache.
int SpillFile::write_out(uint64_t offset, uint64_t bytes) {
  const off_t start = static_cast<off_t>(offset);
  const off_t length = static_cast<off_t>(bytes);
  const unsigned all = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
  if (sync_file_range(fd_, start, length, all) != 0) {
    if (errno != ENOSYS && errno != EINVAL && errno != ESPIPE) return errno;
    if (fdatasync(fd_) != 0) return errno;
  }
  posix_fadvise(fd_, start, length, POSIX_FADV_DONTNEED);
  return 0;
}

// Moves one run of neighbouring slots. 0 or an errno.
int SpillFile::transfer(std::span<PageIo> run, bool is_write) {
  std::array<iovec, kPagesPerCall> parts;
  size_t count = 0;
  for (const PageIo& page : run) {
    if (count > 0 &&
        static_cast<uint8_t*>(parts[count - 1].iov_base) + parts[count - 1].iov_len == page.bytes) {
      parts[count - 1].iov_len += kSpillPageBytes;
    } else {
      parts[count++] = iovec{page.bytes, kSpillPageBytes};
    }
  }
  off_t offset = static_cast<off_t>(run[0].slot) * static_cast<off_t>(kSpillPageBytes);
  size_t left = run.size() * kSpillPageBytes;
  size_t at = 0;
  while (left > 0) {
    const int n = static_cast<int>(count - at);
    const ssize_t moved = is_write ? pwritev(fd_, &parts[at], n, offset) : preadv(fd_, &parts[at], n, offset);
    if (moved < 0 && errno == EINTR) continue;
    if (moved < 0) return errno;
    if (moved == 0) return EIO;  // the end of a file that has this slot: somebody has cut it
    offset += moved;
    left -= static_cast<size_t>(moved);
    size_t skip = static_cast<size_t>(moved);
    while (skip > 0) {
      const size_t step = std::min(skip, parts[at].iov_len);
      parts[at].iov_base = static_cast<uint8_t*>(parts[at].iov_base) + step;
      parts[at].iov_len -= step;
      skip -= step;
      if (parts[at].iov_len == 0) ++at;
    }
  }
  return 0;
}

int SpillFile::move_run(std::span<PageIo> run, bool is_write) {
  const bool was_direct = !buffered_;  // another thread may find out at the same time
  int error = transfer(run, is_write);
  if (error == EINVAL && was_direct) {
    // Opened with O_DIRECT but does not do it (or wants more than page alignment): buffered from here on.
    const int flags = fcntl(fd_, F_GETFL);
    if (flags < 0 || fcntl(fd_, F_SETFL, flags & ~O_DIRECT) != 0) return errno;
    posix_fadvise(fd_, 0, 0, POSIX_FADV_RANDOM);
    buffered_ = true;
    error = transfer(run, is_write);
  }
  if (error != 0 || !buffered_) return error;
  const uint64_t offset = static_cast<uint64_t>(run[0].slot) * kSpillPageBytes;
  const uint64_t bytes = run.size() * kSpillPageBytes;
  if (is_write) return write_out(offset, bytes);
  posix_fadvise(fd_, static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_DONTNEED);
  return 0;
}

int SpillFile::move_all(std::span<PageIo> pages, bool is_write) {
  const auto by_slot = [](const PageIo& a, const PageIo& b) { return a.slot < b.slot; };
  if (!std::is_sorted(pages.begin(), pages.end(), by_slot)) std::sort(pages.begin(), pages.end(), by_slot);
  size_t first = 0;
  while (first < pages.size()) {
    size_t end = first + 1;
    while (end < pages.size() && end - first < kPagesPerCall && pages[end].slot == pages[end - 1].slot + 1)
      ++end;
    const int error = move_run(pages.subspan(first, end - first), is_write);
    if (error != 0) return error;
    first = end;
  }
  return 0;
}

SpillError SpillFile::write(std::span<PageIo> pages) {
  const SpillError planned = injected(false);
  return planned != SpillError::none ? planned : classify(move_all(pages, true));
}

SpillError SpillFile::read(std::span<PageIo> pages) {
  const SpillError planned = injected(true);
  if (planned != SpillError::none) return planned;
  return move_all(pages, false) == 0 ? SpillError::none : SpillError::io;
}

SpillError SpillFile::read_page(uint32_t slot, uint8_t* bytes) {
  const SpillError planned = injected(true);
  if (planned != SpillError::none) return planned;
  const off_t offset = static_cast<off_t>(slot) * static_cast<off_t>(kSpillPageBytes);
  if (!buffered_ && pread(fd_, bytes, kSpillPageBytes, offset) == static_cast<ssize_t>(kSpillPageBytes)) {
    return SpillError::none;
  }
  PageIo page{slot, bytes};
  return move_run({&page, 1}, false) == 0 ? SpillError::none : SpillError::io;
}

void SpillFile::punch(uint32_t first, uint32_t count) {
  if (!punchable_) return;
  const off_t offset = static_cast<off_t>(first) * static_cast<off_t>(kSpillPageBytes);
  const off_t bytes = static_cast<off_t>(count) * static_cast<off_t>(kSpillPageBytes);
  int result;
  do {
    result = fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes);
  } while (result != 0 && errno == EINTR);
  if (result != 0 && (errno == EOPNOTSUPP || errno == ENOSYS)) punchable_ = false;
}

}  // namespace elastic
