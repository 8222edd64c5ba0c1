// What the workers of a spill do, and what happens to slots and buffers when a job begins and ends; see
// spill_state.hpp for the rules.
#include "spill_state.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "privileges.hpp"

namespace elastic {

using namespace spill_detail;

void spill_detail::ensure(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "elasticos: bug in the use of the spill: %s\n", what);
  std::abort();
}

// ---- workers

void Spill::State::worker() {
  keep_privileges(0);  // all it needs is an open file
  std::unique_lock lock(mutex);
  while (!stopping) {
    if (slots.stale() > kStalePagesMax) punch_one(lock);
    std::deque<std::unique_ptr<Job>>* queue = !reads.empty() ? &reads : !writes.empty() ? &writes : nullptr;
    if (queue != nullptr) {
      std::unique_ptr<Job> job = std::move(queue->front());
      queue->pop_front();
      run(std::move(job), lock);
    } else if (slots.stale() == 0) {
      work.wait(lock);
    } else if (work.wait_for(lock, kIdleBeforePunch) == std::cv_status::timeout) {
      while (!stopping && reads.empty() && writes.empty() && punch_one(lock)) {
      }
    }
  }
}

void Spill::State::stop() {
  {
    const std::lock_guard lock(mutex);
    stopping = true;
  }
  work.notify_all();
  for (std::thread& thread : workers) thread.join();
}

// Punches one run of stale slots with the lock given up meanwhile; false if there was none.
bool Spill::State::punch_one(std::unique_lock<std::mutex>& lock) {
  SlotRun run;
  if (!slots.punch_begin(run)) return false;
  lock.unlock();
  file.punch(run.first, run.count);
  lock.lock();
  slots.punch_end(run);
  punched.notify_all();
  return true;
}

void Spill::State::run(std::unique_ptr<Job> job, std::unique_lock<std::mutex>& lock) {
  lock.unlock();
  job->error = job->is_read() ? file.read(job->io) : file.write(job->io);
  lock.lock();
  if (job->error == SpillError::full && slots.stale() > 0) {
    // The disk is full of what nobody needs any more: give that back and try once more.
    while (punch_one(lock)) {
    }
    lock.unlock();
    job->error = file.write(job->io);
    lock.lock();
  }
  complete(std::move(job));
}

void Spill::State::complete(std::unique_ptr<Job> job) {
  completed.push_back(std::move(job));
  if (completed.size() == 1) event.set();
}

// ---- slots and buffers, under the lock

void Spill::State::give(uint32_t slot) {
  const bool first = slots.stale() == 0;
  slots.give(slot);
  if (first) work.notify_one();  // somebody has to wait for the idle moment
}

void Spill::State::release_if_unused(uint32_t slot) {
  const auto entry = busy.find(slot);
  if (entry == busy.end() || entry->second.buffer != nullptr || entry->second.reads > 0) return;
  const bool freed = entry->second.freed;
  busy.erase(entry);
  if (freed) give(slot);
}

// Fills `out` from write buffers where the page is there; the rest is added to `missing`. False: one was
// lost.
bool Spill::State::copy_buffered(std::span<const uint32_t> wanted, uint8_t* out,
                                 std::vector<PageIo>& missing) {
  for (size_t i = 0; i < wanted.size(); ++i) {
    uint8_t* to = out + i * kSpillPageBytes;
    const auto entry = busy.find(wanted[i]);
    if (entry != busy.end() && entry->second.lost) return false;
    if (entry != busy.end() && entry->second.buffer != nullptr) {
      std::memcpy(to, entry->second.buffer, kSpillPageBytes);
    } else {
      ensure(slots.taken(wanted[i]), "a free slot is read");
      missing.push_back(PageIo{wanted[i], to});
    }
  }
  return true;
}

// Gives a read its buffers, in the order of asking, and sends it on its way; false if it has to wait.
bool Spill::State::start_read(Job& job) {
  const unsigned count = static_cast<unsigned>(job.slots.size());
  job.read_start = find_run(read_free, count);
  if (job.read_start < 0) return false;
  read_free &= ~run_bits(static_cast<unsigned>(job.read_start), count);
  uint8_t* bytes = read_arena.page(static_cast<size_t>(job.read_start));
  if (!copy_buffered(job.slots, bytes, job.io)) {
    job.error = SpillError::io;
    job.io.clear();
  }
  return true;
}

void Spill::State::start_reads() {
  while (!waiting.empty() && start_read(*waiting.front())) {
    std::unique_ptr<Job> job = std::move(waiting.front());
    waiting.pop_front();
    if (job->io.empty()) {
      complete(std::move(job));
    } else {
      reads.push_back(std::move(job));
      work.notify_one();
    }
  }
}

// ---- completions

void Spill::State::finish_write(Job& job, std::unique_lock<std::mutex>& lock) {
  const bool failed = job.error != SpillError::none;
  if (failed) {
    for (const uint32_t slot : job.slots) busy[slot].lost = true;
  }
  lock.unlock();
  job.write_done(job.error);
  job.write_done = nullptr;  // what it holds goes before the lock is taken
  lock.lock();
  for (const uint32_t slot : job.slots) {
    Busy& entry = busy[slot];
    write_free.push_back(entry.buffer);
    entry.buffer = nullptr;
    if (failed) entry.freed = true;
    release_if_unused(slot);
  }
}

void Spill::State::finish_read(Job& job, std::unique_lock<std::mutex>& lock) {
  const uint8_t* bytes = read_arena.page(static_cast<size_t>(job.read_start));
  const size_t size = job.error == SpillError::none ? job.slots.size() * kSpillPageBytes : 0;
  lock.unlock();
  job.read_done(job.error, {bytes, size});
  job.read_done = nullptr;
  lock.lock();
  read_free |= run_bits(static_cast<unsigned>(job.read_start), static_cast<unsigned>(job.slots.size()));
  for (const uint32_t slot : job.slots) {
    --busy[slot].reads;
    release_if_unused(slot);
  }
}

// ---- reads at once

bool Spill::State::read_missing(std::vector<PageIo>& missing) {
  const auto aligned = [](const PageIo& page) {
    return reinterpret_cast<uintptr_t>(page.bytes) % kSpillPageBytes == 0;
  };
  if (std::all_of(missing.begin(), missing.end(), aligned)) {
    for (size_t first = 0; first < missing.size(); first += kWritePagesMax) {
      const size_t count = std::min(kWritePagesMax, missing.size() - first);
      if (file.read(std::span(missing).subspan(first, count)) != SpillError::none) return false;
    }
    return true;
  }
  const std::lock_guard lock(staging_mutex);
  const auto by_slot = [](const PageIo& a, const PageIo& b) { return a.slot < b.slot; };
  std::sort(missing.begin(), missing.end(), by_slot);
  PageIo staged[kDirectReadPages];
  for (size_t first = 0; first < missing.size(); first += kDirectReadPages) {
    const size_t count = std::min(kDirectReadPages, missing.size() - first);
    for (size_t i = 0; i < count; ++i) staged[i] = PageIo{missing[first + i].slot, staging.page(i)};
    if (file.read({staged, count}) != SpillError::none) return false;
    for (size_t i = 0; i < count; ++i)
      std::memcpy(missing[first + i].bytes, staging.page(i), kSpillPageBytes);
  }
  return true;
}

}  // namespace elastic
