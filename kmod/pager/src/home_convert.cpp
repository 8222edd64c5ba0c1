// A new image's memory: what the kernel mapped at exec becomes elastic before the program's first
// instruction. Also the conversion of private file pages that become writable later, and a fresh look at
// /proc/PID/maps after calls whose effect the pager does not predict. See home.hpp.
#include <fcntl.h>
#include <linux/prctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>

#include "home.hpp"
#include "proc_maps.hpp"
#include "proc_text.hpp"

namespace elastic {

namespace {

constexpr uint64_t kArgumentBytesMax = 8u << 20;  // the kernel's own limit is 6 MB
constexpr uint64_t kConvertPages = 16;            // few enough that none is evicted before it is mapped

bool is_special(const Mapping& mapping) {
  const std::string& name = mapping.file.path;
  return mapping.start == kTrampoline || name == "[vdso]" || name.starts_with("[vvar") ||
         name == "[vsyscall]";
}

Region region_of(const Mapping& mapping) {
  Region region;
  region.start = page_of(mapping.start);
  region.end = page_of(mapping.end);
  region.prot = mapping.prot;
  region.backing_page = page_of(mapping.offset);
  if (!mapping.anonymous()) region.file = std::make_shared<FileName>(mapping.file);
  return region;
}

// The file that was executed, if its user may read it.
std::shared_ptr<BackingFile> executed_file(pid_t pid) {
  auto file = std::make_shared<BackingFile>();
  file->fd.reset(open(format("/proc/%d/exe", pid).c_str(), O_RDONLY | O_CLOEXEC));
  return file->fd ? file : nullptr;
}

}  // namespace

void Home::convert_image() {
  const std::vector<Mapping> maps = read_maps(application_, memory_.injector());
  const std::shared_ptr<BackingFile> executed = executed_file(application_);
  mmap_top_ = page_of(kUserSpaceEnd) - kStackGapPages;
  stack_first_ = stack_end_ = 0;
  locks_new_ = false;
  reserved_end_ = kTrampoline + kTrampolineBytes;
  for (const Mapping& mapping : maps) {
    Region region = region_of(mapping);
    if (region.end > page_of(kUserSpaceEnd)) continue;  // vsyscall
    const bool stack = mapping.file.path == "[stack]";
    const bool elastic =
        mapping.is_private && !is_special(mapping) && (mapping.anonymous() || (mapping.prot & PROT_WRITE));
    if (!elastic) {
      region.kind = mapping.is_private && !mapping.anonymous() ? RegionKind::replica : RegionKind::native;
      regions_.insert(region);
      continue;
    }
    if (executed && mapping.file == file_name(executed->fd.get())) region.backing = executed;
    copy_in(region, mapping.anonymous());
    if (const int error = memory_.map(region.start, region.end - region.start, region.prot); error != 0)
      throw Failure(format("cannot map elastic memory at %#" PRIx64 ": %s", address_of(region.start),
                           strerror(-error)));
    regions_.insert(region);
    if (stack) place_stack(region);
  }
  fit_stack();
  brk_start_ = static_cast<uint64_t>(memory_.injector().call(SYS_brk, 0));
  brk_now_ = brk_start_;
  move_arguments(stack_first_, stack_end_);
}

// Copies contents into the memory file and the table; pages that hold what untouched ones would stay
// untouched. `present_only`: anonymous memory, where what is not present is zero (reading it would populate
// it).
void Home::copy_in(const Region& region, bool present_only) {
  const uint64_t first = region.start, end = region.end;
  std::vector<bool> wanted(end - first, !present_only);
  if (present_only) {
    const Fd pagemap(open(format("/proc/%d/pagemap", application_).c_str(), O_RDONLY | O_CLOEXEC));
    uint64_t words[512];
    for (uint64_t page = first; page < end;) {
      const uint64_t count = std::min<uint64_t>(std::size(words), end - page);
      const ssize_t got = pread(pagemap.get(), words, count * 8, static_cast<off_t>(page * 8));
      if (got <= 0) break;
      for (uint64_t i = 0; i < static_cast<uint64_t>(got) / 8; i++)
        wanted[page + i - first] = (words[i] >> 62) != 0;
      page += static_cast<uint64_t>(got) / 8;
    }
  }
  uint8_t bytes[kPageBytes], untouched[kPageBytes] = {};
  for (uint64_t page = first; page < end; page++) {
    if (!wanted[page - first]) continue;
    if (pread(memory_view_.get(), bytes, kPageBytes, static_cast<off_t>(address_of(page))) !=
        static_cast<ssize_t>(kPageBytes))
      continue;
    region.read_backing(page, untouched);
    if (memcmp(bytes, untouched, kPageBytes) != 0) engine_->adopt(page, bytes);
  }
}

// Every page of a few, so that a thread which reads them between their mapping and its registration finds
// them in the memory file.
void Home::copy_all(uint64_t first, uint64_t end) {
  for (uint64_t page = first; page < end; page++) {
    uint8_t bytes[kPageBytes] = {};
    const auto offset = static_cast<off_t>(address_of(page));
    if (pread(memory_view_.get(), bytes, kPageBytes, offset) < 0 && errno != EIO)
      fail_errno("reading file pages at %#lx", address_of(page));
    engine_->adopt(page, bytes);
  }
}

// The file may be in use by other threads all the while.
void Home::convert_range(const Region& part, int prot) {
  const uint64_t first = part.start;
  uint64_t end = part.end;
  if (part.backing) {
    end = first + part.backing->pages_from(part.backing_page, end - first);
    if (end < part.end) {
      Region beyond = part;
      beyond.start = end;
      beyond.kind = RegionKind::native;
      tell_unmapped(end, part.end);
      regions_.insert(beyond);
    }
    if (end == first) return;
  }
  tell_unmapped(first, end);
  // Untouched pages come from the file later, unless there is no descriptor to read it from (the kernel's
  // exec mapped it), or other threads may be reading now.
  const bool copies = !part.backing || threads_.size() > 1;
  for (uint64_t from = first; from < end;) {
    const uint64_t to = copies ? std::min(end, from + kConvertPages) : end;
    if (copies) copy_all(from, to);
    if (const int error = memory_.map(from, to - from, prot); error != 0)
      throw Failure(
          format("cannot make file pages at %#" PRIx64 " elastic: %s", address_of(from), strerror(-error)));
    from = to;
  }
  Region region = part;  // with what advice has said of it
  region.end = end;
  region.prot = prot;
  region.kind = RegionKind::elastic;
  regions_.insert(region);
  tell_mapped(first, end);
}

// /proc/PID/cmdline and environ are read by the kernel without waiting for pages, so they must not point into
// memory that can be away: the strings are copied to native pages and the kernel is told that they are there
// (PR_SET_MM_MAP wants no privilege). Where the kernel does not offer that, the pages are pinned; then
// threads whose stack is on one of them cannot jump.
void Home::move_arguments(uint64_t stack_first, uint64_t stack_end) {
  const ProcStat stat = stat_of(application_);
  const auto& field = stat.field;
  const uint64_t start = field[48], end = field[51];  // arg_start … env_end
  if (start == 0 || end <= start || end - start > kArgumentBytesMax) return;
  std::vector<uint8_t> strings(end - start);
  Injector& injector = memory_.injector();
  prctl_mm_map map{};
  map.start_code = field[26];
  map.end_code = field[27];
  map.start_data = field[45];
  map.end_data = field[46];
  map.start_brk = field[47];
  map.brk = static_cast<uint64_t>(injector.call(SYS_brk, 0));
  map.start_stack = field[28];
  map.arg_start = kArgumentsAt + sizeof map;
  map.arg_end = map.arg_start + (field[49] - start);
  map.env_start = map.arg_start + (field[50] - start);
  map.env_end = map.arg_start + (end - start);
  map.exe_fd = ~0u;
  const uint64_t bytes = round_up_page(sizeof map + strings.size());
  const bool copied =
      pread(memory_view_.get(), strings.data(), strings.size(), static_cast<off_t>(start)) ==
          static_cast<ssize_t>(strings.size()) &&
      injector.call(SYS_mmap, kArgumentsAt, bytes, PROT_READ,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, ~0ull,
                    0) == static_cast<int64_t>(kArgumentsAt) &&
      pwrite(memory_view_.get(), &map, sizeof map, static_cast<off_t>(kArgumentsAt)) == sizeof map &&
      pwrite(memory_view_.get(), strings.data(), strings.size(), static_cast<off_t>(map.arg_start)) ==
          static_cast<ssize_t>(strings.size());
  if (copied && injector.call(SYS_prctl, PR_SET_MM, PR_SET_MM_MAP, kArgumentsAt, sizeof map) == 0) {
    Region region;
    region.start = page_of(kArgumentsAt);
    region.end = page_of(kArgumentsAt + bytes);
    region.prot = PROT_READ;
    region.kind = RegionKind::native;
    regions_.insert(region);
    reserved_end_ = kArgumentsAt + bytes;
    return;
  }
  for (uint64_t page = std::max(page_of(start), stack_first); page <= page_of(end - 1) && page < stack_end;
       page++)
    if (table_.peek(page).state() == PageState::resident) table_.entry(page).pinned = 1;
}

namespace {

// Parts of elastic and replica regions of `all` that `other` does not have as the same kind.
void visit_missing(const RegionMap& all, const RegionMap& other,
                   const std::function<void(RegionKind, uint64_t, uint64_t)>& found) {
  all.visit(0, page_of(kUserSpaceEnd), [&](const Region& region) {
    if (region.kind == RegionKind::native) return;
    uint64_t at = region.start;
    other.visit(region.start, region.end, [&](const Region& part) {
      if (part.kind != region.kind) return;
      if (at < part.start) found(region.kind, at, part.start);
      at = part.end;
    });
    if (at < region.end) found(region.kind, at, region.end);
  });
}

}  // namespace

// Takes over what /proc/PID/maps says of everything that is not elastic. What was elastic and is no longer
// ends here and everywhere: a later mapping at its place must not find its pages.
void Home::resync_native() {
  const RegionMap before = regions_;
  RegionMap fresh;
  for (const Mapping& mapping : read_maps(application_, memory_.injector())) {
    if (mapping.end > kUserSpaceEnd) continue;
    Region region = region_of(mapping);
    const bool replica =
        mapping.is_private && !mapping.anonymous() && !(mapping.prot & PROT_WRITE) && !is_special(mapping);
    region.kind = replica ? RegionKind::replica : RegionKind::native;
    fresh.insert(region);
  }
  // Of what was elastic or a replica, what still is, with the protection it has now.
  before.visit(0, page_of(kUserSpaceEnd), [&](const Region& region) {
    if (region.kind == RegionKind::native) return;
    std::vector<Region> parts;
    fresh.visit(region.start, region.end, [&](const Region& now) {
      if (region.kind == RegionKind::elastic ? !(now.file && now.file->path.starts_with("/memfd:elastic"))
                                             : now.kind != RegionKind::replica)
        return;
      Region part = region;
      part.start = now.start;
      part.end = now.end;
      part.prot = now.prot;
      part.backing_page += now.start - region.start;
      parts.push_back(std::move(part));
    });
    for (Region& part : parts) fresh.insert(std::move(part));
  });
  regions_ = std::move(fresh);
  visit_missing(before, regions_, [this](RegionKind kind, uint64_t first, uint64_t end) {
    if (kind == RegionKind::elastic) engine_->forget(first, end);
    tell_unmapped(first, end);
  });
  visit_missing(regions_, before,
                [this](RegionKind, uint64_t first, uint64_t end) { tell_mapped(first, end); });
}

}  // namespace elastic
