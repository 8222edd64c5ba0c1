// See snapshot.hpp.
#include "snapshot.hpp"

#include <algorithm>
#include <csignal>

namespace elastic {

namespace {
const uint8_t kZeros[kPageBytes] = {};
}  // namespace

Snapshot& Snapshots::add(pid_t task, Uffd uffd) {
  auto snapshot = std::make_unique<Snapshot>();
  snapshot->id = next_id_++;
  snapshot->uffd = std::move(uffd);
  Snapshot& added = *snapshot;
  snapshots_[added.id] = std::move(snapshot);
  join(task, added);
  return added;
}

void Snapshots::join(pid_t task, Snapshot& snapshot) {
  tasks_[task] = {.snapshot = snapshot.id};
  snapshot.tasks++;
}

std::unique_ptr<Snapshot> Snapshots::leave(pid_t task) {
  const auto it = tasks_.find(task);
  if (it == tasks_.end()) return nullptr;
  Snapshot& snapshot = *snapshots_[it->second.snapshot];
  tasks_.erase(it);
  return --snapshot.tasks == 0 ? remove(snapshot.id) : nullptr;
}

std::unique_ptr<Snapshot> Snapshots::remove(uint32_t id) {
  std::erase_if(tasks_, [id](const auto& task) { return task.second.snapshot == id; });
  return std::move(snapshots_.extract(id).mapped());
}

SnapshotTask* Snapshots::task(pid_t pid) {
  const auto it = tasks_.find(pid);
  return it == tasks_.end() ? nullptr : &it->second;
}

Snapshot* Snapshots::find(uint32_t id) {
  const auto it = snapshots_.find(id);
  return it == snapshots_.end() ? nullptr : it->second.get();
}

uint64_t Snapshots::pending() const {
  uint64_t pages = 0;
  for (const auto& [id, snapshot] : snapshots_) pages += snapshot->pending.size();
  return pages;
}

uint64_t Snapshots::backed() const {
  uint64_t pages = 0;
  for (const auto& [id, snapshot] : snapshots_)
    snapshot->regions.visit(0, page_of(kUserSpaceEnd), [&](const Region& region) {
      if (region.backing) pages += region.end - region.start;
    });
  return pages;
}

bool Snapshots::forking() const {
  return std::any_of(snapshots_.begin(), snapshots_.end(),
                     [](const auto& each) { return each.second->forking; });
}

size_t Snapshots::incomplete() const {
  return static_cast<size_t>(std::count_if(snapshots_.begin(), snapshots_.end(),
                                           [](const auto& each) { return !each.second->pending.empty(); }));
}

bool Snapshots::wants(uint64_t page) const {
  return std::any_of(snapshots_.begin(), snapshots_.end(),
                     [page](const auto& each) { return each.second->pending.has(page); });
}

uint64_t Snapshots::next(uint32_t id, uint64_t first, uint64_t end) const {
  uint64_t lowest = end;
  for (const auto& [each, snapshot] : snapshots_)
    if (id == kAll || id == each) lowest = snapshot->pending.next(first, lowest);
  return lowest;
}

void Snapshots::give(uint32_t id, uint64_t page, const uint8_t* bytes) {
  for (const auto& [each, snapshot] : snapshots_) {
    if ((id != kAll && id != each) || !snapshot->pending.remove(page)) continue;
    place(*snapshot, page, bytes);
    if (snapshot->forking) snapshot->given.add(page);
  }
}

// What is there already, unmapped or gone needs nothing; but whoever waits is to look again.
void Snapshots::place(Snapshot& snapshot, uint64_t page, const uint8_t* bytes) {
  uint64_t done = 0;
  const Placed placed = memcmp(bytes, kZeros, kPageBytes) == 0 ? snapshot.uffd.zero(page, 1, done)
                                                               : snapshot.uffd.copy(page, bytes, 1, done);
  if (placed != Placed::ok) snapshot.uffd.wake(page, 1);
}

size_t Snapshots::kill_wanting(uint32_t id, uint64_t page) {
  size_t killed = 0;
  for (const auto& [pid, task] : tasks_) {
    if (id != kAll && task.snapshot != id) continue;
    if (!snapshots_[task.snapshot]->pending.has(page)) continue;
    kill(pid, SIGKILL);
    killed++;
  }
  for (const auto& [each, snapshot] : snapshots_)
    if ((id == kAll || id == each) && snapshot->pending.has(page)) snapshot->pending = {};
  return killed;
}

void Snapshots::kill_all() {
  for (const auto& [pid, task] : tasks_) kill(pid, SIGKILL);
  for (const auto& [id, snapshot] : snapshots_) snapshot->pending = {};
}

}  // namespace elastic
