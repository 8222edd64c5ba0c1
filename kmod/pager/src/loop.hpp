// The pager's one thread: an epoll loop with descriptors and timers. Callbacks run to completion; nothing
// here allocates once the descriptors and timers of a run exist.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "util.hpp"

namespace elastic {

class Loop {
 public:
  using OnEvent = std::function<void(uint32_t events)>;
  using OnTimer = std::function<void()>;

  Loop();
  void watch(int fd, uint32_t events, OnEvent on_event);
  void change(int fd, uint32_t events);
  void forget(int fd);
  // Runs `on_timer` once, not before `at_us` (CLOCK_MONOTONIC). Returns an id for cancel().
  uint64_t at(uint64_t at_us, OnTimer on_timer);
  void cancel(uint64_t id);
  // Runs after the current round of events, before sleeping (lanes are flushed there).
  void after_each_round(OnTimer work) { after_round_.push_back(std::move(work)); }
  void again() { again_ = true; }  // the next round does not sleep: there is more to do
  void run();                      // until stop()
  void run_once(int timeout_ms_max);
  void stop() { stopped_ = true; }
  bool stopped() const { return stopped_; }

 private:
  int64_t next_timer_us() const;  // -1 if there is none
  void run_timers();
  Fd epoll_;
  struct Watched {
    uint32_t events;
    std::shared_ptr<OnEvent> on_event;
  };
  std::unordered_map<int, Watched> watched_;
  std::multimap<uint64_t, std::pair<uint64_t, OnTimer>> timers_;
  std::vector<OnTimer> after_round_;
  uint64_t next_timer_ = 1;
  bool again_ = false;
  bool stopped_ = false;
};

}  // namespace elastic
