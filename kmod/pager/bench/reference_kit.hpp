// What the reference figures share: options, pinning, the second process, waiting, the report.
#pragma once

#include <sched.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../src/lane.hpp"
#include "../src/util.hpp"

namespace elastic {

constexpr size_t kPagePayloadBytes = 4096;
constexpr int kPatienceMs = 5000;

struct Options {
  std::string only;
  int cpus = 2;
  int cpu_home = 0;
  int cpu_peer = 1;
  int samples = 20'000;
  double seconds = 2.0;
  size_t bytes = 0;  // of each direction of echoTls
};

[[noreturn]] inline void give_up(const std::string& what) {
  throw std::runtime_error("bench-reference: " + what);
}

inline void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) give_up("cannot pin to CPU " + std::to_string(cpu));
}

inline void report(const char* name, const Options& options, std::vector<double> samples, const char* unit,
                   bool more_is_better) {
  if (samples.empty()) give_up(std::string(name) + ": no samples");
  std::sort(samples.begin(), samples.end());
  if (more_is_better) std::reverse(samples.begin(), samples.end());
  const auto at = [&](size_t percent) { return samples[(samples.size() - 1) * percent / 100]; };
  std::printf("{\"name\":\"%s\",\"cpus\":%d,\"p50\":%.3f,\"p99\":%.3f,\"unit\":\"%s\",\"samples\":%zu}\n",
              name, options.cpus, at(50), at(99), unit, samples.size());
  std::fflush(stdout);
}

// Forks the peer; the child runs `peer` and never returns. The parent reaps it when the object goes.
class PeerProcess {
 public:
  PeerProcess(const Options& options, const std::function<void()>& peer) {
    pid_ = fork();
    if (pid_ < 0) give_up("fork failed");
    if (pid_ > 0) {
      pin(options.cpu_home);
      return;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    try {
      pin(options.cpus == 1 ? options.cpu_home : options.cpu_peer);
      peer();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
      _exit(1);
    }
    _exit(0);
  }
  ~PeerProcess() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  uint64_t cpu_ns() const {
    clockid_t clock;
    timespec used{};
    if (clock_getcpuclockid(pid_, &clock) != 0 || clock_gettime(clock, &used) != 0) give_up("no peer");
    return static_cast<uint64_t>(used.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(used.tv_nsec);
  }
  PeerProcess(const PeerProcess&) = delete;
  PeerProcess& operator=(const PeerProcess&) = delete;

 private:
  pid_t pid_;
};

// One descriptor in an epoll of its own.
class Waiter {
 public:
  explicit Waiter(int fd) : epoll_(epoll_create1(EPOLL_CLOEXEC)), fd_(fd) {
    epoll_event event{};
    event.events = events_ = EPOLLIN;
    epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd_, &event);
  }
  uint32_t wait(uint32_t wanted = EPOLLIN) {
    epoll_event event{};
    if (wanted != events_) {
      event.events = events_ = wanted;
      epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd_, &event);
    }
    for (;;) {
      const int ready = epoll_wait(epoll_.get(), &event, 1, kPatienceMs);
      if (ready == 1) return event.events;
      if (ready == 0) give_up("the other side is silent");
      if (errno != EINTR) give_up("epoll_wait failed");
    }
  }

 private:
  Fd epoll_;
  int fd_;
  uint32_t events_;
};

// ---- over a lane ----

constexpr LaneKey kBenchKey = {1, 2, 3};

inline std::unique_ptr<Lane> accept_lane(LaneListener& listener) {
  Waiter waiter(listener.fd());
  for (;;) {
    waiter.wait();
    if (auto lane = listener.accept()) return lane;
  }
}

inline void must_be_ok(const Lane& lane) {
  if (lane.status() != LaneIo::ok) give_up(lane.last_error());
}

}  // namespace elastic
