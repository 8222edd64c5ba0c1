// The lanes of one pager: for every other participant an urgent and a bulk connection, from dial or accept
// through the hello frames to up and down. Stamps and checks epoch and image; hands good frames on.
//
// A connection that is lost is made anew (lanes_resume.cpp); nobody notices but by the time it takes. A lane
// that is lost for good takes its participant with it (down): bytes that were sent and not acknowledged stay
// inactive here, so there are never two owners. What that means for the run is the caller's decision.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "lane.hpp"
#include "loop.hpp"
#include "stats.hpp"

namespace elastic {

constexpr uint16_t kHome = 0;
constexpr uint16_t kNodesMax = 64;
constexpr uint64_t kThreadPagesMin = 64;  // with less room no thread can make progress
constexpr uint64_t kHandshakeUs = 5'000'000;
constexpr size_t kBulkQueueBytesMax = 256 * 1024;
constexpr size_t kKeptBytesMax = 512 << 10;  // not acknowledged: then evictions and the program's layout wait
constexpr size_t kQueueBytesMax = 64 << 20;  // who lets so much lie does not read at all

// What a lease allows its holder on the other side, as one pager sees it.
struct Lease {
  uint64_t id = 0;
  uint64_t pages_max = 0;
  uint32_t threads_max = 0;
  uint64_t ttl_us = 0;
  uint64_t expires_us = 0;
  bool revoked = false;
};

// Of a connection that was lost.
struct Gap {
  bool open = false;      // not resumed yet
  uint64_t since_us = 0;  // nothing has got through since
  uint64_t frames = 0;    // sent and received until then
  uint64_t refused_since_us = 0;
  uint64_t pause_us = 0;  // before the next dial
  std::string reason;
};

// When bytes last came on a connection, as the sweep sees it.
struct Heard {
  uint64_t bytes = 0;
  uint64_t at_us = 0;
};

struct Node {
  Lane* lane(bool bulk_one) const { return bulk_one ? bulk.get() : urgent.get(); }
  bool has_gap() const { return gaps[0].open || gaps[1].open; }

  uint16_t index = 0;
  std::string name;
  std::string peer_id;
  std::string host;
  uint16_t port = 0;
  LaneKey key{};
  Lease lease;
  std::unique_ptr<Lane> urgent, bulk;
  std::array<bool, 2> greeted{};  // urgent, bulk: its hello has come; nothing else is read before both have
  std::array<Gap, 2> gaps{};      // urgent, bulk
  std::array<size_t, 2> kept_bounds{};  // urgent, bulk: not 0 while more than kQueueBytesMax is kept
  std::array<Heard, 2> heard{};         // urgent, bulk
  bool up = false;
  bool hurries = true;           // on urgent lies what somebody waits for, or has lain for long enough
  bool left = false;             // said bye: its end is no loss
  bool left_with_pages = false;  // participants, of one another: as it said then
  bool synced = false;           // speaks of the same image as we do
  uint32_t image_said = 0;       // in our hello
  uint64_t last_heard_us = 0;
  uint64_t waited_until_us = 0;  // it is known to stall: its silence is no loss before then
  uint64_t runs_until_us = 0;    // it is known to run: what is silent is the connections
  bool silence_told = false;     // to the agents
  uint64_t deadline_us = 0;      // for the handshake
  StatusPayload status{};
  uint32_t pages_pushed = 0;      // to it, in this image, modulo 2^32; its status says how many have come
  uint32_t pages_taken = 0;       // pushed by it
  uint64_t pages_owned_hint = 0;  // pages our table believes to be there
  uint32_t threads_there = 0;     // home only: its guest threads
  uint64_t pages_peak = 0;
  std::array<uint64_t, 2> moved_sequence{};  // urgent, bulk: the last frame by which pages moved to it
  bool moves_lost = false;                   // it went down before it had acknowledged all of them
  uint64_t closed_sequence = 0;              // urgent: the status by which it may push nothing more here
  uint64_t read_sequence = 0;                // urgent: as it says on bulk, behind all that it pushed before
  bool draining = false;                     // being contracted: nothing new goes there
  Counters counters;                         // as it last reported
};

// Pages sent to it as PUSH that its last status does not count yet.
inline uint64_t pages_on_the_way(const Node& node) {
  return static_cast<uint32_t>(node.pages_pushed - node.status.pages_taken);
}

class LaneEvents {
 public:
  virtual ~LaneEvents() = default;
  virtual void on_up(Node& node) = 0;
  virtual void on_down(Node& node, const std::string& reason) = 0;
  virtual void on_frame(Node& node, const Frame& frame, bool bulk) = 0;
  virtual void on_refused(const std::string& reason) = 0;  // somebody or something was turned away
  virtual void on_drained(Node& node) = 0;                 // its bulk queue has room again
};

class Lanes {
 public:
  Lanes(Loop& loop, uint64_t process_id, uint16_t self, LaneEvents& events, Counters& counters);
  virtual ~Lanes();

  void listen(const std::string& host);  // port() afterwards
  uint16_t port() const { return listener_ ? listener_->port() : 0; }
  // A participant to dial (port > 0) or to expect. Throws Failure for a bad address.
  Node& add(Node node);
  Node* find(uint16_t index);
  std::map<uint16_t, std::unique_ptr<Node>>& all() { return nodes_; }
  void remove(uint16_t index, const std::string& reason);  // closes its lanes; no on_down
  void cut(uint16_t index, const std::string& reason);     // the same, as if they had been lost
  // The same, if it is still that lane. What has come from there is read first.
  void end_dead(uint16_t index, uint64_t lease, const std::string& reason);

  // Stamps epoch and image. False if the node is not up. Frames leave with the end of the loop's round, or
  // flush(); layout that no thread there can need waits for others, or a tenth of a second.
  virtual bool send(Node& node, FrameType type, FrameHeader header, std::span<const iovec> parts = {},
                    bool bulk = false);
  bool send_text(Node& node, FrameType type, const std::string& text, FrameHeader header = {});
  // A frame that moves pages to the node: it is noted until its acknowledgement.
  void send_moving(Node& node, FrameType type, FrameHeader header, std::span<const iovec> parts, bool bulk);
  // Says what has come: nothing else may go that way for long. On bulk, of both connections.
  void acknowledge(Node& node, bool bulk = true);
  void flush();
  // What is queued there leaves before the end of the round, as far as the kernel takes it.
  void send_now(Node& node, bool bulk);
  void take_acknowledgement(Node& node, const Frame& frame) const;
  // Participants: every other one has read that nothing may come here, and what it pushed before is here.
  bool no_more_pushed() const;
  virtual bool bulk_has_room(const Node& node, size_t share = 1) const;  // of that part of its bounds
  bool urgent_has_room(const Node& node) const;
  size_t buffer_bytes() const;                             // allocated for the queues of all lanes
  void take_status(Node& node, const Frame& frame) const;  // of another image: renews the lease, no more

  uint32_t epoch = 1;
  uint32_t image = 1;
  bool resumes = true;  // false: who goes now is not waited for

 private:
  struct Pending {  // accepted, hello not yet seen
    std::unique_ptr<Lane> lane;
    uint64_t deadline_us;
  };
  void on_lane(uint16_t index, bool bulk, uint32_t events);
  bool read_frames(uint16_t index, bool bulk);
  uint32_t wanted_events(const Node& node, bool bulk) const;
  void watch(Node& node, bool bulk);
  void check_up(Node& node);
  void on_ended(Node& node, bool bulk);
  void lose(Node& node, const std::string& reason);
  void refuse(const std::string& reason);
  bool fits(Node& node, const Frame& frame);
  void sweep();
  void count_traffic(Node& node);
  // lanes_hello.cpp
  std::optional<LaneKey> key_of(const std::string& identity);
  void greet(Node& node, Lane& lane, bool bulk, bool resumed);
  void accept_lane();
  void on_pending(const std::shared_ptr<Pending>& pending, uint32_t events);
  void drop_idle();
  void drop_pending(const std::shared_ptr<Pending>& pending);
  bool take_hello(Node& node, const Frame& frame, bool resumed);
  bool greeted(Node& node, const Frame& frame, bool bulk);
  // lanes_resume.cpp
  bool may_resume(const Node& node, bool bulk) const;
  void on_broken(Node& node, bool bulk);
  void dial_after_pause(Node& node, bool bulk);
  void dial_again(Node& node, bool bulk);
  void resume_on(Node& node, bool bulk, std::unique_ptr<Lane> lane);
  void on_resumed(Node& node, bool bulk);
  bool accept_resumed(Node& node, bool bulk, uint64_t received, std::unique_ptr<Lane>& lane);
  void end_silent(uint64_t now);
  std::vector<std::pair<uint16_t, std::string>> not_resumed(uint64_t now) const;

  Loop& loop_;
  uint64_t process_id_;
  uint16_t self_;
  LaneEvents& events_;
  Counters& counters_;
  std::unique_ptr<LaneListener> listener_;
  std::map<uint16_t, std::unique_ptr<Node>> nodes_;
  std::vector<std::shared_ptr<Pending>> pending_;
};

}  // namespace elastic
