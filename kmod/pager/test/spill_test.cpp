// Tests of the spill. Usage: spill_test DIRECTORY [SEED [STEPS]] prints one PASS or FAIL line per test and
// exits 1 if any failed; spill_test --bench DIRECTORY prints latencies and throughput instead. DIRECTORY is
// on a real file system. Random choices come from the seed, which is printed.
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "../src/spill_slots.hpp"
#include "spill_test_kit.hpp"

namespace {

using namespace spill_tests;

// The descriptor of the nameless file of this process, or -1.
int spill_descriptor() {
  DIR* list = opendir("/proc/self/fd");
  int found = -1;
  while (const dirent* entry = readdir(list)) {
    char target[512] = {};
    const std::string path = std::string("/proc/self/fd/") + entry->d_name;
    if (readlink(path.c_str(), target, sizeof target - 1) > 0 &&
        std::strstr(target, "(deleted)") != nullptr) {
      found = std::atoi(entry->d_name);
    }
  }
  closedir(list);
  return found;
}

size_t cached_pages(int fd) {
  struct stat status {};
  fstat(fd, &status);
  const size_t bytes = static_cast<size_t>(status.st_size);
  void* at = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
  check(at != MAP_FAILED, "mmap of the spill file");
  std::vector<unsigned char> present(bytes / kPage);
  mincore(at, bytes, present.data());
  munmap(at, bytes);
  return static_cast<size_t>(
      std::count_if(present.begin(), present.end(), [](auto byte) { return byte & 1; }));
}

// ---- tests

void test_slots(const std::string&, uint64_t seed, uint64_t steps) {
  check(elastic::find_run(0, 1) == -1 && elastic::find_run(~0ull, 64) == 0, "find_run at its ends");
  check(elastic::find_run(0b1110110, 3) == 4 && elastic::find_run(0b1110110, 2) == 1,
        "find_run in the middle");
  std::mt19937_64 random(seed);
  for (const uint32_t most : {1u, 63u, 64u, 65u, 1000u}) {
    elastic::SpillSlots slots(most);
    std::set<uint32_t> taken;
    std::vector<elastic::SlotRun> punching;
    size_t withdrawn = 0;
    for (uint64_t step = 0; step < steps / 4; ++step) {
      const uint64_t choice = random() % 8;
      if (choice < 4) {
        std::vector<uint32_t> out(1 + random() % (random() % 4 == 0 ? 128 : 8));
        const bool got = slots.take(out);
        check(got == (out.size() + taken.size() + withdrawn <= most),
              "take succeeds if and only if there is room");
        for (size_t i = 0; got && i < out.size(); ++i)
          check(out[i] < most && taken.insert(out[i]).second, "taken twice");
      } else if (choice < 6) {
        for (size_t n = random() % 12; n > 0 && !taken.empty(); --n) {
          auto at = taken.lower_bound(static_cast<uint32_t>(random() % most));
          if (at == taken.end()) at = taken.begin();
          slots.give(*at);
          taken.erase(at);
        }
      } else if (choice == 6) {
        elastic::SlotRun run;
        if (slots.punch_begin(run)) {
          for (uint32_t i = 0; i < run.count; ++i)
            check(taken.count(run.first + i) == 0, "a taken slot is punched");
          withdrawn += run.count;
          punching.push_back(run);
        }
      } else if (!punching.empty()) {
        withdrawn -= punching.back().count;
        slots.punch_end(punching.back());
        punching.pop_back();
      }
      check(slots.used() == taken.size() && slots.punching() == withdrawn, "counts");
      check(slots.stale() + slots.used() + slots.punching() <= most, "more slots than there are");
    }
  }
  elastic::SpillSlots fresh(1024);
  std::vector<uint32_t> out(64);
  check(fresh.take(out) && out.back() - out.front() == 63, "a batch in an empty file lies together");
  fresh.give(out[3]);
  check(fresh.take(out) && out.back() - out.front() == 63,
        "a batch does not fill a hole while there is room");
}

void test_refusals(const std::string& directory, uint64_t, uint64_t) {
  const auto code_of = [](const std::string& where, uint64_t bytes_max = kMiB) {
    try {
      Spill spill(where, bytes_max);
    } catch (const std::system_error& error) {
      return std::make_pair(error.code().value(), std::string(error.what()));
    }
    return std::make_pair(0, std::string());
  };
  check(code_of(directory + "/nowhere").first == ENOENT, "a missing directory is ENOENT");
  const auto [code, text] = code_of("/dev/shm");
  check(code == EOPNOTSUPP, "tmpfs is refused");
  check(text.find("tmpfs") != std::string::npos && text.find("--data DIR") != std::string::npos,
        "remedy in: " + text);
  check(code_of(directory, Spill::kBytesMax).first == 0, "the most is taken");
  check(code_of(directory, Spill::kBytesMax + kPage).first == EFBIG,
        "more than the table can name is refused");
  setenv("ELASTICOS_FAIL_SPILL", "nonsense", 1);
  const int bad = code_of(directory).first;
  unsetenv("ELASTICOS_FAIL_SPILL");
  check(bad == EINVAL, "a malformed failure point is refused");
}

void test_file(const std::string& directory, uint64_t, uint64_t) {
  Spill spill(directory, 64 * kMiB);
  const int fd = spill_descriptor();
  check(fd >= 0, "a nameless file");
  struct stat status {};
  fstat(fd, &status);
  check((status.st_mode & 0777) == 0600 && status.st_nlink == 0, "mode 0600 and no name");
  check((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0, "closed by exec");
  check(((fcntl(fd, F_GETFL) & O_DIRECT) == 0) == spill.buffered(), "O_DIRECT if and only if not buffered");
  std::vector<std::vector<uint32_t>> batches(64, std::vector<uint32_t>(64));
  for (size_t i = 0; i < batches.size(); ++i) {
    check(write_wait(spill, i * 64, batches[i]) == SpillError::none, "write");
    check(batches[i].back() - batches[i].front() == 63, "neighbours");
  }
  std::vector<uint8_t> page(kPage + 1);
  check(spill.read_now({&batches[5][7], 1}, page.data() + 1) && holds_tag(page.data() + 1, 5 * 64 + 7),
        "unaligned");
  check(cached_pages(fd) <= 16, std::to_string(cached_pages(fd)) + " pages linger in the page cache");
  fstat(fd, &status);
  check(status.st_blocks * 512 >= 16 * static_cast<long>(kMiB), "16 MiB are on the disk");
  for (const auto& batch : batches) {
    for (const uint32_t slot : batch) spill.free_slot(slot);
  }
  check(spill.slots_used() == 0, "all slots are free");
  const auto start = Clock::now();
  do {
    usleep(20000);
    fstat(fd, &status);
  } while (status.st_blocks > 128 && Clock::now() - start < std::chrono::seconds(5));
  check(status.st_blocks <= 128,
        "blocks given back, still " + std::to_string(status.st_blocks * 512) + " bytes");
}

void test_bounds(const std::string& directory, uint64_t, uint64_t) {
  Spill spill(directory, kMiB);
  std::vector<uint8_t> data(64 * kPage);
  std::vector<uint32_t> slots(64);
  int done = 0;
  const auto count_one = [&](SpillError error) {
    check(error == SpillError::none, "write");
    ++done;
  };
  check(spill.write(data, slots, count_one) == SpillError::none, "first buffer");
  check(spill.write(data, slots, count_one) == SpillError::none, "second buffer");
  check(spill.buffered_bytes() == 512 * 1024, "512 KiB are buffered");
  check(spill.write(data, slots, count_one) == SpillError::full && spill.buffers_busy(),
        "third: buffers are busy");
  while (done < 2) wait_and_drain(spill);
  check(!spill.buffers_busy() && spill.buffered_bytes() == 0, "drained");
  check(write_wait(spill, 0, slots) == SpillError::none && write_wait(spill, 0, slots) == SpillError::none,
        "the rest");
  check(spill.slots_used() == 256, "256 slots in one MiB");
  slots.resize(1);
  check(write_wait(spill, 0, slots) == SpillError::full && !spill.buffers_busy(), "the file is full");
  spill.free_slot(17);
  check(write_wait(spill, 99, slots) == SpillError::none && slots[0] == 17, "a freed slot is had again");

  std::vector<uint32_t> many(40);
  for (uint32_t i = 0; i < 40; ++i) many[i] = 39 - i;
  int read = 0;
  for (int i = 0; i < 10; ++i) {
    spill.read(many, [&](SpillError error, std::span<const uint8_t> bytes) {
      check(error == SpillError::none && bytes.size() == 40 * kPage, "read");
      check(holds_tag(&bytes[22 * kPage], 99), "the order asked for");
      ++read;
    });
    check(spill.reading_bytes() <= 256 * 1024, "256 KiB of read buffers");
  }
  while (read < 10) wait_and_drain(spill);
  check(spill.reading_bytes() == 0, "read buffers are free");
}

void test_in_flight(const std::string& directory, uint64_t, uint64_t) {
  Spill spill(directory, 8 * kPage);
  std::vector<uint8_t> data(8 * kPage);
  for (size_t i = 0; i < 8; ++i) fill(&data[i * kPage], i);
  std::vector<uint32_t> slots(8);
  bool written = false;
  check(spill.write(data, slots, [&](SpillError) { written = true; }) == SpillError::none, "write");
  const uint8_t* buffered = spill.buffered_page(slots[3]);
  check(buffered != nullptr && holds_tag(buffered, 3), "a page under way is in its buffer");
  int reads = 0;
  const auto wants = [&](uint64_t tag) {
    return [&reads, tag](SpillError error, std::span<const uint8_t> bytes) {
      check(error == SpillError::none && holds_tag(bytes.data(), tag), "read of a page under way");
      ++reads;
    };
  };
  spill.read({&slots[4], 1}, wants(4));
  spill.free_slot(slots[4]);
  check(spill.buffered_page(slots[4]) == nullptr, "a freed page is nobody's");
  uint32_t other = 0;
  check(spill.write({data.data(), kPage}, {&other, 1}, [](SpillError) {}) == SpillError::full,
        "not free yet");
  while (!written || reads < 1) wait_and_drain(spill);
  check(spill.buffered_page(slots[3]) == nullptr, "drained pages are on the disk");
  std::vector<uint32_t> one(1);
  check(write_wait(spill, 77, one) == SpillError::none && one[0] == slots[4],
        "free once the write is drained");

  spill.read({&slots[1], 1}, wants(1));
  spill.free_slot(slots[1]);
  check(spill.write({data.data(), kPage}, {&other, 1}, [](SpillError) {}) == SpillError::full,
        "a read holds it");
  while (reads < 2) wait_and_drain(spill);
  check(write_wait(spill, 78, one) == SpillError::none && one[0] == slots[1],
        "free once the read is drained");
}

void test_failures(const std::string& directory, uint64_t, uint64_t) {
  const auto with = [&](const char* point, auto body) {
    setenv("ELASTICOS_FAIL_SPILL", point, 1);
    Spill spill(directory, kMiB);
    unsetenv("ELASTICOS_FAIL_SPILL");
    body(spill);
  };
  std::vector<uint32_t> slots(4);
  with("full:2", [&](Spill& spill) {
    check(write_wait(spill, 0, slots) == SpillError::none, "first write");
    check(write_wait(spill, 0, slots) == SpillError::full, "second write is full");
    check(spill.slots_used() == 4, "the slots of a failed write are free");
    check(write_wait(spill, 0, slots) == SpillError::none, "third write");
  });
  with("io:1+", [&](Spill& spill) {
    std::vector<uint8_t> data(2 * kPage);
    fill(&data[kPage], 5);
    bool seen = false;
    bool refused = false;
    slots.resize(2);
    check(spill.write(data, slots,
                      [&](SpillError error) {
                        const uint8_t* bytes = spill.buffered_page(slots[1]);
                        seen = error == SpillError::io && bytes != nullptr && holds_tag(bytes, 5);
                      }) == SpillError::none,
          "write");
    // The first read gets all buffers, the second waits and finds its page lost.
    std::vector<uint32_t> all(64, slots[0]);
    spill.read(all, [](SpillError, std::span<const uint8_t>) {});
    spill.read(slots, [&](SpillError error, std::span<const uint8_t> bytes) {
      refused = error == SpillError::io && bytes.empty();
    });
    while (!seen) wait_and_drain(spill);
    for (int i = 0; i < 3 && spill.slots_used() > 0; ++i) wait_and_drain(spill);
    check(seen && spill.slots_used() == 0, "bytes inside done, slots free after");
    static_cast<void>(refused);  // which of the two comes first is the workers' choice
  });
  with("read:2", [&](Spill& spill) {
    uint8_t page[kPage];
    check(write_wait(spill, 0, slots) == SpillError::none, "write");
    check(spill.read_now({&slots[0], 1}, page) && !spill.read_now({&slots[0], 1}, page), "second read fails");
  });
}

void test_signals(const std::string& directory, uint64_t, uint64_t) {
  Spill spill(directory, kMiB, 3);
  DIR* list = opendir("/proc/self/task");
  int blocked = 0;
  while (const dirent* entry = readdir(list)) {
    std::ifstream status(std::string("/proc/self/task/") + entry->d_name + "/status");
    for (std::string line; std::getline(status, line);) {
      // All but SIGKILL, SIGSTOP and the two that glibc keeps for itself.
      if (line.rfind("SigBlk:", 0) == 0 && std::stoull(line.substr(8), nullptr, 16) >= 0xfffffffe7ffb0000ull)
        ++blocked;
    }
  }
  closedir(list);
  check(blocked >= 3, std::to_string(blocked) + " of 3 workers block all signals");
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  if (argc == 3 && std::strcmp(argv[1], "--bench") == 0) {
    bench(argv[2]);
    return 0;
  }
  if (argc < 2) {
    std::fprintf(stderr, "usage: spill_test [--bench] DIRECTORY [SEED [STEPS]]\n");
    return 2;
  }
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 0) : std::random_device{}();
  const uint64_t steps = argc > 3 ? std::strtoull(argv[3], nullptr, 0) : 100000;
  std::printf("# seed %llu\n", static_cast<unsigned long long>(seed));
  struct Test {
    const char* name;
    void (*body)(const std::string&, uint64_t, uint64_t);
  };
  const Test tests[] = {{"slots", test_slots},     {"refusals", test_refusals},   {"file", test_file},
                        {"bounds", test_bounds},   {"in flight", test_in_flight}, {"failures", test_failures},
                        {"signals", test_signals}, {"model", test_model},         {"threads", test_threads}};
  int failed = 0;
  for (const char* way : {"0", "1"}) {
    setenv("ELASTICOS_SPILL_BUFFERED", way, 1);
    for (const Test& test : tests) {
      const std::string name = std::string(test.name) + (*way == '1' ? ", buffered" : "");
      try {
        test.body(argv[1], seed, *way == '1' ? steps / 10 : steps);
        std::printf("PASS %s\n", name.c_str());
      } catch (const Failure& failure) {
        ++failed;
        std::printf("FAIL %s: %s\n", name.c_str(), failure.what.c_str());
      } catch (const std::exception& error) {
        ++failed;
        std::printf("FAIL %s: %s\n", name.c_str(), error.what());
      }
    }
  }
  return failed == 0 ? 0 : 1;
}
