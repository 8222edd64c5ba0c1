// A connection of a lane that is lost and made anew. The side that dialled it dials again, at once and then
// with short pauses; the other one accepts it like any lane, if it has the lease's key and knows how far the
// lost one came. Either of the two connections may be lost alone; what is sent on it meanwhile waits.
//
// Lost for good: nobody listens there for 3 s; or for 4 s, as with a peer that is silent, not a frame gets
// through; or its agent says that it is dead; or what answers is not what was there before. A connection that
// breaks before the lane was up is not dialled again: nothing was on it.
#include <sys/epoll.h>

#include <algorithm>
#include <system_error>

#include "lanes.hpp"

namespace elastic {

namespace {
constexpr uint64_t kResumeUs = 4'000'000;
constexpr uint64_t kRefusedUs = 3'000'000;
constexpr uint64_t kSilentUs = 2'000'000, kOtherHeardUs = 500'000;
constexpr uint64_t kPauseMinUs = 10'000, kPauseMaxUs = 200'000;  // between dials
}  // namespace

bool Lanes::may_resume(const Node& node, bool bulk) const {
  const Lane* lane = node.lane(bulk);
  return resumes && node.up && !node.left && lane != nullptr && lane->status() == LaneIo::closed;
}

void Lanes::on_broken(Node& node, bool bulk) {
  Lane& lane = *node.lane(bulk);
  Gap& gap = node.gaps[bulk];
  const uint64_t now = now_us();
  const uint64_t frames = lane.sequence_received() + lane.sequence_acked();
  if (gap.frames != frames) gap = {true, now, frames, 0, 0, lane.last_error()};
  gap.open = true;
  if (!lane.connection_refused())
    gap.refused_since_us = 0;
  else if (gap.refused_since_us == 0)
    gap.refused_since_us = now;
  count_traffic(node);
  loop_.forget(lane.fd());
  lane.disconnect();
  node.greeted[bulk] = false;
  if (node.port != 0) dial_after_pause(node, bulk);
}

void Lanes::dial_after_pause(Node& node, bool bulk) {
  Gap& gap = node.gaps[bulk];
  const uint64_t pause_us = gap.pause_us;
  gap.pause_us = std::clamp(2 * pause_us, kPauseMinUs, kPauseMaxUs);
  if (pause_us == 0) return dial_again(node, bulk);
  loop_.at(now_us() + pause_us, [this, index = node.index, lease = node.lease.id, bulk] {
    Node* still = find(index);
    if (still != nullptr && still->lease.id == lease && still->gaps[bulk].open) dial_again(*still, bulk);
  });
}

void Lanes::dial_again(Node& node, bool bulk) {
  std::unique_ptr<Lane> lane;
  try {
    lane = Lane::dial(node.host, node.port, std::to_string(node.lease.id), node.key);
  } catch (const std::system_error&) {  // no route or no descriptor now
    return dial_after_pause(node, bulk);
  }
  resume_on(node, bulk, std::move(lane));
}

// `lane` takes the place of the one whose connection is lost, or will soon be found to be.
void Lanes::resume_on(Node& node, bool bulk, std::unique_ptr<Lane> lane) {
  auto& place = bulk ? node.bulk : node.urgent;
  lane->resume(*place);
  place = std::move(lane);
  greet(node, *place, bulk, true);
  watch(node, bulk);
}

void Lanes::on_resumed(Node& node, bool bulk) {
  node.lane(bulk)->go_on();
  node.greeted[bulk] = true;
  node.gaps[bulk].open = false;
  node.last_heard_us = now_us();
  if (node.port != 0) counters_.lanes_resumed++;
  if (bulk) events_.on_drained(node);
}

// The dialler's hello came on a connection of its own. False: it does not continue what is here.
bool Lanes::accept_resumed(Node& node, bool bulk, uint64_t received, std::unique_ptr<Lane>& lane) {
  Lane* lost = node.lane(bulk);
  if (!resumes || !node.up || node.left || node.port != 0 || lost == nullptr || !lost->acknowledged(received))
    return false;
  count_traffic(node);
  loop_.forget(lost->fd());
  loop_.forget(lane->fd());
  resume_on(node, bulk, std::move(lane));
  on_resumed(node, bulk);
  return true;
}

// What lies between may drop one of the two connections and tell nobody. Both carry a frame every 100 ms, so
// one that is silent while the other is heard is as good as lost, and so are both while the node is known to
// run; the side that dialled makes it anew. Bytes count, not frames: a large one may take its time.
void Lanes::end_silent(uint64_t now) {
  for (const auto& [index, node] : nodes_) {
    if (!resumes || !node->up || node->left || node->port == 0) continue;
    for (const bool bulk : {false, true}) {
      const uint64_t bytes = node->lane(bulk)->bytes_received();
      if (bytes != node->heard[bulk].bytes) node->heard[bulk] = {bytes, now};
    }
    for (const bool bulk : {false, true}) {
      const bool silent = now - node->heard[bulk].at_us >= kSilentUs;
      const bool other_heard = now - node->heard[!bulk].at_us <= kOtherHeardUs;
      if (node->gaps[bulk].open || !silent || (!other_heard && now > node->runs_until_us)) continue;
      node->lane(bulk)->give_up(other_heard ? "silent for 2 s, while the other connection was heard"
                                            : "silent for 2 s, while the other pager ran");
      on_broken(*node, bulk);
    }
  }
}

// What it had sent before it died may lie here unread.
void Lanes::end_dead(uint16_t index, uint64_t lease, const std::string& reason) {
  const auto found = [&] {
    Node* node = find(index);
    return node != nullptr && node->lease.id == lease ? node : nullptr;
  };
  for (const bool bulk : {false, true})
    if (const Node* node = found(); node != nullptr && node->up && !node->gaps[bulk].open)
      on_lane(index, bulk, EPOLLIN);
  if (Node* node = found()) lose(*node, reason);
}

// Those that have been without a connection for too long.
std::vector<std::pair<uint16_t, std::string>> Lanes::not_resumed(uint64_t now) const {
  std::vector<std::pair<uint16_t, std::string>> late;
  for (const auto& [index, node] : nodes_)
    for (const Gap& gap : node->gaps) {
      if (!gap.open) continue;
      const bool refused = gap.refused_since_us != 0 && now - gap.refused_since_us >= kRefusedUs;
      if (!refused && now - gap.since_us < kResumeUs) continue;
      late.emplace_back(index,
                        gap.reason + (refused ? "; then refused for 3 s" : "; not resumed within 4 s"));
      break;
    }
  return late;
}

}  // namespace elastic
