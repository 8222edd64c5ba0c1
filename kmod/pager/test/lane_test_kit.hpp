// What the lane tests share: checks that end the program with one line, and a loop that drives lanes over
// loopback the way the pager's epoll loop does.
#pragma once

#include <poll.h>
#include <sys/epoll.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

#include "../src/lane.hpp"
#include "../src/util.hpp"

namespace elastic::test {

#define CHECK(condition)                                                                 \
  do {                                                                                   \
    if (!(condition)) {                                                                  \
      std::fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                                      \
    }                                                                                    \
  } while (0)

inline LaneKey key_of(uint8_t seed) {
  LaneKey key;
  for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<uint8_t>(seed * 31 + i);
  return key;
}

// A seeded generator (xorshift64*): the same frames on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2654435769u + 1) {}
  uint64_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 2685821657736338717ull;
  }
  uint64_t below(uint64_t bound) { return next() % bound; }

 private:
  uint64_t state_;
};

// Polls the lanes once (at most 50 ms) and hands them their events.
inline void poll_once(const std::vector<Lane*>& lanes, LaneListener* listener,
                      std::unique_ptr<Lane>* accepted) {
  std::vector<pollfd> entries;
  for (Lane* lane : lanes) entries.push_back({lane->fd(), static_cast<short>(lane->wanted_events()), 0});
  if (listener != nullptr) entries.push_back({listener->fd(), POLLIN, 0});
  poll(entries.data(), entries.size(), 50);
  for (size_t i = 0; i < lanes.size(); ++i)
    if (entries[i].revents != 0) lanes[i]->on_event(static_cast<uint32_t>(entries[i].revents));
  if (listener != nullptr && entries.back().revents != 0 && !*accepted) *accepted = listener->accept();
}

// Drives until `done` says so; a check fails after `seconds`.
inline void drive(const std::vector<Lane*>& lanes, const std::function<bool()>& done, unsigned seconds = 20) {
  const uint64_t give_up_us = now_us() + seconds * 1'000'000ull;
  while (!done()) {
    CHECK(now_us() < give_up_us);
    poll_once(lanes, nullptr, nullptr);
  }
}

// A dialled and an accepted lane over loopback, both established unless a key or the identity is wrong.
struct Pair {
  explicit Pair(const LaneKey& dial_key = key_of(1), const std::string& identity = "7")
      : listener("127.0.0.1", [](const std::string& id) -> std::optional<LaneKey> {
          if (id == "7") return key_of(1);
          return std::nullopt;
        }) {
    dialled = Lane::dial("127.0.0.1", listener.port(), identity, dial_key);
    const uint64_t give_up_us = now_us() + 5'000'000;
    while (dialled->status() == LaneIo::ok &&
           !(dialled->established() && accepted && accepted->established())) {
      CHECK(now_us() < give_up_us);
      std::vector<Lane*> lanes{dialled.get()};
      if (accepted) lanes.push_back(accepted.get());
      poll_once(lanes, &listener, &accepted);
    }
  }
  std::vector<Lane*> both() { return {dialled.get(), accepted.get()}; }

  LaneListener listener;
  std::unique_ptr<Lane> dialled;
  std::unique_ptr<Lane> accepted;
};

}  // namespace elastic::test
