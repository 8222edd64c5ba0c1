// The listening socket of one pager. A flood of connections costs little: at most kMaxPendingLanes are in the
// handshake, and no public-key work is done before the dialler has proved that
// it holds the key of a live lease (the binder is checked first).
#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>
#include <system_error>

#include "lane_socket.hpp"
#include "lane_state.hpp"

namespace elastic {

struct LaneListener::State {
  Fd fd;
  Fd spare;  // given up for a moment when descriptors run out: a full backlog would spin the event loop
  uint16_t port = 0;
  std::shared_ptr<ListenerShared> shared;
};

LaneListener::LaneListener(const std::string& host, FindKey find_key, uint16_t port)
    : state_(std::make_unique<State>()) {
  state_->fd = start_listening(host, port);
  state_->spare.reset(open("/dev/null", O_RDONLY | O_CLOEXEC));
  state_->port = bound_port(state_->fd.get());
  state_->shared = std::make_shared<ListenerShared>();
  state_->shared->find_key = std::move(find_key);
}

LaneListener::~LaneListener() {
  // Lanes still in the handshake must not call into an owner that is gone.
  state_->shared->find_key = [](const std::string&) { return std::nullopt; };
}

int LaneListener::fd() const { return state_->fd.get(); }
uint16_t LaneListener::port() const { return state_->port; }

bool LaneListener::full() const { return state_->shared->pending >= kMaxPendingLanes; }

std::unique_ptr<Lane> LaneListener::accept() {
  Fd fd(accept4(state_->fd.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!fd) {
    if (errno == EMFILE || errno == ENFILE) {
      state_->spare.reset();
      Fd unwanted(::accept(state_->fd.get(), nullptr, nullptr));
      unwanted.reset();
      state_->spare.reset(open("/dev/null", O_RDONLY | O_CLOEXEC));
    }
    return nullptr;
  }
  if (full()) return nullptr;
  set_lane_options(fd.get());
  auto lane = std::make_unique<Lane::State>(std::move(fd), state_->shared);
  lane->address = peer_text(lane->fd.get());
  return std::unique_ptr<Lane>(new Lane(std::move(lane)));
}

}  // namespace elastic
