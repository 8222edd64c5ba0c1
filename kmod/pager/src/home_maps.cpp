// What the application reads of its own /proc/PID/maps: its mappings as the kernel would show them had they
// not become elastic. The filter stops opens for reading; one whose path ends in "maps" is made by the
// kernel, which knows all the ways to name a file, and if it has opened the application's own list, a memory
// file with the list as it should be takes its place. See home.hpp.
//
// Limits: the list is of the moment of the open, so that rewinding it does not bring news. It has a size, and
// /proc/self/fd shows another name for it. Other processes see the mappings as they are.
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>

#include "home.hpp"
#include "proc_maps.hpp"

namespace elastic {

namespace {

constexpr std::string_view kMapsName = "maps";
constexpr uint64_t kMapsNameAt = kTrampoline + 64;  // behind the instructions
constexpr size_t kUsualPathBytes = 128;

// The process or thread whose list of mappings `fd` is, 0 for another file.
pid_t task_of_maps(int fd) {
  struct statfs system {};
  char path[PATH_MAX];
  if (fstatfs(fd, &system) != 0 || system.f_type != PROC_SUPER_MAGIC) return 0;
  const ssize_t length = readlink(format("/proc/self/fd/%d", fd).c_str(), path, sizeof path);
  if (length <= 0 || static_cast<size_t>(length) == sizeof path) return 0;
  std::string_view text(path, static_cast<size_t>(length));
  const size_t name = text.rfind('/');
  if (name == std::string_view::npos || text.substr(name + 1) != kMapsName) return 0;
  path[name] = 0;
  const char* number = strrchr(path, '/');
  return number == nullptr ? 0 : atoi(number + 1);
}

}  // namespace

void Home::call_open(Thread& thread) {
  const uint64_t address = thread.call.orig_rax == SYS_open ? thread.call.rdi : thread.call.rsi;
  char path[PATH_MAX];
  size_t length = 0;
  const void* end = nullptr;
  while (end == nullptr && length < sizeof path) {
    const size_t wanted = length < kUsualPathBytes ? kUsualPathBytes - length : sizeof path - length;
    const ssize_t got =
        pread(memory_view_.get(), path + length, wanted, static_cast<off_t>(address + length));
    if (got <= 0) break;
    end = memchr(path + length, 0, static_cast<size_t>(got));
    length += static_cast<size_t>(got);
  }
  if (end == nullptr && length < sizeof path && fetch_path(thread, page_of(address + length))) return;
  release(thread.pinned);
  const std::string_view text(path,
                              end == nullptr ? 0 : static_cast<size_t>(static_cast<const char*>(end) - path));
  run_native(thread, text.ends_with(kMapsName));
}

// The page of a path that is away is brought here, and the call looked at again. False if it is not away: the
// kernel is to say what is wrong with it.
bool Home::fetch_path(Thread& thread, uint64_t page) {
  const Region* region = regions_.find(page);
  if (region == nullptr || region->kind != RegionKind::elastic || (region->prot & PROT_READ) == 0 ||
      std::find(thread.pinned.begin(), thread.pinned.end(), page) != thread.pinned.end())
    return false;
  thread.state = ThreadState::held;
  thread.pinned.push_back(page);
  const pid_t tid = thread.tid;
  engine_->make_resident({page}, true, [this, tid] {
    Thread* waiting = find_thread(tid);
    if (waiting == nullptr || waiting->state != ThreadState::held) return;
    waiting->state = ThreadState::running;
    call_open(*waiting);
  });
  return true;
}

// At the end of an open by that name. The new descriptor is one that any open may give.
void Home::after_open(Thread& thread, user_regs_struct registers) {
  const auto opened = static_cast<int64_t>(registers.rax);
  const pid_t tid = thread.tid;
  if (opened < 0) {
    resume(tid);
    return;
  }
  const Fd file = open_of_task(tid, format("fd/%d", static_cast<int>(opened)).c_str(), O_PATH);
  const pid_t task = file ? task_of_maps(file.get()) : 0;
  if (task == 0 || (task != application_ && find_thread(task) == nullptr) || has_own_filters(tid)) {
    resume(tid);
    return;
  }
  const uint64_t flags = thread.call.orig_rax == SYS_open ? thread.call.rsi : thread.call.rdx;
  const uint64_t close_on_exec = flags & O_CLOEXEC;
  if (pwrite(memory_view_.get(), kMapsName.data(), kMapsName.size(), static_cast<off_t>(kMapsNameAt)) < 0)
    fail_errno("writing the trampoline page");
  const int64_t made =
      call_in(tid, kTrampoline, SYS_memfd_create, kMapsNameAt, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (made >= 0) {  // else the kernel's list has to do
    fill_maps(tid, static_cast<int>(made));
    call_in(tid, kTrampoline, SYS_dup3, static_cast<uint64_t>(made), registers.rax, close_on_exec);
    call_in(tid, kTrampoline, SYS_close, static_cast<uint64_t>(made));
  }
  registers.orig_rax = ~0ull;
  if (set_registers(tid, registers)) resume(tid);
}

// Through a description of the pager's own, so that the application's stays at the start.
void Home::fill_maps(pid_t tid, int number) {
  const Fd file = open_of_task(tid, format("fd/%d", number).c_str(), O_RDWR);
  if (!file) return;  // killed, or closed by another thread
  const std::string text = maps_text();
  for (size_t at = 0; at < text.size();) {
    const ssize_t written = write(file.get(), text.data() + at, text.size() - at);
    if (written <= 0) fail_errno("writing the list of mappings");
    at += static_cast<size_t>(written);
  }
  fchmod(file.get(), 0444);
  fcntl(file.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
}

std::string Home::maps_text() {
  std::vector<Mapping> shown;
  for (Mapping& mapping : read_maps(application_, memory_.injector())) {
    const bool elastic = !mapping.is_private && mapping.file.path.starts_with("/memfd:elastic");
    if (!elastic && !is_reserved(mapping.start, kPageBytes)) shown.push_back(std::move(mapping));
  }
  const auto show = [&](const Region& region) {
    if (region.kind != RegionKind::elastic) return;
    Mapping mapping = shown_mapping(region);
    if (mapping.start < mapping.end) shown.push_back(std::move(mapping));
  };
  regions_.visit(0, page_of(brk_start_), show);  // the kernel does not join .bss and heap
  regions_.visit(page_of(brk_start_), page_of(kUserSpaceEnd), show);
  std::sort(shown.begin(), shown.end(), [](const Mapping& a, const Mapping& b) { return a.start < b.start; });
  std::string text;
  for (size_t i = 0; i < shown.size(); i++) {
    Mapping line = shown[i];
    // What lies beyond the end of a file is not elastic, and yet the same mapping.
    for (; i + 1 < shown.size() && (line.prot & PROT_WRITE) != 0 && line.is_private && !line.anonymous() &&
           shown[i + 1].start == line.end && shown[i + 1].prot == line.prot && shown[i + 1].is_private &&
           shown[i + 1].file == line.file && shown[i + 1].offset == line.offset + (line.end - line.start);
         i++)
      line.end = shown[i + 1].end;
    text += maps_line(line);
  }
  return text;
}

// An elastic region as the kernel's mapping that it stands for. The stack is shown as far as it has been
// used, or as exec made it: the kernel lets it grow as it is used.
Mapping Home::shown_mapping(const Region& region) {
  Mapping mapping;
  uint64_t first = region.start;
  if (region.start >= stack_first_ && region.start < stack_end_) {
    first = std::min(stack_made_first_, region.end);
    table_.for_each_touched(region.start, first, [&](uint64_t page, const PageEntry& e) {
      if (e.state() != PageState::untouched) first = std::min(first, page);
    });
  }
  mapping.start = address_of(first);
  mapping.end = address_of(region.end);
  mapping.prot = region.prot;
  mapping.is_private = true;
  if (region.backing || region.file) {
    mapping.file = region.backing ? file_name(region.backing->fd.get()) : *region.file;
    mapping.offset = address_of(region.backing_page + (first - region.start));
  } else if (region.end == stack_end_) {
    mapping.file.path = "[stack]";
  } else if (mapping.start < brk_now_ && mapping.end > brk_start_) {
    mapping.file.path = "[heap]";
  }
  return mapping;
}

}  // namespace elastic
