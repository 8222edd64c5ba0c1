// See lanes.hpp.
#include "lanes.hpp"

#include <sys/epoll.h>

#include <algorithm>
#include <system_error>

#include "frame_check.hpp"

namespace elastic {

namespace {
constexpr uint64_t kHandshakeUs = 2'000'000;
constexpr uint64_t kSweepUs = 250'000;

bool is_image_free(FrameType type) {
  return type == FrameType::hello || type == FrameType::status || type == FrameType::stats ||
         type == FrameType::bye || type == FrameType::reset || type == FrameType::layout_ack ||
         type == FrameType::echo || type == FrameType::echo_reply;
}
}  // namespace

struct Lanes::Pending {
  std::unique_ptr<Lane> lane;
  uint64_t deadline_us;
};

Lanes::Lanes(Loop& loop, uint64_t process_id, uint16_t self, LaneEvents& events, Counters& counters)
    : loop_(loop), process_id_(process_id), self_(self), events_(events), counters_(counters) {
  loop_.after_each_round([this] { flush(); });
  loop_.at(now_us() + kSweepUs, [this] { sweep(); });
}

Lanes::~Lanes() = default;

void Lanes::listen(const std::string& host) {
  try {
    listener_ = std::make_unique<LaneListener>(
        host, [this](const std::string& identity) { return key_of(identity); });
  } catch (const std::system_error& error) {
    throw Failure(format("cannot listen for lanes on %s: %s", host.c_str(), error.what()));
  }
  loop_.watch(listener_->fd(), EPOLLIN, [this](uint32_t) { accept_lane(); });
}

std::optional<LaneKey> Lanes::key_of(const std::string& identity) {
  for (const auto& [index, node] : nodes_)
    if (std::to_string(node->lease.id) == identity && now_us() < node->lease.expires_us) return node->key;
  return std::nullopt;
}

Node& Lanes::add(Node node) {
  if (node.index >= kNodesMax || node.index == self_) throw Failure(format("bad node index %u", node.index));
  auto& place = nodes_[node.index];
  if (place && place->up) throw Failure(format("node %u has lanes already", node.index));
  place = std::make_unique<Node>(std::move(node));
  Node& added = *place;
  added.deadline_us = now_us() + kHandshakeUs;
  if (added.port == 0) return added;
  try {
    const std::string identity = std::to_string(added.lease.id);
    added.urgent = Lane::dial(added.host, added.port, identity, added.key);
    added.bulk = Lane::dial(added.host, added.port, identity, added.key);
  } catch (const std::system_error& error) {
    const std::string text = format("cannot reach %s (%s:%u): %s", added.name.c_str(), added.host.c_str(),
                                    added.port, error.what());
    nodes_.erase(added.index);
    throw Failure(text);
  }
  say_hello(added, *added.urgent, false);
  say_hello(added, *added.bulk, true);
  watch(added, false);
  watch(added, true);
  return added;
}

Node* Lanes::find(uint16_t index) {
  const auto it = nodes_.find(index);
  return it == nodes_.end() ? nullptr : it->second.get();
}

void Lanes::say_hello(Node& node, Lane& lane, bool bulk) {
  HelloPayload hello;
  hello.node = self_;
  hello.lane_kind = bulk ? 1 : 0;
  hello.process_id = process_id_;
  hello.lease_id = node.lease.id;
  FrameHeader header;
  header.type = static_cast<uint16_t>(FrameType::hello);
  header.epoch = epoch;
  header.image = image;
  node.image_said = image;
  const iovec part{&hello, sizeof hello};
  lane.send(header, {&part, 1});
}

void Lanes::watch(Node& node, bool bulk) {
  Lane& lane = bulk ? *node.bulk : *node.urgent;
  const uint16_t index = node.index;
  loop_.watch(lane.fd(), lane.wanted_events(),
              [this, index, bulk](uint32_t events) { on_lane(index, bulk, events); });
}

void Lanes::accept_lane() {
  for (int i = 0; i < 8; i++) {
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

void Lanes::drop_pending(const std::shared_ptr<Pending>& pending) {
  if (pending->lane) loop_.forget(pending->lane->fd());
  std::erase(pending_, pending);
}

void Lanes::on_pending(const std::shared_ptr<Pending>& pending, uint32_t events) {
  Lane& lane = *pending->lane;
  const LaneIo io = lane.on_event(events);
  if (io != LaneIo::ok) {
    if (io == LaneIo::refused) refuse(lane.last_error());
    return drop_pending(pending);
  }
  loop_.change(lane.fd(), lane.wanted_events());
  Frame frame;
  if (!lane.established() || !lane.next_frame(frame)) return;
  Node* owner = nullptr;
  for (const auto& [index, node] : nodes_)
    if (std::to_string(node->lease.id) == lane.identity()) owner = node.get();
  HelloPayload hello;
  const bool shaped =
      frame.header.type == static_cast<uint16_t>(FrameType::hello) && frame.payload.size() == sizeof hello;
  if (shaped) memcpy(&hello, frame.payload.data(), sizeof hello);
  const bool bulk = shaped && hello.lane_kind == 1;
  if (owner == nullptr || !take_hello(*owner, frame) || (bulk ? owner->bulk : owner->urgent)) {
    refuse("a lane whose hello does not fit its lease");
    return drop_pending(pending);
  }
  loop_.forget(lane.fd());
  (bulk ? owner->bulk : owner->urgent) = std::move(pending->lane);
  owner->greeted[bulk] = true;
  std::erase(pending_, pending);
  say_hello(*owner, *(bulk ? owner->bulk : owner->urgent), bulk);
  watch(*owner, bulk);
  check_up(*owner);
  if (!owner->up) return;
  const uint16_t index = owner->index;  // frames that came in the same read, or before the other hello
  if (read_frames(index, !bulk)) on_lane(index, bulk, 0);
}

bool Lanes::take_hello(Node& node, const Frame& frame) {
  HelloPayload hello;
  if (frame.header.type != static_cast<uint16_t>(FrameType::hello) || frame.payload.size() != sizeof hello)
    return false;
  memcpy(&hello, frame.payload.data(), sizeof hello);
  if (hello.protocol != 1 || hello.process_id != process_id_ || hello.node != node.index) return false;
  if (self_ != kHome && node.index == kHome) {
    if (frame.header.epoch < epoch) return false;  // a home from before a rollback
    epoch = frame.header.epoch;
    image = frame.header.image;
  }
  return frame.header.epoch == epoch;
}

void Lanes::check_up(Node& node) {
  if (node.up || !node.urgent || !node.bulk || !node.greeted[0] || !node.greeted[1]) return;
  node.up = true;
  node.last_heard_us = now_us();
  events_.on_up(node);
}

// False if the lane has ended meanwhile. An answer to what is read before the node is up would find nobody.
bool Lanes::read_frames(uint16_t index, bool bulk) {
  Node* node = find(index);
  Lane* lane = node == nullptr ? nullptr : bulk ? node->bulk.get() : node->urgent.get();
  if (lane == nullptr) return false;
  Frame frame;
  while ((node->up || !node->greeted[bulk]) && lane->next_frame(frame)) {
    node->last_heard_us = now_us();
    if (!node->up || frame.header.type == static_cast<uint16_t>(FrameType::hello)) {
      if (!take_hello(*node, frame)) {
        lose(*node, "its hello does not fit the lease");
        return false;
      }
      node->greeted[bulk] = true;
      check_up(*node);
      continue;
    }
    if (fits(*node, frame)) events_.on_frame(*node, frame, bulk);
    node = find(index);  // the callback may have removed it
    if (node == nullptr || (bulk ? node->bulk.get() : node->urgent.get()) != lane) return false;
  }
  return true;
}

void Lanes::on_lane(uint16_t index, bool bulk, uint32_t events) {
  Node* node = find(index);
  if (node == nullptr) return;
  Lane* lane = bulk ? node->bulk.get() : node->urgent.get();
  if (lane == nullptr) return;
  const size_t queued = lane->queued_bytes();
  const LaneIo io = events == 0 ? LaneIo::ok : lane->on_event(events);
  const bool was_up = node->up;
  if (!read_frames(index, bulk)) return;
  if (!was_up && node->up && !read_frames(index, !bulk)) return;  // they came before the hello of this one
  if (io == LaneIo::refused) refuse(lane->last_error());
  if (io != LaneIo::ok) {
    // Who said bye has sent all it had, on both connections: the other one is read to its end as well.
    const Lane* other = bulk ? node->urgent.get() : node->bulk.get();
    if (node->left && other != nullptr && other->status() == LaneIo::ok) return loop_.forget(lane->fd());
    return lose(*node, lane->last_error().empty() ? "connection closed" : lane->last_error());
  }
  // What was queued meanwhile leaves with the end of the round; only what the kernel then does not take waits
  // for EPOLLOUT.
  if (lane->queued_bytes() == 0 || !lane->established()) loop_.change(lane->fd(), lane->wanted_events());
  if (bulk && queued > kBulkQueueBytesMax / 2 && lane->queued_bytes() <= kBulkQueueBytesMax / 2)
    events_.on_drained(*node);
}

// Fences: another epoch, or a page-carrying frame of another image, is not of this run any more.
bool Lanes::fits(Node& node, const Frame& frame) {
  const auto type = static_cast<FrameType>(frame.header.type);
  if (const auto problem = frame_problem(frame.header, frame.payload)) {
    refuse(*problem);
    lose(node, *problem);
    return false;
  }
  if (frame.header.epoch != epoch) {
    refuse("a frame of another epoch");
    return false;
  }
  if (frame.header.image == image) return true;
  return is_image_free(type);
}

void Lanes::refuse(const std::string& reason) {
  counters_.frames_refused++;
  events_.on_refused(reason);
}

void Lanes::cut(uint16_t index, const std::string& reason) {
  if (Node* node = find(index)) lose(*node, reason);
}

void Lanes::lose(Node& node, const std::string& reason) {
  const uint16_t index = node.index;
  node.moves_lost = (node.urgent && node.urgent->sequence_acked() < node.moved_sequence[0]) ||
                    (node.bulk && node.bulk->sequence_acked() < node.moved_sequence[1]);
  count_traffic(node);
  for (auto* lane : {&node.urgent, &node.bulk}) {
    if (*lane) loop_.forget((*lane)->fd());
    lane->reset();
  }
  const bool was_up = node.up;
  node.up = false;
  if (was_up || node.port != 0) events_.on_down(node, reason);
  if (Node* still = find(index); still != nullptr && !still->up) nodes_.erase(index);
}

void Lanes::remove(uint16_t index, const std::string&) {
  Node* node = find(index);
  if (node == nullptr) return;
  count_traffic(*node);
  for (auto* lane : {&node->urgent, &node->bulk})
    if (*lane) loop_.forget((*lane)->fd());
  nodes_.erase(index);
}

void Lanes::count_traffic(Node& node) {
  for (Lane* lane : {node.urgent.get(), node.bulk.get()}) {
    if (lane == nullptr) continue;
    const Lane::Traffic traffic = lane->take_traffic();
    counters_.bytes_sent += traffic.sent;
    counters_.bytes_received += traffic.received;
  }
}

void Lanes::sweep() {
  const uint64_t now = now_us();
  for (const auto& pending : std::vector(pending_))
    if (now > pending->deadline_us) drop_pending(pending);
  std::vector<uint16_t> late;
  for (const auto& [index, node] : nodes_)
    if (!node->up && node->port != 0 && now > node->deadline_us) late.push_back(index);
  for (const uint16_t index : late)
    if (Node* node = find(index)) lose(*node, "no answer on its lane port within 2 s");
  loop_.at(now + kSweepUs, [this] { sweep(); });
}

bool Lanes::send(Node& node, FrameType type, FrameHeader header, std::span<const iovec> parts, bool bulk) {
  Lane* lane = bulk ? node.bulk.get() : node.urgent.get();
  if (!node.up || lane == nullptr) return false;
  header.type = static_cast<uint16_t>(type);
  header.epoch = epoch;
  header.image = image;
  lane->send(header, parts);
  return true;
}

bool Lanes::send_text(Node& node, FrameType type, const std::string& text, FrameHeader header) {
  const iovec part{const_cast<char*>(text.data()), text.size()};
  return send(node, type, header, {&part, 1});
}

void Lanes::send_moving(Node& node, FrameType type, FrameHeader header, std::span<const iovec> parts,
                        bool bulk) {
  if (send(node, type, header, parts, bulk))
    node.moved_sequence[bulk] = (bulk ? node.bulk : node.urgent)->sequence_sent();
}

void Lanes::acknowledge(Node& node) {
  FrameHeader header;
  if (node.urgent) header.version = node.urgent->sequence_received();
  send(node, FrameType::ack, header, {}, true);
}

void Lanes::take_status(Node& node, const Frame& frame) const {
  if (frame.header.image == image) memcpy(&node.status, frame.payload.data(), sizeof node.status);
  if (!node.lease.revoked) node.lease.expires_us = now_us() + node.lease.ttl_us;
}

void Lanes::take_acknowledgement(Node& node, const Frame& frame) const {
  node.read_sequence = std::max(node.read_sequence, frame.header.version);
}

// What it says on a connection comes behind what it has pushed there before.
bool Lanes::no_more_pushed() const {
  return std::all_of(nodes_.begin(), nodes_.end(), [](const auto& each) {
    const Node& node = *each.second;
    if (node.index == kHome || !node.up) return true;
    return node.closed_sequence > 0 && node.read_sequence >= node.closed_sequence &&
           node.urgent->sequence_acked() >= node.closed_sequence;
  });
}

bool Lanes::bulk_has_room(const Node& node) const {
  return node.bulk && node.bulk->queued_bytes() < kBulkQueueBytesMax;
}

bool Lanes::urgent_has_room(const Node& node) const {
  return node.urgent && node.urgent->queued_bytes() < kUrgentQueueBytesMax;
}

size_t Lanes::buffer_bytes() const {
  size_t bytes = 0;
  for (const auto& [index, node] : nodes_)
    for (const Lane* lane : {node->urgent.get(), node->bulk.get()})
      if (lane != nullptr) bytes += lane->buffer_bytes();
  return bytes;
}

void Lanes::flush() {
  std::vector<std::pair<uint16_t, const char*>> broken;
  for (const auto& [index, node] : nodes_) {
    count_traffic(*node);
    for (Lane* lane : {node->urgent.get(), node->bulk.get()}) {
      if (lane == nullptr || lane->queued_bytes() == 0 || !lane->established()) continue;
      if (lane->flush() != LaneIo::ok) {
        broken.emplace_back(index, "connection closed");
        break;
      }
      if (lane->queued_bytes() > kQueueBytesMax) {
        broken.emplace_back(index, "it does not read what it is sent");
        break;
      }
      loop_.change(lane->fd(), lane->wanted_events());
    }
  }
  for (const auto& [index, reason] : broken)
    if (Node* node = find(index)) lose(*node, reason);
}

}  // namespace elastic
