// See memory.hpp.
#include "memory.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace elastic {

namespace {

// linux/fs.h of 6.7 and newer; Debian 12's headers are older.
struct ScanRegion {
  uint64_t start, end, categories;
};
struct ScanRequest {
  uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
  uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
constexpr unsigned long kPagemapScan = _IOWR('f', 16, ScanRequest);
constexpr uint64_t kWritten = 2, kPresent = 8;
constexpr uint64_t kPagemapPresentBit = 1ull << 63, kPagemapProtectedBit = 1ull << 57;

constexpr uint64_t kAhead = page_of(4 << 20);  // of a heap, mapped with what it grows by
constexpr uint64_t kVacantMax = page_of(16 << 20);

const uint8_t kZeroPage[kPageBytes] = {};

Fd new_file() {
  Fd file(memfd_create("elastic", MFD_CLOEXEC));
  if (!file) fail_errno("memfd_create");
  if (ftruncate(file.get(), static_cast<off_t>(kUserSpaceEnd)) == 0) return file;
  if (errno != EFBIG) fail_errno("memfd of 128 TB");
  throw Failure("the hard limit of file sizes (ulimit -Hf) has no room for elastic memory: start without it");
}

}  // namespace

Memory::Memory() : file_(new_file()) { scan_ioctl_ = getenv("ELASTICOS_NO_PAGEMAP_SCAN") == nullptr; }

void Memory::attach(Injector injector, Uffd uffd, int file_number) {
  injector_ = injector;
  uffd_ = std::move(uffd);
  file_number_ = file_number;
  pagemap_.reset(open(format("/proc/%d/pagemap", injector_.tid()).c_str(), O_RDONLY | O_CLOEXEC));
  if (!pagemap_) fail_errno("cannot open the pagemap of process %d", injector_.tid());
}

void Memory::detach() {
  uffd_ = Uffd();
  injector_ = Injector();
  pagemap_.reset();
  file_number_ = -1;
  vacant_ = {};
}

void Memory::reset() {
  detach();
  file_ = new_file();
}

int Memory::map_closed(uint64_t page, uint64_t count, int prot) {
  const int result = map(page, count, PROT_NONE);
  return result == 0 && prot != PROT_NONE ? protect(page, count, prot) : result;
}

int Memory::map(uint64_t page, uint64_t count, int prot, bool exclusive) {
  if (!attached() || (prot == kVacantProt && take_vacant(page, count))) return 0;
  if (overlaps_vacant(page, count)) unmap_vacant();
  const uint64_t address = address_of(page), bytes = count << kPageShift;
  const uint64_t flags =
      MAP_SHARED | MAP_NORESERVE | static_cast<uint64_t>(exclusive ? MAP_FIXED_NOREPLACE : MAP_FIXED);
  const int64_t at = injector_.call(SYS_mmap, address, bytes, static_cast<uint64_t>(prot), flags,
                                    static_cast<uint64_t>(file_number_), address);
  if (at == -ENOMEM && vacant_.count > 0) {  // a limit that it must not count in
    unmap_vacant();
    return map(page, count, prot, exclusive);
  }
  if (at < 0 && at > -4096) return static_cast<int>(at);
  return uffd_.watch(page, count);
}

int Memory::grow(uint64_t page, uint64_t count) {
  if (!attached() || take_vacant(page, count)) return 0;
  if (vacant_.page != page) unmap_vacant();
  const uint64_t mapped_end = page + vacant_.count, end = page + count;
  const int64_t at = injector_.call(SYS_mremap, address_of(mapped_end - 1), kPageBytes,
                                    (end + kAhead - mapped_end + 1) << kPageShift, 0);
  if (at < 0 && at > -4096) return map(page, count, kVacantProt, true);
  vacant_ = {end, kAhead};
  return 0;
}

int Memory::unmap(uint64_t page, uint64_t count) {
  if (!attached()) return 0;
  if (overlaps_vacant(page, count)) unmap_vacant();
  const int64_t result = injector_.call(SYS_munmap, address_of(page), count << kPageShift);
  wake(page, count);  // a thread that waited there finds out by itself
  return static_cast<int>(result);
}

void Memory::vacate(uint64_t page, uint64_t count) {
  if (!attached()) return;
  if (vacant_.page + vacant_.count == page)
    page = vacant_.page;
  else if (page + count != vacant_.page)
    unmap_vacant();
  vacant_ = {page, vacant_.count + count};
  if (vacant_.count > kVacantMax) unmap_vacant();
}

void Memory::unmap_vacant() {
  const PageRun run = std::exchange(vacant_, {});
  if (run.count == 0) return;
  if (const int error = unmap(run.page, run.count); error != 0 && error != -ESRCH)
    throw Failure(format("cannot unmap memory at %#lx: %s", address_of(run.page), strerror(-error)));
}

bool Memory::take_vacant(uint64_t page, uint64_t count) {
  if (page != vacant_.page || count > vacant_.count) return false;
  vacant_ = {page + count, vacant_.count - count};
  return true;
}

int Memory::protect(uint64_t page, uint64_t count, int prot) {
  if (!attached()) return 0;
  return static_cast<int>(
      injector_.call(SYS_mprotect, address_of(page), count << kPageShift, static_cast<uint64_t>(prot)));
}

// Into the file when nothing is mapped there (yet): contents must not be lost because a mapping is late.
static void write_file(int file, uint64_t page, const uint8_t* data) {
  if (pwrite(file, data, kPageBytes, static_cast<off_t>(address_of(page))) !=
      static_cast<ssize_t>(kPageBytes))
    fail_errno("no memory for page %#lx", page);
}

void Memory::place(uint64_t page, const uint8_t* data, uint64_t count, bool write_protected) {
  uint64_t at = 0;
  while (at < count) {
    uint64_t done = 0;
    Placed result = Placed::unmapped;
    if (attached())
      result = uffd_.copy(page + at, data + (at << kPageShift), count - at, done, write_protected);
    at += done;
    if (result == Placed::ok) break;
    if (result == Placed::gone) return;
    if (result == Placed::unmapped && attached() && count - at > 1) {
      // The range may lie in several mappings: one page at a time goes through where the whole does not.
      for (; at < count; at++) place(page + at, data + (at << kPageShift), 1, write_protected);
      break;
    }
    write_file(file_.get(), page + at, data + (at << kPageShift));
    wake(page + at, 1);
    at++;
  }
}

void Memory::place_zero(uint64_t page, uint64_t count) {
  uint64_t at = 0;
  while (at < count) {
    uint64_t done = 0;
    Placed result = Placed::unmapped;
    if (attached()) result = uffd_.zero(page + at, count - at, done);
    at += done;
    if (result == Placed::ok) break;
    if (result == Placed::gone) return;
    if (result == Placed::unmapped && attached() && count - at > 1) {
      for (; at < count; at++) place_zero(page + at, 1);
      break;
    }
    write_file(file_.get(), page + at, kZeroPage);
    wake(page + at, 1);
    at++;
  }
}

void Memory::read(uint64_t page, uint8_t* out, uint64_t count) {
  const size_t bytes = count << kPageShift;
  if (pread(file_.get(), out, bytes, static_cast<off_t>(address_of(page))) != static_cast<ssize_t>(bytes))
    fail_errno("read of page %#lx", page);
}

void Memory::take(uint64_t page, uint8_t* out, uint64_t count, bool protect) {
  if (protect && attached()) uffd_.write_protect(page, count);
  read(page, out, count);
  drop(page, count);
}

void Memory::drop(uint64_t page, uint64_t count) {
  if (fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(address_of(page)),
                static_cast<off_t>(count << kPageShift)) != 0)
    fail_errno("punching page %#lx", page);
}

void Memory::wake(uint64_t page, uint64_t count) {
  if (attached()) uffd_.wake(page, count);
}

void Memory::unprotect(uint64_t page, uint64_t count) {
  if (attached()) uffd_.write_unprotect(page, count);
}

void Memory::scan_used(uint64_t first, uint64_t end, const std::function<void(PageRun)>& found) {
  scan(first, end, kPresent, found);
}

void Memory::scan_written(uint64_t first, uint64_t end, const std::function<void(PageRun)>& found) {
  scan(first, end, kWritten, found);
}

void Memory::scan(uint64_t first, uint64_t end, uint64_t category,
                  const std::function<void(PageRun)>& found) {
  if (!attached()) return;
  if (!scan_ioctl_) return scan_by_pagemap(first, end, category, found);
  ScanRegion regions[512];
  end = std::min(end, page_of(kUserSpaceEnd));  // a range with the page after it is refused whole
  uint64_t from = first;
  while (from < end) {
    ScanRequest request{};
    request.size = sizeof request;
    request.start = address_of(from);
    request.end = address_of(end);
    request.vec = reinterpret_cast<uint64_t>(regions);
    request.vec_len = std::size(regions);
    request.category_mask = category;
    request.return_mask = category;
    const int got = ioctl(pagemap_.get(), kPagemapScan, &request);
    if (got < 0) {
      if (errno == ESRCH) return;
      scan_ioctl_ = false;  // before 6.7 (ENOTTY), or refused in some container
      return scan_by_pagemap(from, end, category, found);
    }
    for (int i = 0; i < got; i++)
      found({page_of(regions[i].start), page_of(regions[i].end) - page_of(regions[i].start)});
    const uint64_t next = page_of(request.walk_end);
    if (next <= from) return;
    from = next;
  }
}

// One 8-byte word a page: slow over wide empty ranges, so callers pass ranges that hold pages.
void Memory::scan_by_pagemap(uint64_t first, uint64_t end, uint64_t category,
                             const std::function<void(PageRun)>& found) {
  uint64_t words[1024];
  PageRun run{0, 0};
  for (uint64_t from = first; from < end;) {
    const uint64_t wanted = std::min<uint64_t>(std::size(words), end - from);
    const ssize_t got = pread(pagemap_.get(), words, wanted * 8, static_cast<off_t>(from * 8));
    if (got <= 0) break;
    for (uint64_t i = 0; i < static_cast<uint64_t>(got) / 8; i++) {
      const bool present = (words[i] & kPagemapPresentBit) != 0;
      // A written page may have no translation (forget_use): callers intersect with what they know to be
      // there.
      const bool hit = category == kPresent ? present : (words[i] & kPagemapProtectedBit) == 0;
      if (!hit) continue;
      if (run.count > 0 && run.page + run.count == from + i) {
        run.count++;
      } else {
        if (run.count > 0) found(run);
        run = {from + i, 1};
      }
    }
    from += static_cast<uint64_t>(got) / 8;
  }
  if (run.count > 0) found(run);
}

void Memory::forget_use(uint64_t page, uint64_t count) {
  // On a shared mapping MADV_DONTNEED drops the translations only; write-protect marks survive it. -ENOMEM
  // says that part of the range is not mapped; the rest has been done.
  if (attached()) injector_.call(SYS_madvise, address_of(page), count << kPageShift, MADV_DONTNEED);
}

void Memory::protect_written(uint64_t page, uint64_t count) {
  if (attached()) uffd_.write_protect(page, count);
}

}  // namespace elastic
