// See loop.hpp.
#include "loop.hpp"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>

namespace elastic {

namespace {
constexpr uint64_t kSleepUsMin = 60;
}

Loop::Loop() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
  if (!epoll_) fail_errno("epoll_create1");
}

void Loop::watch(int fd, uint32_t events, OnEvent on_event) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) fail_errno("epoll_ctl");
  watched_[fd] = {events, std::make_shared<OnEvent>(std::move(on_event))};
}

void Loop::change(int fd, uint32_t events) {
  const auto it = watched_.find(fd);
  if (it == watched_.end() || it->second.events == events) return;
  it->second.events = events;
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) != 0) fail_errno("epoll_ctl");
}

void Loop::forget(int fd) {
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  watched_.erase(fd);
}

uint64_t Loop::at(uint64_t at_us, OnTimer on_timer) {
  const uint64_t id = next_timer_++;
  timers_.emplace(at_us, std::make_pair(id, std::move(on_timer)));
  return id;
}

void Loop::cancel(uint64_t id) {
  const auto it =
      std::find_if(timers_.begin(), timers_.end(), [id](const auto& t) { return t.second.first == id; });
  if (it != timers_.end()) timers_.erase(it);
}

void Loop::run_timers() {
  // At most as many as there are now: a timer that sets itself again at once must not starve the descriptors.
  for (size_t left = timers_.size(); left > 0 && !timers_.empty(); left--) {
    const auto first = timers_.begin();
    if (first->first > now_us()) return;
    OnTimer work = std::move(first->second.second);
    timers_.erase(first);
    work();
  }
}

// The kernel wakes up to 50 µs late: for less than that there is no sleep.
int64_t Loop::next_timer_us() const {
  if (timers_.empty()) return -1;
  const uint64_t now = now_us(), at = timers_.begin()->first;
  return at < now + kSleepUsMin ? 0 : static_cast<int64_t>(at - now);
}

void Loop::run_once(int timeout_ms_max) {
  run_timers();
  again_ = false;
  for (const OnTimer& work : after_round_) work();
  int64_t timeout = next_timer_us();
  if (again_) timeout = 0;
  if (timeout_ms_max >= 0 && (timeout < 0 || timeout > timeout_ms_max * 1000))
    timeout = timeout_ms_max * 1000;
  const timespec most{timeout / 1'000'000, timeout % 1'000'000 * 1000};
  epoll_event events[32];
  const int got = epoll_pwait2(epoll_.get(), events, static_cast<int>(std::size(events)),
                               timeout < 0 ? nullptr : &most, nullptr);
  if (got < 0 && errno != EINTR) fail_errno("epoll_pwait2");
  for (int i = 0; i < got; i++) {
    const auto it = watched_.find(events[i].data.fd);  // an earlier callback may have dropped it
    if (it == watched_.end()) continue;
    const std::shared_ptr<OnEvent> keep = it->second.on_event;
    (*keep)(events[i].events);
  }
}

void Loop::run() {
  while (!stopped_) run_once(-1);
}

}  // namespace elastic
