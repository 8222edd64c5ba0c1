// What a Lane holds and does inside; lane.cpp and lane_listener.cpp share it, nobody else includes it.
//
// The hot path: a request of one header leaves in one TLS record and one send(); its answer arrives with one
// recv(), is decrypted into `plain` and handed out where it lies. Frames queued one after another without a
// flush share records.
#pragma once

#include "lane.hpp"
#include "lane_buffer.hpp"
#include "lane_kept.hpp"
#include "lane_tls.hpp"
#include "util.hpp"

namespace elastic {

// Shared by a listener and the lanes it accepted, because either may go first.
struct ListenerShared {
  LaneListener::FindKey find_key;
  int pending = 0;  // accepted, not yet established
};

struct Lane::State {
  State(Fd socket, std::string identity, const LaneKey& key);  // dialled
  State(Fd socket, std::shared_ptr<ListenerShared> listener);  // accepted
  ~State();

  void on_connected();
  void advance_handshake();
  void become_established();
  bool receive();     // one recv(); false: nothing came
  bool pull_plain();  // decrypts some bytes into `plain`; false: none to be had now
  bool frame_is_buffered() const;
  bool check_header(const FrameHeader& header);
  bool take_frame(const Frame& frame);
  void say_greeting();
  void seal();  // encrypts some of what is to be sent
  void write_out();
  void leave_pending();
  void end(LaneIo as, std::string reason);
  void end_of_stream();
  std::string where() const;

  Fd fd;
  bool connecting = false;
  bool established = false;
  bool drained = true;        // the last recv() emptied the socket: do not ask again before an event
  bool write_broken = false;  // the peer takes no more; what it sent before is still read
  bool finishing = false;
  bool notified = false;  // its last record is made
  bool finished = false;  // FIN sent
  int receives_left = 0;  // of this event: a fast sender must not starve the other lanes
  LaneIo status = LaneIo::ok;
  std::string problem;
  std::string address;  // of the dialled host, for messages
  std::shared_ptr<ListenerShared> listener;
  TlsEnd tls;
  ByteQueue plain;  // decrypted; next_frame() has handed out its first `handed_bytes`
  size_t handed_bytes = 0;
  KeptFrames kept;
  bool flows = true;              // false: resumed, and the other's hello has not said yet where to go on
  bool began = false;             // the first frame of this connection has come
  std::vector<uint8_t> greeting;  // goes out before all kept frames, once the handshake is over
  size_t unacknowledged_bytes = 0;
  bool connection_refused = false;
  uint64_t bytes_sent = 0;
  uint64_t bytes_received = 0;
  Lane::Traffic taken{};  // of these, by take_traffic()
  uint64_t sequence_sent = 0;
  uint64_t sequence_received = 0;
};

}  // namespace elastic
