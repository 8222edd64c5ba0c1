// The public face of the spill: each call looks at the state under its mutex and leaves the slow part to a
// worker (spill_work.cpp), but for read_now(), which does it itself.
#include "spill.hpp"

#include <algorithm>
#include <bit>
#include <csignal>
#include <cstring>

#include "spill_state.hpp"

namespace elastic {

using namespace spill_detail;

Spill::Spill(const std::string& directory, uint64_t bytes_max, int workers)
    : state_(std::make_unique<State>(directory, bytes_max)) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  State* state = state_.get();
  try {
    for (int i = 0; i < std::max(workers, 1); ++i) state->workers.emplace_back([state] { state->worker(); });
  } catch (...) {
    state->stop();
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Spill::~Spill() { state_->stop(); }

int Spill::event_fd() const { return state_->event.fd(); }

uint64_t Spill::slots_used() const {
  const std::lock_guard lock(state_->mutex);
  return state_->slots.used();
}

bool Spill::buffered() const { return state_->file.buffered(); }

bool Spill::has_buffers(size_t pages) {
  const std::lock_guard lock(state_->mutex);
  if (pages <= state_->write_free.size()) return true;
  state_->pages_refused = pages;
  return false;
}

bool Spill::buffers_busy() const {
  const std::lock_guard lock(state_->mutex);
  return state_->pages_refused > state_->write_free.size();
}

size_t Spill::buffered_bytes() const {
  const std::lock_guard lock(state_->mutex);
  return (kWritePagesMax - state_->write_free.size()) * kSpillPageBytes;
}

size_t Spill::reading_bytes() const {
  const std::lock_guard lock(state_->mutex);
  return static_cast<size_t>(std::popcount(~state_->read_free)) * kSpillPageBytes;
}

SpillError Spill::write(std::span<const uint8_t> data, std::span<uint32_t> slots_out, WriteDone done) {
  const size_t count = slots_out.size();
  ensure(count > 0 && count <= kWritePagesMax && data.size() == count * kSpillPageBytes, "size of a write");
  ensure(static_cast<bool>(done), "a write without `done`");
  State& s = *state_;
  auto job = std::make_unique<Job>();
  job->write_done = std::move(done);
  job->io.resize(count);
  {
    std::unique_lock lock(s.mutex);
    s.pages_refused = 0;
    // Slots that a worker is punching right now are free in an instant.
    s.punched.wait(lock, [&] {
      return s.slots.punching() == 0 || s.slots.used() + s.slots.punching() + count <= s.file.slots_max();
    });
    if (s.slots.used() + count > s.file.slots_max()) return SpillError::full;
    if (s.write_free.size() < count) {
      s.pages_refused = count;
      return SpillError::full;
    }
    ensure(s.slots.take(slots_out), "slots were counted and are not there");
    for (size_t i = 0; i < count; ++i) {
      job->io[i] = PageIo{slots_out[i], s.write_free.back()};
      s.write_free.pop_back();
      s.busy[slots_out[i]].buffer = job->io[i].bytes;
    }
  }
  job->slots.assign(slots_out.begin(), slots_out.end());
  for (size_t i = 0; i < count; ++i) {
    std::memcpy(job->io[i].bytes, data.data() + i * kSpillPageBytes, kSpillPageBytes);
  }
  {
    const std::lock_guard lock(s.mutex);
    s.writes.push_back(std::move(job));
  }
  s.work.notify_one();
  return SpillError::none;
}

const uint8_t* Spill::buffered_page(uint32_t slot) const {
  const std::lock_guard lock(state_->mutex);
  const auto entry = state_->busy.find(slot);
  return entry == state_->busy.end() || entry->second.freed ? nullptr : entry->second.buffer;
}

void Spill::read(std::span<const uint32_t> slots, ReadDone done) {
  ensure(!slots.empty() && slots.size() <= kReadPagesMax && done, "size of a read");
  State& s = *state_;
  auto job = std::make_unique<Job>();
  job->slots.assign(slots.begin(), slots.end());
  job->read_done = std::move(done);
  const std::lock_guard lock(s.mutex);
  for (const uint32_t slot : slots) {
    ensure(s.slots.taken(slot), "a free slot is read");
    ++s.busy[slot].reads;
  }
  s.waiting.push_back(std::move(job));
  s.start_reads();
}

bool Spill::read_now(std::span<const uint32_t> slots, uint8_t* out) {
  State& s = *state_;
  std::vector<PageIo> missing;
  missing.reserve(slots.size());
  {
    const std::lock_guard lock(s.mutex);
    if (!s.copy_buffered(slots, out, missing)) return false;
  }
  if (missing.empty()) return true;
  if (missing.size() > 1 || reinterpret_cast<uintptr_t>(missing[0].bytes) % kSpillPageBytes == 0) {
    return s.read_missing(missing);
  }
  const std::lock_guard lock(s.staging_mutex);
  if (s.file.read_page(missing[0].slot, s.staging.page(0)) != SpillError::none) return false;
  std::memcpy(missing[0].bytes, s.staging.page(0), kSpillPageBytes);
  return true;
}

void Spill::free_slot(uint32_t slot) {
  State& s = *state_;
  const std::lock_guard lock(s.mutex);
  const auto entry = s.busy.find(slot);
  if (entry == s.busy.end()) {
    s.give(slot);
    return;
  }
  ensure(!entry->second.freed && !entry->second.lost, "a slot is freed twice");
  entry->second.freed = true;
}

void Spill::drain() {
  State& s = *state_;
  std::unique_lock lock(s.mutex);
  s.event.clear();
  std::vector<std::unique_ptr<Job>> jobs;
  jobs.swap(s.completed);
  for (const std::unique_ptr<Job>& job : jobs) {
    if (job->is_read()) {
      s.finish_read(*job, lock);
    } else {
      s.finish_write(*job, lock);
    }
  }
  s.start_reads();
}

}  // namespace elastic
