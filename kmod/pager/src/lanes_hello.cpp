// Who is spoken with on a lane: connections that are accepted, their hello frames, and the answers.
#include <sys/epoll.h>

#include <algorithm>

#include "lanes.hpp"

namespace elastic {

// What is held under a lease that has ended is served until it is fetched: the lane may be resumed.
std::optional<LaneKey> Lanes::key_of(const std::string& identity) {
  for (const auto& [index, node] : nodes_)
    if (std::to_string(node->lease.id) == identity && (node->up || now_us() < node->lease.expires_us))
      return node->key;
  return std::nullopt;
}

void Lanes::greet(Node& node, Lane& lane, bool bulk, bool resumed) {
  node.hurries = true;
  HelloPayload hello;
  hello.node = self_;
  hello.lane_kind = bulk ? 1 : 0;
  hello.process_id = process_id_;
  hello.lease_id = node.lease.id;
  FrameHeader header;
  header.type = static_cast<uint16_t>(FrameType::hello);
  header.epoch = epoch;
  header.image = image;
  const iovec part{&hello, sizeof hello};
  if (resumed) return lane.greet(header, {&part, 1});
  node.image_said = image;
  lane.send(header, {&part, 1});
}

void Lanes::accept_lane() {
  for (int i = 0; i < 8; i++) {
    if (listener_->full()) {
      if (i > 0) return;  // whether another one waits, the next event tells
      drop_idle();
    }
    auto lane = listener_->accept();
    if (!lane) return;
    auto pending = std::make_shared<Pending>();
    pending->lane = std::move(lane);
    pending->deadline_us = now_us() + kHandshakeUs;
    pending_.push_back(pending);
    loop_.watch(pending->lane->fd(), pending->lane->wanted_events(),
                [this, pending](uint32_t events) { on_pending(pending, events); });
  }
}

// Who connects and says nothing must not keep out a lane that is to be resumed in time.
void Lanes::drop_idle() {
  const auto oldest = std::find_if(pending_.begin(), pending_.end(),
                                   [](const auto& pending) { return !pending->lane->established(); });
  if (oldest != pending_.end()) drop_pending(std::shared_ptr(*oldest));
}

void Lanes::drop_pending(const std::shared_ptr<Pending>& pending) {
  if (pending->lane) loop_.forget(pending->lane->fd());
  std::erase(pending_, pending);
}

void Lanes::on_pending(const std::shared_ptr<Pending>& pending, uint32_t events) {
  Lane& lane = *pending->lane;
  lane.on_event(events);
  Frame frame;
  const bool spoke = lane.next_frame(frame);
  if (lane.status() != LaneIo::ok) {
    if (lane.status() == LaneIo::refused) refuse(lane.last_error());
    return drop_pending(pending);
  }
  loop_.change(lane.fd(), lane.wanted_events());
  if (!spoke) return;
  Node* owner = nullptr;
  for (const auto& [index, node] : nodes_)
    if (std::to_string(node->lease.id) == lane.identity()) owner = node.get();
  HelloPayload hello;
  const bool shaped =
      frame.header.type == static_cast<uint16_t>(FrameType::hello) && frame.payload.size() == sizeof hello;
  if (shaped) memcpy(&hello, frame.payload.data(), sizeof hello);
  const bool bulk = shaped && hello.lane_kind == 1, resumed = frame.header.sequence == 0;
  bool taken =
      owner != nullptr && (resumed || owner->lane(bulk) == nullptr) && take_hello(*owner, frame, resumed);
  if (taken && resumed) taken = accept_resumed(*owner, bulk, frame.header.version, pending->lane);
  if (!taken) {
    refuse("a lane whose hello does not fit its lease");
    return drop_pending(pending);
  }
  std::erase(pending_, pending);
  const uint16_t index = owner->index;
  if (resumed) return on_lane(index, bulk, 0);
  loop_.forget(lane.fd());
  if (owner->lane(!bulk) == nullptr) owner->deadline_us = now_us() + kHandshakeUs;
  (bulk ? owner->bulk : owner->urgent) = std::move(pending->lane);
  owner->greeted[bulk] = true;
  greet(*owner, *owner->lane(bulk), bulk, false);
  watch(*owner, bulk);
  check_up(*owner);
  if (!owner->up) return;
  // Frames that came in the same read, or before the other hello.
  if (read_frames(index, !bulk)) on_lane(index, bulk, 0);
}

// A lane that is resumed goes on in the image in which its frames were sent: a reset is one of them.
bool Lanes::take_hello(Node& node, const Frame& frame, bool resumed) {
  HelloPayload hello;
  if (frame.header.type != static_cast<uint16_t>(FrameType::hello) || frame.payload.size() != sizeof hello)
    return false;
  memcpy(&hello, frame.payload.data(), sizeof hello);
  if (hello.protocol != kProtocolVersion || hello.process_id != process_id_ || hello.node != node.index ||
      hello.lease_id != node.lease.id)
    return false;
  if (!resumed && self_ != kHome && node.index == kHome) {
    if (frame.header.epoch < epoch) return false;  // a home from before a rollback
    epoch = frame.header.epoch;
    image = frame.header.image;
  }
  return frame.header.epoch == epoch;
}

// The hello of a lane that was dialled here, or that comes before the other one's. A numbered one is of a
// fresh connection.
bool Lanes::greeted(Node& node, const Frame& frame, bool bulk) {
  const bool resumed = node.up;
  if (node.greeted[bulk] || (frame.header.sequence == 0) != resumed || !take_hello(node, frame, resumed))
    return false;
  if (resumed) {
    if (!node.lane(bulk)->acknowledged(frame.header.version)) return false;
    on_resumed(node, bulk);
    return true;
  }
  node.greeted[bulk] = true;
  check_up(node);
  return true;
}

}  // namespace elastic
