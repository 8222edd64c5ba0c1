// Direct I/O: reads for which the kernel has the disk write into pages of the program. As long as no
// descriptor can be open for that, nothing is stopped. The first call that may make one has the program
// install a second filter, by which reads stop; those of such a descriptor find their buffers resident, and
// they stay until the call has ended. See home.hpp and pinned_pages.hpp.
//
// Limits: a descriptor that another process passes through a socket, or makes direct while both have it, is
// not noticed, nor one that a vfork child reads from before its exec.
#include <dirent.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>
#include <cinttypes>
#include <climits>

#include "home.hpp"
#include "proc_text.hpp"
#include "seccomp_filter.hpp"

namespace elastic {

namespace {
constexpr uint64_t kFilterAt = kTrampoline + kPageBytes;
constexpr uint64_t kRetryUs = 1000;
constexpr uint64_t kReadBytesMax = 0x7ffff000;  // MAX_RW_COUNT: the kernel reads no more at once

// How many seccomp filters `pid` has; 0 where the kernel does not say (before 5.9).
uint64_t filters_of(pid_t pid) {
  ProcLines lines(format("/proc/%d/status", pid));
  uint64_t count = 0;
  while (const char* line = lines.next())
    if (sscanf(line, "Seccomp_filters: %lu", &count) == 1) break;
  return count;
}
}  // namespace

// Whether reads from `fd` go past the page cache. Pipes have the flag for another reason.
bool Home::is_direct(pid_t tid, int fd) {
  const Fd info(open_of_task(tid, format("fdinfo/%d", fd).c_str(), O_RDONLY, &memory_.injector()));
  char text[256] = {};
  if (!info || read(info.get(), text, sizeof text - 1) <= 0) return false;
  const char* flags = strstr(text, "flags:");
  if (flags == nullptr || (strtoul(flags + 6, nullptr, 8) & O_DIRECT) == 0) return false;
  char first = '/';
  const ssize_t length = readlink(format("/proc/%d/fd/%d", tid, fd).c_str(), &first, 1);
  return length < 0 || first == '/';
}

// Calls that the pager makes in a thread of such a program might end it.
bool Home::has_own_filters(pid_t tid) const {
  return filters_of(tid) > filters_of(getpid()) + (reads_stop_ ? 2 : 1);
}

// Has `tid`, a stopped thread of the application, install the filter for all its threads. It is inherited
// across exec. False: refused, or the program has filters of its own, which might kill it for the call.
bool Home::stop_reads(pid_t tid) {
  if (reads_stop_) return true;
  if (has_own_filters(tid)) return false;
  std::vector<sock_filter> steps = read_filter();
  const sock_fprog program{static_cast<unsigned short>(steps.size()),
                           reinterpret_cast<sock_filter*>(kFilterAt + sizeof(sock_fprog))};
  Injector& injector = memory_.injector();
  const size_t bytes = steps.size() * sizeof(sock_filter);
  const bool written = injector.call(SYS_mmap, kFilterAt, kPageBytes, PROT_READ,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, ~0ull,
                                     0) == static_cast<int64_t>(kFilterAt) &&
                       pwrite(memory_view_.get(), &program, sizeof program, kFilterAt) == sizeof program &&
                       pwrite(memory_view_.get(), steps.data(), bytes, kFilterAt + sizeof program) ==
                           static_cast<ssize_t>(bytes);
  reads_stop_ = written && call_in(tid, kTrampoline, SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                                   SECCOMP_FILTER_FLAG_TSYNC, kFilterAt) == 0;
  injector.call(SYS_munmap, kFilterAt, kPageBytes);
  return reads_stop_;
}

// A new image has the descriptors of whoever started it.
void Home::check_inherited() {
  if (reads_stop_) return;
  Fd directory(open_of_task(application_, "fdinfo", O_RDONLY | O_DIRECTORY, &memory_.injector()));
  DIR* list = directory ? fdopendir(directory.get()) : nullptr;
  if (list == nullptr) return;
  directory.release();
  bool found = false;
  while (const dirent* entry = readdir(list))
    found = found || (entry->d_name[0] != '.' && is_direct(application_, atoi(entry->d_name)));
  closedir(list);
  if (found && !stop_reads(application_))
    throw Failure("the program has a descriptor for direct I/O (O_DIRECT), and seccomp filters of its own");
}

// open, openat, open_by_handle_at with O_DIRECT, and fcntl that sets it.
void Home::call_opens_direct(Thread& thread) {
  if (reads_stop_ || !thread.in_group) return run_native(thread, false);
  const user_regs_struct entry = thread.call;
  if (!stop_reads(thread.tid)) return answer(thread, -EINVAL);  // as a file system without direct I/O
  user_regs_struct again = entry;
  again.rip -= 2;  // the call that stopped was given up for ours
  again.rax = entry.orig_rax;
  again.orig_rax = ~0ull;
  if (set_registers(thread.tid, again)) resume(thread.tid);
}

// Elastic pages that a read into these buffers writes to, ascending; of each buffer no more than tell that it
// is too large. What is not mapped, or not writable, is the kernel's to refuse.
std::vector<uint64_t> Home::pages_read_into(const std::vector<iovec>& buffers) const {
  std::vector<uint64_t> pages;
  uint64_t left = kReadBytesMax;
  for (const iovec& buffer : buffers) {
    const auto address = reinterpret_cast<uint64_t>(buffer.iov_base);
    const uint64_t bytes = std::min(buffer.iov_len, left);
    left -= bytes;
    const size_t enough = pages.size() + pins_->pages_max() + 1;
    if (bytes == 0 || address >= kUserSpaceEnd || bytes > kUserSpaceEnd - address) continue;
    regions_.visit(page_of(address), page_of(address + bytes - 1) + 1, [&](const Region& region) {
      if (region.kind != RegionKind::elastic || (region.prot & PROT_WRITE) == 0) return;
      for (uint64_t page = region.start; page < region.end && pages.size() < enough; page++)
        pages.push_back(page);
    });
  }
  std::sort(pages.begin(), pages.end());
  pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
  return pages;
}

// Bytes of the application's memory, for calls whose arguments lie there; what is away comes first. `then`
// gets what could be read, up to the first address that could not.
void Home::with_memory(Thread& thread, const std::vector<iovec>& ranges,
                       std::function<void(Thread&, std::vector<uint8_t>)> then) {
  std::vector<uint64_t> pages;
  for (const iovec& range : ranges) {
    const auto address = reinterpret_cast<uint64_t>(range.iov_base);
    if (range.iov_len == 0 || address >= kUserSpaceEnd || range.iov_len > kUserSpaceEnd - address) continue;
    for (uint64_t page = page_of(address); page <= page_of(address + range.iov_len - 1); page++)
      pages.push_back(page);
  }
  thread.state = ThreadState::held;
  thread.pinned = pages;
  const pid_t tid = thread.tid;
  engine_->make_resident(pages, true, [this, tid, ranges, then = std::move(then)] {
    Thread* waiting = find_thread(tid);
    if (waiting == nullptr || waiting->state != ThreadState::held) return;
    std::vector<uint8_t> bytes;
    for (const iovec& range : ranges) {
      const size_t at = bytes.size();
      bytes.resize(at + range.iov_len);
      const ssize_t got = pread(memory_view_.get(), bytes.data() + at, range.iov_len,
                                static_cast<off_t>(reinterpret_cast<uint64_t>(range.iov_base)));
      if (got == static_cast<ssize_t>(range.iov_len)) continue;
      bytes.resize(at + static_cast<size_t>(std::max<ssize_t>(got, 0)));
      break;
    }
    release(waiting->pinned);
    waiting->state = ThreadState::running;
    then(*waiting, std::move(bytes));
  });
}

// read, pread64, readv, preadv, preadv2
void Home::call_read(Thread& thread) {
  const user_regs_struct& r = thread.call;
  if (!is_direct(thread.tid, static_cast<int>(r.rdi))) return run_native(thread, thread.split.has_value());
  if (r.orig_rax == SYS_read || r.orig_rax == SYS_pread64)
    return read_pinned(thread, {{reinterpret_cast<void*>(r.rsi), r.rdx}});
  if (r.rdx == 0 || r.rdx > IOV_MAX) return run_native(thread, false);
  with_memory(thread, {{reinterpret_cast<void*>(r.rsi), r.rdx * sizeof(iovec)}},
              [this](Thread& reading, const std::vector<uint8_t>& bytes) {
                std::vector<iovec> buffers(bytes.size() / sizeof(iovec));
                memcpy(buffers.data(), bytes.data(), buffers.size() * sizeof(iovec));
                read_pinned(reading, buffers);
              });
}

void Home::read_pinned(Thread& thread, const std::vector<iovec>& buffers) {
  std::vector<uint64_t> pages = pages_read_into(buffers);
  if (pages.empty()) return run_native(thread, thread.split.has_value());
  const bool in_parts = thread.call.orig_rax == SYS_read || thread.call.orig_rax == SYS_pread64;
  if (pages.size() > pins_->pages_max()) {
    if (!in_parts) return too_much_to_pin(thread);
    // Whole sectors, wherever in a page the buffer begins.
    const uint64_t fits = address_of(pages[pins_->pages_max()]) - thread.call.rsi;
    if (!shorten_read(thread, fits & ~(kPageBytes - 1))) return;
    pages.resize(pins_->pages_max());
  } else if (thread.split) {
    thread.split->part_bytes = thread.call.rdx;
  }
  if (!in_parts) pins_->note_accepted(pages.size());
  run_with_pins(thread, std::move(pages));
}

// The call runs, to its end, when the pages are here, and they stay meanwhile.
void Home::run_with_pins(Thread& thread, std::vector<uint64_t> pages) {
  const pid_t tid = thread.tid;
  thread.state = ThreadState::held;
  thread.pins = pins_->pin(std::move(pages), [this, tid](PinnedPages::Id) {
    Thread* waiting = find_thread(tid);
    if (waiting == nullptr || waiting->state != ThreadState::held) return;
    waiting->state = ThreadState::running;
    run_native(*waiting, true);
  });
  reap_while_waiting();
}

// A call that moves pages into which the kernel reads: what has not come yet would not move with them.
void Home::retry_call(Thread& thread) {
  thread.state = ThreadState::held;
  thread.changing = false;
  loop_.at(now_us() + kRetryUs, [this, tid = thread.tid] {
    Thread* waiting = find_thread(tid);
    if (waiting == nullptr || waiting->state != ThreadState::held) return;
    waiting->state = ThreadState::running;
    reap_all();
    on_call(*waiting);
  });
}

// An error that direct I/O has on a kernel that cannot pin so much, either; said once in a run.
void Home::too_much_to_pin(Thread& thread) {
  if (told_refused_.insert(SYS_readv).second)
    control_->log(LogLevel::warning,
                  format("the program asked for a direct read into more than %" PRIu64
                         " MiB, a quarter of its memory; it was told that there is no memory for it",
                         pins_->pages_max() * kPageBytes >> 20));
  answer(thread, -ENOMEM);
}

// Lets the call read `bytes` only; end_read() has it go on. Until its end no handler may run and read as
// well.
bool Home::shorten_read(Thread& thread, uint64_t bytes) {
  if (!thread.split) {
    SplitRead split;
    split.asked = thread.call;
    if (!get_signal_mask(thread.tid, split.signal_mask) || !set_signal_mask(thread.tid, ~0ull)) return false;
    thread.split = split;
  }
  thread.split->part_bytes = bytes;
  user_regs_struct r = thread.call;
  r.rdx = bytes;
  return set_registers(thread.tid, r);
}

void Home::end_read(Thread& thread, user_regs_struct& r) {
  pins_->unpin(std::exchange(thread.pins, 0));
  if (!thread.split) {
    resume(thread.tid);
    return;
  }
  SplitRead& split = *thread.split;
  const user_regs_struct& asked = split.asked;
  const auto result = static_cast<int64_t>(r.rax);
  if (result > 0) split.done_bytes += static_cast<uint64_t>(result);
  const bool more = result == static_cast<int64_t>(split.part_bytes) &&
                    split.done_bytes < std::min<uint64_t>(asked.rdx, kReadBytesMax);
  if (more) {
    r.rip -= 2;
    r.rax = asked.orig_rax;
    r.orig_rax = ~0ull;
    r.rsi = asked.rsi + split.done_bytes;
    r.rdx = std::min<uint64_t>(asked.rdx, kReadBytesMax) - split.done_bytes;
    r.r10 = asked.r10 + (asked.orig_rax == SYS_pread64 ? split.done_bytes : 0);
  } else {
    r.rax = split.done_bytes > 0 ? split.done_bytes : r.rax;
    r.rsi = asked.rsi;
    r.rdx = asked.rdx;
    r.r10 = asked.r10;
    set_signal_mask(thread.tid, split.signal_mask);
    thread.split.reset();
  }
  if (set_registers(thread.tid, r)) resume(thread.tid);
}

}  // namespace elastic
