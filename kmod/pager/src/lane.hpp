// One lane connection between two pagers: TCP carrying TLS 1.3 with an external pre-shared key (the lane key
// that the lease agreed), non-blocking, driven by the pager's epoll loop. A pair of pagers has two: urgent
// and bulk.
//
// A connection may be lost and another one take its place: frames are kept until they are acknowledged, and
// the new Lane goes on with the numbers and frames of the lost one (resume). No frame is lost or handed out
// twice.
//
// Limits: no thread of its own, no blocking call; the receive buffer is bounded by one frame plus one TLS
// record batch; the send queue reports its length and the owner of the lane applies the bound.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "wire.hpp"

namespace elastic {

using LaneKey = std::array<uint8_t, 32>;

// closed: the connection is gone, whoever cut it. ended: the other side closed it on purpose, as TLS says.
// refused: wrong key, malformed or out-of-order frame.
enum class LaneIo { ok, closed, ended, refused };

struct Frame {
  FrameHeader header;
  std::span<const uint8_t> payload;  // valid until the next call to next_frame() or on_event()
};

class Lane {
 public:
  // Starts a non-blocking dial; the handshake goes on inside on_event(). `identity` names the key (the lease
  // id in decimal). Throws std::system_error for a bad address or when no socket is to be had.
  static std::unique_ptr<Lane> dial(const std::string& host, uint16_t port, const std::string& identity,
                                    const LaneKey& key);
  ~Lane();
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  int fd() const;
  uint32_t wanted_events() const;    // EPOLLIN, and EPOLLOUT while connecting or while the queue is not empty
  LaneIo on_event(uint32_t events);  // does what it can without blocking: connect, handshake, read, write
  LaneIo status() const;             // as on_event() last said, or worse: ask after next_frame() has said no
  bool established() const;          // TLS is up in both directions
  bool refused_in_handshake() const;
  const std::string& identity() const;  // of the key in use (accepted lanes: what the dialler named)
  const std::string& last_error() const;

  // Next complete frame that passed every check (magic, sizes, sequence, frame_check.hpp), or nothing: then
  // all that has been received is handed out, and status() tells of an end. A caller that stops before it
  // says no must come back by itself; no event will call it. After LaneIo::refused: nothing.
  bool next_frame(Frame& out);

  // Queues a frame; fills in magic, payload_bytes, sequence and ack. The bytes are copied into the queue at
  // once, so `parts` may be reused on return. Nothing goes to the kernel before flush(). On a lane that has
  // been closed it waits for the one that resumes it.
  void send(FrameHeader header, std::span<const iovec> parts = {});
  LaneIo flush();
  // After the last frame (bye): closes this direction once the queue is empty. Frames still arrive until the
  // other side closes too; destroying the lane earlier may reset the connection and lose what was sent last.
  LaneIo finish();
  size_t queued_bytes() const;          // not yet taken by the kernel
  size_t kept_bytes() const;            // not yet acknowledged, of which some may not have been sent
  size_t buffer_bytes() const;          // allocated for all of its queues
  size_t unacknowledged_bytes() const;  // received since the last frame that went out
  uint64_t bytes_sent() const;
  uint64_t bytes_received() const;
  struct Traffic {
    uint64_t sent, received;
  };
  Traffic take_traffic();  // since the last call, in bytes
  uint64_t sequence_sent() const;
  uint64_t sequence_received() const;
  uint64_t sequence_acked() const;  // by the peer, from the headers it sent

  // Resuming. The side that dials: resume(), greet(), and when the other's hello has come acknowledged() and
  // go_on(). The side that accepts has read a hello first: acknowledged() on the lost lane, then resume(),
  // greet(), go_on().
  void resume(Lane& lost);  // takes over its frames and numbers; nothing more is read from it or sent on it
  void greet(FrameHeader hello,
             std::span<const iovec> parts);  // its version: the last sequence received here
  bool acknowledged(uint64_t sequence);      // so says the other's hello; false if it cannot be
  void go_on();                              // what was not acknowledged goes out again, then what is new
  void give_up(std::string reason);          // it is closed, though nothing has said so
  void disconnect();                         // a closed lane lets go of its socket and what belongs to that
  bool connection_refused() const;           // nobody listened there

 private:
  friend class LaneListener;
  friend struct LaneFuzz;
  struct State;
  explicit Lane(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// The listening socket of one pager. `find_key` maps an identity to the key of a live lease; unknown →
// refused.
class LaneListener {
 public:
  using FindKey = std::function<std::optional<LaneKey>(const std::string& identity)>;
  // Port 0: the kernel chooses. Throws std::system_error. `find_key` is called from Lane::on_event().
  LaneListener(const std::string& host, FindKey find_key, uint16_t port = 0);
  ~LaneListener();
  int fd() const;
  uint16_t port() const;
  // Accepts one pending connection, or null. At most `kMaxPendingLanes` may be in the handshake at once; the
  // caller drops the oldest of them when it is full, and those that are not established in time.
  bool full() const;
  std::unique_ptr<Lane> accept();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

constexpr int kMaxPendingLanes = 32;

}  // namespace elastic
