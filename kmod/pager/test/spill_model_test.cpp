// The spill against a model (random steps, every byte compared), from several threads at once, and its
// figures.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <thread>

#include "spill_test_kit.hpp"

namespace spill_tests {

namespace {

struct Model {
  Spill& spill;
  std::mt19937_64& random;
  std::map<uint32_t, uint64_t> tags;  // live slots
  uint64_t next_tag = 1;
  uint64_t open_jobs = 0;
  uint64_t written = 0;
  uint64_t full = 0;
  uint64_t read = 0;

  std::vector<uint32_t> choose(size_t most) {
    std::vector<uint32_t> chosen;
    if (tags.empty()) return chosen;
    auto at = tags.lower_bound(static_cast<uint32_t>(random() % (tags.rbegin()->first + 1)));
    for (size_t n = 1 + random() % most; n > 0; --n) {
      if (at == tags.end() || random() % 8 == 0) at = tags.begin();
      chosen.push_back(at->first);
      ++at;
    }
    if (random() % 3 == 0) std::shuffle(chosen.begin(), chosen.end(), random);
    return chosen;
  }

  void write() {
    const size_t count = 1 + random() % (random() % 3 == 0 ? 64 : 4);
    std::vector<uint8_t> data(count * kPage);
    std::vector<uint32_t> slots(count);
    const uint64_t tag = next_tag;
    for (size_t i = 0; i < count; ++i) fill(&data[i * kPage], tag + i);
    const SpillError error = spill.write(data, slots, [this](SpillError outcome) {
      check(outcome == SpillError::none, "a write failed");
      --open_jobs;
    });
    if (error != SpillError::none) {
      check(error == SpillError::full, "an early error is `full`");
      ++full;
      if (spill.buffers_busy()) wait_and_drain(spill);
      return;
    }
    next_tag += count;
    written += count;
    ++open_jobs;
    for (size_t i = 0; i < count; ++i)
      check(tags.emplace(slots[i], tag + i).second, "a live slot given again");
  }

  void read_later() {
    const std::vector<uint32_t> slots = choose(64);
    if (slots.empty()) return;
    std::vector<uint64_t> wanted;
    for (const uint32_t slot : slots) wanted.push_back(tags[slot]);
    ++open_jobs;
    read += slots.size();
    spill.read(slots, [this, wanted](SpillError error, std::span<const uint8_t> bytes) {
      check(error == SpillError::none && bytes.size() == wanted.size() * kPage, "a read failed");
      for (size_t i = 0; i < wanted.size(); ++i)
        check(holds_tag(&bytes[i * kPage], wanted[i]), "wrong bytes read");
      --open_jobs;
    });
  }

  void read_now() {
    const std::vector<uint32_t> slots = choose(random() % 4 == 0 ? 40 : 2);
    if (slots.empty()) return;
    std::vector<uint8_t> bytes(slots.size() * kPage + kPage + 1);
    uint8_t* at = bytes.data() + random() % 2;
    if (random() % 2 == 0)
      at = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(at) + kPage - 1) & ~(kPage - 1));
    check(spill.read_now(slots, at), "read_now failed");
    read += slots.size();
    for (size_t i = 0; i < slots.size(); ++i)
      check(holds_tag(at + i * kPage, tags[slots[i]]), "wrong bytes at once");
  }

  void free_some() {
    std::vector<uint32_t> slots = choose(random() % 4 == 0 ? 64 : 6);
    std::sort(slots.begin(), slots.end());
    slots.erase(std::unique(slots.begin(), slots.end()), slots.end());
    for (const uint32_t slot : slots) {
      spill.free_slot(slot);
      tags.erase(slot);
    }
  }

  void step() {
    const uint64_t choice = random() % 16;
    if (choice < 4) {
      write();
    } else if (choice < 6) {
      if (open_jobs < 20) read_later();
    } else if (choice < 9) {
      read_now();
    } else if (choice < 13) {
      free_some();
    } else if (choice < 15) {
      spill.drain();
    } else if (!tags.empty()) {
      const uint32_t slot = choose(1)[0];
      const uint8_t* bytes = spill.buffered_page(slot);
      check(bytes == nullptr || holds_tag(bytes, tags[slot]), "wrong bytes in a buffer");
    }
    check(spill.buffered_bytes() <= 512 * 1024 && spill.reading_bytes() <= 256 * 1024, "buffer bounds");
  }
};

}  // namespace

void test_model(const std::string& directory, uint64_t seed, uint64_t steps) {
  std::mt19937_64 random(seed);
  Spill spill(directory, 6 * kMiB);
  Model model{spill, random, {}};
  for (uint64_t i = 0; i < steps; ++i) model.step();
  while (model.open_jobs > 0) wait_and_drain(spill);
  check(spill.slots_used() == model.tags.size(), "as many slots as in the model");
  for (const auto& [slot, tag] : model.tags) {
    uint8_t page[kPage];
    check(spill.read_now({&slot, 1}, page) && holds_tag(page, tag), "content at the end");
  }
  std::printf("# %llu steps: %llu pages written, %llu read, %llu times full\n",
              static_cast<unsigned long long>(steps), static_cast<unsigned long long>(model.written),
              static_cast<unsigned long long>(model.read), static_cast<unsigned long long>(model.full));
}

// Several threads at once: each writes, reads back and frees its own pages while the main thread drains.
void test_threads(const std::string& directory, uint64_t seed, uint64_t steps) {
  Spill spill(directory, 8 * kMiB);
  std::atomic<int> running = 3;
  std::atomic<uint64_t> wrong = 0;
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(seed + t);
      std::map<uint32_t, uint64_t> mine;
      for (uint64_t step = 0; step < steps / 20; ++step) {
        const size_t count = 1 + random() % 16;
        std::vector<uint8_t> data(count * kPage);
        std::vector<uint32_t> slots(count);
        for (size_t i = 0; i < count; ++i) fill(&data[i * kPage], t << 40 | step << 8 | i);
        if (spill.write(data, slots, [&](SpillError error) { wrong += error != SpillError::none; }) ==
            SpillError::none) {
          for (size_t i = 0; i < count; ++i) mine[slots[i]] = t << 40 | step << 8 | i;
        }
        while (!mine.empty() && (mine.size() > 400 || random() % 4 != 0)) {
          const auto at = mine.begin();
          uint8_t page[kPage];
          if (!spill.read_now({&at->first, 1}, page) || !holds_tag(page, at->second)) ++wrong;
          spill.free_slot(at->first);
          mine.erase(at);
        }
      }
      for (const auto& entry : mine) spill.free_slot(entry.first);
      --running;
    });
  }
  while (running > 0 || spill.buffered_bytes() > 0) {
    pollfd waited{spill.event_fd(), POLLIN, 0};
    poll(&waited, 1, 10);
    spill.drain();
  }
  for (std::thread& thread : threads) thread.join();
  check(wrong == 0, std::to_string(wrong) + " wrong pages");
  check(spill.slots_used() == 0, "all freed");
}

// ---- figures

static void print_times(const char* name, std::vector<double>& micros) {
  std::sort(micros.begin(), micros.end());
  std::printf("%s: p50 %.1f us, p99 %.1f us\n", name, micros[micros.size() / 2],
              micros[micros.size() * 99 / 100]);
}

void bench(const std::string& directory) {
  Spill spill(directory, 1024 * kMiB);
  std::printf("%s\n", spill.buffered() ? "buffered" : "direct");
  std::vector<uint8_t> data(64 * kPage, 7);
  std::vector<uint32_t> slots;
  const size_t batches = 1024;  // 256 MiB
  const auto start = Clock::now();
  for (size_t i = 0; i < batches; ++i) {
    uint32_t batch[64];
    while (spill.write(data, batch, [](SpillError) {}) != SpillError::none) wait_and_drain(spill);
    slots.insert(slots.end(), batch, batch + 64);
  }
  while (spill.buffered_bytes() > 0) wait_and_drain(spill);
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  std::printf("write in batches of 64: %.0f MB/s\n",
              static_cast<double>(batches * 64 * kPage) / seconds / 1e6);
  std::mt19937_64 random(1);
  uint8_t* out = static_cast<uint8_t*>(std::aligned_alloc(kPage, 64 * kPage));
  const auto time = [&](const char* name, size_t count, uint8_t* to) {
    std::vector<double> micros;
    for (int i = 0; i < 4000; ++i) {
      const uint32_t* first = &slots[random() % (slots.size() / 64) * 64 + random() % (65 - count)];
      const auto before = Clock::now();
      check(spill.read_now({first, count}, to), "read_now");
      micros.push_back(std::chrono::duration<double, std::micro>(Clock::now() - before).count());
    }
    print_times(name, micros);
  };
  time("read_now, 1 page, aligned", 1, out);
  time("read_now, 1 page, unaligned", 1, out + 8);
  time("read_now, 16 pages, aligned", 16, out);
  time("read_now, 16 pages, unaligned", 16, out + 8);
  time("read_now, 64 pages, aligned", 64, out);
  std::free(out);
}

}  // namespace spill_tests
