// See loop.hpp.
#include "loop.hpp"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>

namespace elastic {

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

int Loop::run_timers() {
  // At most as many as there are now: a timer that sets itself again at once must not starve the descriptors.
  for (size_t left = timers_.size(); left > 0 && !timers_.empty(); left--) {
    const auto first = timers_.begin();
    if (first->first > now_us()) return next_timer_ms();
    OnTimer work = std::move(first->second.second);
    timers_.erase(first);
    work();
  }
  return timers_.empty() ? -1 : 0;
}

int Loop::next_timer_ms() const {
  if (timers_.empty()) return -1;
  const uint64_t now = now_us(), at = timers_.begin()->first;
  return at < now + 1000 ? 0 : static_cast<int>(std::min<uint64_t>((at - now + 999) / 1000, 60'000));
}

void Loop::run_once(int timeout_ms_max) {
  int timeout = run_timers();
  if (timeout < 0 || (timeout_ms_max >= 0 && timeout > timeout_ms_max)) timeout = timeout_ms_max;
  again_ = false;
  for (const OnTimer& work : after_round_) work();
  if (again_) timeout = 0;
  if (const int due = next_timer_ms(); due >= 0 && (timeout < 0 || due < timeout))
    timeout = due;  // set just now
  epoll_event events[32];
  const int got = epoll_wait(epoll_.get(), events, static_cast<int>(std::size(events)), timeout);
  if (got < 0 && errno != EINTR) fail_errno("epoll_wait");
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
