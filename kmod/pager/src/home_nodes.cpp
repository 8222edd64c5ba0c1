// Participants as home sees them: lanes and leases, the layout they are told, their silence and loss. See
// home.hpp.
#include <fcntl.h>

#include <cerrno>

#include "frame_check.hpp"
#include "home.hpp"

namespace elastic {

namespace {
constexpr size_t kFilePagesMax = 64;
}  // namespace

// LANE: [node, leaseId, pagesMax, threadsMax, ttlMs, port], [name, host, key, peer id]
void Home::add_lane(const ControlMessage& message) {
  Node node;
  node.index = static_cast<uint16_t>(message.numbers[0]);
  node.name = message.strings[0];
  try {
    if (message.numbers[0] <= 0 || message.numbers[0] >= kNodesMax) throw Failure("bad node index");
    if (message.strings[2].size() != node.key.size()) throw Failure("a lane key has 32 bytes");
    if (message.numbers[5] <= 0 || message.numbers[5] > 65535) throw Failure("bad lane port");
    node.host = message.strings[1];
    node.peer_id = message.strings[3];
    node.port = static_cast<uint16_t>(message.numbers[5]);
    memcpy(node.key.data(), message.strings[2].data(), node.key.size());
    node.lease.id = static_cast<uint64_t>(message.numbers[1]);
    node.lease.pages_max = static_cast<uint64_t>(message.numbers[2]);
    node.lease.threads_max = static_cast<uint32_t>(message.numbers[3]);
    node.lease.ttl_us = static_cast<uint64_t>(message.numbers[4]) * 1000;
    node.lease.expires_us = now_us() + node.lease.ttl_us;
    if (!ending_) lanes_->add(std::move(node));
  } catch (const Failure& failure) {
    control_->to_all({ControlType::lane_down, {message.numbers[0]}, {message.strings[0], failure.what()}});
  }
}

void Home::update_lease(const ControlMessage& message) {
  for (auto& [index, node] : lanes_->all()) {
    if (node->lease.id != static_cast<uint64_t>(message.numbers[0])) continue;
    node->lease.pages_max = static_cast<uint64_t>(message.numbers[1]);
    node->lease.threads_max = static_cast<uint32_t>(message.numbers[2]);
    node->lease.revoked = message.numbers[3] == 0;
    node->lease.expires_us = now_us() + static_cast<uint64_t>(message.numbers[3]) * 1000;
    if (node->lease.revoked) drop_participant(index);
    return;
  }
}

// Contract: threads come home now, pages are fetched as there is room (drain_nodes), and when the participant
// says that it is empty it is let go.
void Home::drop_participant(uint16_t index) {
  Node* node = lanes_->find(index);
  if (node == nullptr || node->draining) return;
  node->draining = true;
  for (auto& [tid, thread] : threads_)
    if (thread->state == ThreadState::away && thread->node == index) recall(*thread);
  lanes_->send(*node, FrameType::give_back, {});
  draining_nodes_ = true;
}

void Home::drain_nodes() {
  if (!draining_nodes_ || ending_) return;
  draining_nodes_ = false;
  for (auto& [index, node] : lanes_->all()) {
    if (!node->draining) continue;
    draining_nodes_ = true;
    if (node->up) engine_->fetch_from(index);
  }
  if (draining_nodes_) lanes_->flush();
}

void Home::on_up(Node& node) {
  node.synced = node.image_said == lanes_->image;
  if (!node.synced) {  // an exec since our hello: its reset found nobody to go to
    FrameHeader reset;
    reset.argument = lanes_->image;
    lanes_->send(node, FrameType::reset, reset);
  }
  FrameHeader setup;
  setup.argument = static_cast<uint32_t>(options_.jump_every);
  const iovec policy{options_.policy.data(), options_.policy.size()};
  lanes_->send(node, FrameType::setup, setup, {&policy, 1});
  send_layout(node);
  tell_room();  // one more may push here: the others' shares are smaller
  control_->to_all({ControlType::lane_up, {node.index}, {node.name}});
}

void Home::send_region(Node& node, const Region& region) {
  if (region.kind == RegionKind::native) return;
  RegionPayload payload{};
  payload.start_page = region.start;
  payload.page_count = region.end - region.start;
  payload.prot = static_cast<uint32_t>(region.prot);
  payload.kind = static_cast<uint32_t>(region.kind);
  const iovec part{&payload, sizeof payload};
  lanes_->send(node, FrameType::map, {}, {&part, 1});
}

void Home::send_layout(Node& node) {
  regions_.visit(0, kUserSpaceEnd >> kPageShift, [&](const Region& region) { send_region(node, region); });
}

void Home::tell_room() {
  for (auto& [index, node] : lanes_->all()) {
    StatusPayload status = engine_->status_for(*node, false, 0);
    const iovec part{&status, sizeof status};
    lanes_->send(*node, FrameType::status, {}, {&part, 1});
  }
}

void Home::on_down(Node& node, const std::string& reason) {
  control_->to_all({ControlType::lane_down, {node.index}, {node.name, reason}});
  engine_->on_node_down(node);
  if (!node.left) lost(node, reason);
  remember(node);  // until here it counts as one that is there
  std::vector<uint32_t> tickets;
  for (const auto& [ticket, awaited] : tickets_) tickets.push_back(ticket);
  for (const uint32_t ticket : tickets) on_layout_ack(ticket, node.index);
  if (!ending_) return;
  bool anybody = false;  // the last participant's last words have come: nothing to wait for
  for (const auto& [index, other] : lanes_->all()) anybody = anybody || (other->up && other.get() != &node);
  if (!anybody) loop_.stop();
}

void Home::lost(Node& node, const std::string& reason) {
  if (ending_) return;
  if (node.pages_owned_hint == 0 && node.threads_there == 0) return;
  throw Failure(format("node %s was lost (%s) with %lu pages and %u threads of this process",
                       node.name.c_str(), reason.c_str(), node.pages_owned_hint, node.threads_there));
}

void Home::on_refused(const std::string& reason) { control_->log(LogLevel::warning, "refused: " + reason); }

void Home::on_drained(Node&) { engine_->on_drained(); }

void Home::on_frame(Node& node, const Frame& frame, bool) {
  if (frame.header.image == lanes_->image) node.synced = true;
  switch (static_cast<FrameType>(frame.header.type)) {
    case FrameType::status: {
      lanes_->take_status(node, frame);
      node.pages_peak = std::max(node.pages_peak, node.status.pages_resident);
      return;
    }
    case FrameType::stats:
      if (!decode_counters(frame.payload, node.counters)) return;
      node.pages_peak = std::max(node.pages_peak, node.counters.peak_resident);
      return;
    case FrameType::bye: return on_bye(node, frame);
    case FrameType::back: return on_back(node, frame);
    case FrameType::layout_ack: return on_layout_ack(frame.header.argument, node.index);
    case FrameType::give_back:
      if (frame.header.argument == 0) return drop_participant(node.index);
      if (node.draining && node.pages_owned_hint == 0 && node.threads_there == 0) {
        node.left = true;
        lanes_->send_text(node, FrameType::bye, "contracted");
      }
      return;
    case FrameType::file_get: return serve_file_pages(node, frame.header);
    case FrameType::ack: return;  // the lane has read it
    case FrameType::get:
    case FrameType::pages:
    case FrameType::push:
    case FrameType::owner: engine_->on_frame(node, frame); return;
    default: counters_.frames_refused++;  // only home speaks of layout, threads and file pages
  }
}

void Home::on_bye(Node& node, const Frame& frame) {
  node.left = true;
  const std::string reason =
      "left: " + std::string(reinterpret_cast<const char*>(frame.payload.data()), frame.payload.size());
  if (frame.header.argument == 1 && !ending_)  // pages that were at nobody: the table cannot know of them
    throw Failure(format("node %s was lost (%s)", node.name.c_str(), reason.c_str()));
  if (node.pages_owned_hint > 0 || node.threads_there > 0) lost(node, reason);
}

// Read-only file pages as the application sees them; what cannot be read (beyond the file's end) is absent.
void Home::serve_file_pages(Node& node, const FrameHeader& header) {
  const uint64_t count = std::min<uint64_t>(header.count, kFilePagesMax);
  std::vector<PageMeta> metas(count);
  std::vector<uint8_t> data(count * kPageBytes);
  size_t with_data = 0;
  for (uint64_t i = 0; i < count; i++) {
    const uint64_t page = header.page + i;
    const Region* region = regions_.find(page);
    metas[i] = {page, 0, 0, kPageAbsent, 0};
    if (region == nullptr || region->kind != RegionKind::replica) continue;
    uint8_t* out = data.data() + with_data * kPageBytes;
    if (pread(memory_view_.get(), out, kPageBytes, static_cast<off_t>(address_of(page))) !=
        static_cast<ssize_t>(kPageBytes))
      continue;
    metas[i].flags = kPageData;
    with_data++;
  }
  FrameHeader answer;
  answer.page = header.page;
  answer.count = static_cast<uint32_t>(count);
  const iovec parts[2] = {{metas.data(), metas.size() * sizeof(PageMeta)},
                          {data.data(), with_data * kPageBytes}};
  lanes_->send(node, FrameType::file_pages, answer, {parts, with_data > 0 ? 2u : 1u});
}

}  // namespace elastic
