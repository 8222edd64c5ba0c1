// See regions.hpp.
#include "regions.hpp"

#include <sys/stat.h>

#include <algorithm>

namespace elastic {

uint64_t BackingFile::pages_from(uint64_t page, uint64_t most) const {
  struct stat info {};
  if (fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode)) return most;
  const uint64_t pages = page_of(round_up_page(static_cast<uint64_t>(info.st_size)));
  return pages <= page ? 0 : std::min(most, pages - page);
}

// Beyond the file's end are zeros.
bool Region::read_backing(uint64_t page, uint8_t* out) const {
  if (!backing) return false;
  const auto offset = static_cast<off_t>(address_of(backing_page + (page - start)));
  const ssize_t got = pread(backing->fd.get(), out, kPageBytes, offset);
  if (got < 0) fail_errno("reading a mapped file failed");
  memset(out + got, 0, kPageBytes - static_cast<size_t>(got));
  return true;
}

namespace {
// Mappings of at least this many pages get room to grow (mremap and realloc of large blocks are common, and a
// moving mremap has to copy every page).
constexpr uint64_t kGrowthFromPages = 64;
constexpr uint64_t kGrowthPagesMax = 1ull << 18;
}  // namespace

const Region* RegionMap::find(uint64_t page) const {
  auto it = regions_.upper_bound(page);
  if (it == regions_.begin()) return nullptr;
  --it;
  return page < it->second.end ? &it->second : nullptr;
}

bool RegionMap::overlaps(uint64_t first, uint64_t end) const {
  auto it = regions_.lower_bound(first);
  if (it != regions_.end() && it->first < end) return true;
  return find(first) != nullptr;
}

void RegionMap::split(uint64_t page) {
  auto it = regions_.upper_bound(page);
  if (it == regions_.begin()) return;
  --it;
  Region& left = it->second;
  if (left.start >= page || left.end <= page) return;
  Region right = left;
  right.start = page;
  right.backing_page += page - left.start;
  left.end = page;
  regions_.emplace(page, std::move(right));
}

void RegionMap::cut(uint64_t first, uint64_t end) {
  split(first);
  split(end);
  regions_.erase(regions_.lower_bound(first), regions_.lower_bound(end));
}

void RegionMap::erase(uint64_t first, uint64_t end) {
  cut(first, end);
  // Freed addresses are used again before fresh ones: the page table pays for every address ever touched.
  auto next = regions_.lower_bound(end);
  hint_ = std::max(hint_, next == regions_.end() ? end : next->first);
}

bool RegionMap::mergeable(const Region& a, const Region& b) const {
  return a.end == b.start && a.prot == b.prot && a.kind == b.kind && a.backing == b.backing &&
         a.file == b.file &&
         ((!a.backing && !a.file) || a.backing_page + (a.end - a.start) == b.backing_page) &&
         a.wipe_on_fork == b.wipe_on_fork && a.skip_on_fork == b.skip_on_fork && a.locked == b.locked &&
         a.kind == RegionKind::elastic;
}

void RegionMap::insert(Region region) {
  cut(region.start, region.end);
  auto it = regions_.emplace(region.start, std::move(region)).first;
  auto next = std::next(it);
  if (next != regions_.end() && mergeable(it->second, next->second)) {
    it->second.end = next->second.end;
    regions_.erase(next);
  }
  if (it != regions_.begin()) {
    auto previous = std::prev(it);
    if (mergeable(previous->second, it->second)) {
      previous->second.end = it->second.end;
      regions_.erase(it);
    }
  }
}

void RegionMap::update(uint64_t first, uint64_t end, const std::function<void(Region&)>& change) {
  split(first);
  split(end);
  std::vector<Region> changed;
  for (auto it = regions_.lower_bound(first); it != regions_.end() && it->first < end; ++it) {
    changed.push_back(it->second);
    change(changed.back());
  }
  for (Region& region : changed) insert(std::move(region));
}

void RegionMap::visit(uint64_t first, uint64_t end, const std::function<void(const Region&)>& look) const {
  auto it = regions_.upper_bound(first);
  if (it != regions_.begin()) --it;
  for (; it != regions_.end() && it->first < end; ++it) {
    if (it->second.end <= first) continue;
    Region part = it->second;
    if (part.start < first) {
      part.backing_page += first - part.start;
      part.start = first;
    }
    part.end = std::min(part.end, end);
    look(part);
  }
}

uint64_t RegionMap::choose(uint64_t pages, uint64_t below, uint64_t lowest) {
  const uint64_t growth = pages >= kGrowthFromPages ? std::min(pages, kGrowthPagesMax) : 0;
  for (int attempt = 0; attempt < 3; attempt++) {
    const uint64_t wanted = pages + (attempt < 2 ? growth : 0);  // without, before there is none at all
    uint64_t end = attempt == 0 && hint_ > lowest && hint_ <= below ? hint_ : below;
    while (end >= lowest + wanted) {
      auto it = regions_.lower_bound(end);  // first region that starts at or above `end`
      const uint64_t used_end = it == regions_.begin() ? 0 : std::prev(it)->second.end;
      if (used_end + wanted <= end) {
        const uint64_t start = end - wanted;
        hint_ = start;
        return start;
      }
      if (it == regions_.begin()) break;
      end = std::prev(it)->second.start;
    }
  }
  return 0;
}

}  // namespace elastic
