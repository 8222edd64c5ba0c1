// See lanes.hpp.
#include "lanes.hpp"

#include <sys/epoll.h>

#include <algorithm>
#include <system_error>

#include "frame_check.hpp"

namespace elastic {

namespace {
constexpr uint64_t kSweepUs = 100'000;
constexpr size_t kLayoutBytes = 16 << 10;       // waits at most for others: a record's worth
constexpr size_t kAcknowledgeBytes = 64 << 10;  // received, with nothing to send that would say so

bool is_image_free(FrameType type) {
  return type == FrameType::hello || type == FrameType::status || type == FrameType::stats ||
         type == FrameType::bye || type == FrameType::reset || type == FrameType::layout_ack ||
         type == FrameType::echo || type == FrameType::echo_reply;
}

// What may wait for the next other frame on the connection, because whoever needs it sends or awaits one.
bool is_layout(FrameType type) {
  return type == FrameType::map || type == FrameType::drop || type == FrameType::protect;
}

// One round may queue more than the bound at once: the other side gets the time to read that, and is judged
// by what comes on top of it.
bool keeps_too_much(const Lane& lane, size_t& bound) {
  const size_t kept = lane.kept_bytes();
  if (kept <= kQueueBytesMax)
    bound = 0;
  else if (bound == 0)
    bound = kept + kQueueBytesMax;
  return bound != 0 && kept > bound;
}
}  // namespace

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
  greet(added, *added.urgent, false, false);
  greet(added, *added.bulk, true, false);
  watch(added, false);
  watch(added, true);
  return added;
}

Node* Lanes::find(uint16_t index) {
  const auto it = nodes_.find(index);
  return it == nodes_.end() ? nullptr : it->second.get();
}

// Of a connection whose hello has come nothing more is read before the other one's has: what lies there must
// not wake the loop.
uint32_t Lanes::wanted_events(const Node& node, bool bulk) const {
  const uint32_t events = node.lane(bulk)->wanted_events();
  return node.up || !node.greeted[bulk] ? events : events & ~static_cast<uint32_t>(EPOLLIN);
}

void Lanes::watch(Node& node, bool bulk) {
  Lane& lane = *node.lane(bulk);
  const uint16_t index = node.index;
  loop_.watch(lane.fd(), wanted_events(node, bulk),
              [this, index, bulk](uint32_t events) { on_lane(index, bulk, events); });
}

void Lanes::check_up(Node& node) {
  if (node.up || !node.urgent || !node.bulk || !node.greeted[0] || !node.greeted[1]) return;
  node.up = true;
  node.last_heard_us = now_us();
  for (const bool bulk : {false, true}) loop_.change(node.lane(bulk)->fd(), wanted_events(node, bulk));
  events_.on_up(node);
}

// False if the lane has ended meanwhile. An answer to what is read before the node is up would find nobody.
bool Lanes::read_frames(uint16_t index, bool bulk) {
  Node* node = find(index);
  Lane* lane = node == nullptr ? nullptr : node->lane(bulk);
  if (lane == nullptr) return false;
  Frame frame;
  while ((node->up || !node->greeted[bulk]) && lane->next_frame(frame)) {
    node->last_heard_us = now_us();
    if (!node->greeted[bulk] || frame.header.type == static_cast<uint16_t>(FrameType::hello)) {
      if (!greeted(*node, frame, bulk)) {
        lose(*node, "its hello does not fit the lease");
        return false;
      }
      continue;
    }
    if (fits(*node, frame)) events_.on_frame(*node, frame, bulk);
    node = find(index);  // the callback may have removed it
    if (node == nullptr || node->lane(bulk) != lane) return false;
    if (lane->unacknowledged_bytes() >= kAcknowledgeBytes) acknowledge(*node, bulk);
  }
  return true;
}

void Lanes::on_lane(uint16_t index, bool bulk, uint32_t events) {
  Node* node = find(index);
  Lane* lane = node == nullptr ? nullptr : node->lane(bulk);
  if (lane == nullptr) return;
  if (!node->up && node->greeted[bulk] && (events & (EPOLLERR | EPOLLHUP)) != 0)
    return lose(*node, "connection closed");  // no event mask keeps these away
  const bool had_room = bulk_has_room(*node, 2);
  if (events != 0) lane->on_event(events);
  const bool was_up = node->up;
  if (!read_frames(index, bulk)) return;
  if (!was_up && node->up && !read_frames(index, !bulk)) return;  // they came before the hello of this one
  if (lane->status() != LaneIo::ok) return on_ended(*node, bulk);
  // What was queued meanwhile leaves with the end of the round; only what the kernel then does not take waits
  // for EPOLLOUT.
  if (lane->queued_bytes() == 0 || !lane->established()) loop_.change(lane->fd(), wanted_events(*node, bulk));
  if (bulk && !had_room && bulk_has_room(*node, 2)) events_.on_drained(*node);
}

void Lanes::on_ended(Node& node, bool bulk) {
  Lane& lane = *node.lane(bulk);
  // In the handshake it is the other side that refuses: it may have ended meanwhile what it lent.
  if (lane.status() == LaneIo::refused && !lane.refused_in_handshake()) refuse(lane.last_error());
  if (may_resume(node, bulk)) return on_broken(node, bulk);
  // Who said bye, or closes on purpose, has sent all it had, on both connections: the other one is read to
  // its end as well.
  const Lane* other = node.lane(!bulk);
  const bool on_purpose = node.left || lane.status() == LaneIo::ended;
  if (!on_purpose || other == nullptr || other->status() != LaneIo::ok)
    return lose(node, lane.last_error().empty() ? "connection closed" : lane.last_error());
  node.gaps[bulk] = {true, now_us(), 0, 0, 0, lane.last_error()};
  loop_.forget(lane.fd());
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
  for (Gap& gap : node.gaps) gap.open = false;  // a dial that waits finds nothing to go on with
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
    if (!node->up && (node->port != 0 || node->urgent || node->bulk) && now > node->deadline_us)
      late.push_back(index);
  for (const uint16_t index : late)
    if (Node* node = find(index)) lose(*node, "no answer on its lane port within 5 s");
  for (const auto& [index, reason] : not_resumed(now))
    if (Node* node = find(index)) lose(*node, reason);
  end_silent(now);
  for (const auto& [index, node] : nodes_)
    if (node->urgent && node->urgent->queued_bytes() > 0) node->hurries = true;
  loop_.at(now + kSweepUs, [this] { sweep(); });
}

bool Lanes::send(Node& node, FrameType type, FrameHeader header, std::span<const iovec> parts, bool bulk) {
  Lane* lane = node.lane(bulk);
  if (!node.up || lane == nullptr) return false;
  header.type = static_cast<uint16_t>(type);
  header.epoch = epoch;
  header.image = image;
  lane->send(header, parts);
  if (!bulk && (node.threads_there > 0 || !is_layout(type))) node.hurries = true;
  return true;
}

bool Lanes::send_text(Node& node, FrameType type, const std::string& text, FrameHeader header) {
  const iovec part{const_cast<char*>(text.data()), text.size()};
  return send(node, type, header, {&part, 1});
}

void Lanes::send_moving(Node& node, FrameType type, FrameHeader header, std::span<const iovec> parts,
                        bool bulk) {
  if (send(node, type, header, parts, bulk)) node.moved_sequence[bulk] = node.lane(bulk)->sequence_sent();
}

void Lanes::acknowledge(Node& node, bool bulk) {
  FrameHeader header;
  if (const Lane* other = node.lane(!bulk)) header.version = other->sequence_received();
  send(node, FrameType::ack, header, {}, bulk);
}

void Lanes::take_status(Node& node, const Frame& frame) const {
  if (frame.header.image == image) memcpy(&node.status, frame.payload.data(), sizeof node.status);
  if (!node.lease.revoked) node.lease.expires_us = now_us() + node.lease.ttl_us;
}

void Lanes::take_acknowledgement(Node& node, const Frame& frame) const {
  node.read_sequence = std::max(node.read_sequence, frame.header.version);
}

// What it says on a connection comes behind what it has pushed there before. While one is to be
// made anew, frames wait on it that would be lost if this pager ended now.
bool Lanes::no_more_pushed() const {
  return std::all_of(nodes_.begin(), nodes_.end(), [](const auto& each) {
    const Node& node = *each.second;
    if (node.index == kHome || !node.up) return true;
    return !node.has_gap() && node.closed_sequence > 0 && node.read_sequence >= node.closed_sequence &&
           node.urgent->sequence_acked() >= node.closed_sequence;
  });
}

bool Lanes::bulk_has_room(const Node& node, size_t share) const {
  return node.bulk && node.bulk->queued_bytes() < kBulkQueueBytesMax / share &&
         node.bulk->kept_bytes() < kKeptBytesMax / share;
}

bool Lanes::urgent_has_room(const Node& node) const {
  return node.urgent && node.urgent->kept_bytes() < kKeptBytesMax;
}

size_t Lanes::buffer_bytes() const {
  size_t bytes = 0;
  for (const auto& [index, node] : nodes_)
    for (const Lane* lane : {node->urgent.get(), node->bulk.get()})
      if (lane != nullptr) bytes += lane->buffer_bytes();
  return bytes;
}

// Whether the connection is still there is looked at with the end of the round.
void Lanes::send_now(Node& node, bool bulk) {
  Lane* lane = node.lane(bulk);
  if (lane != nullptr && lane->established()) lane->flush();
}

void Lanes::flush() {
  std::vector<std::pair<uint16_t, const char*>> broken;
  for (const auto& [index, node] : nodes_) {
    count_traffic(*node);
    for (const bool bulk : {false, true}) {
      Lane* lane = node->lane(bulk);
      if (lane == nullptr || lane->queued_bytes() == 0) continue;
      if (!bulk && node->up && !node->hurries && lane->queued_bytes() < kLayoutBytes) continue;
      if (lane->established()) {
        if (lane->flush() != LaneIo::ok) {
          broken.emplace_back(index, "connection closed");
          break;
        }
        if (!bulk) node->hurries = lane->queued_bytes() > 0;
        loop_.change(lane->fd(), wanted_events(*node, bulk));
      }
      if (keeps_too_much(*lane, node->kept_bounds[bulk])) {
        broken.emplace_back(index, "it does not read what it is sent");
        break;
      }
    }
  }
  for (const auto& [index, reason] : broken)
    if (Node* node = find(index)) lose(*node, reason);
}

}  // namespace elastic
