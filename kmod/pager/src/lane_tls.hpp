// One end of a lane's TLS 1.3 connection as a machine without a socket: encrypted bytes go in and come out
// through two byte queues, plain bytes through read() and write(). The lane moves the queues to and from the
// kernel. OpenSSL does the handshake; the records after it are lane_record.hpp's.
//
// Why the pre-shared key alone: both pagers got the lane key from the lease, so a certificate would prove
// nothing more. psk_dhe_ke (with X25519) keeps past traffic secret should a lane key leak later. One cipher
// suite, TLS_AES_128_GCM_SHA256: the fastest of TLS 1.3 on every x86-64 with AES-NI (which the platform has).
// No tickets, no session cache, no early data, no certificates on either side.
//
// Why queues and not a socket: many frames leave in one system call, one recv() brings many records, and
// SIGPIPE cannot strike because OpenSSL never sees the socket.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "lane_buffer.hpp"
#include "lane_record.hpp"

struct ssl_st;

namespace elastic {

using LaneKey = std::array<uint8_t, 32>;

constexpr uint64_t kRecordsPerKey = 1u << 23;  // below the 2^24.5 that RFC 8446, 5.5 allows one AES-GCM key

class TlsEnd {
 public:
  using FindKey = std::function<std::optional<LaneKey>(const std::string& identity)>;
  enum class Step { done, want_more, closed, failed };

  TlsEnd(std::string identity, const LaneKey& key);  // the dialling end
  explicit TlsEnd(FindKey find_key);                 // the accepting end
  ~TlsEnd();
  TlsEnd(const TlsEnd&) = delete;
  TlsEnd& operator=(const TlsEnd&) = delete;

  Step handshake();
  // Appends what the next record carries to `plain`. done: something came; want_more: put more into
  // incoming().
  Step read(ByteQueue& plain);
  // Encrypts into outgoing(), in records of at most kRecordPlainBytes. False: the connection is broken.
  bool write(const uint8_t* from, size_t bytes);
  void close_notify();  // says into outgoing() that no more will be written

  bool may_have_more() const { return !incoming_.empty(); }  // read() may return something without new input
  const std::string& identity() const { return identity_; }
  const std::string& problem() const { return problem_; }  // one line, after Step::failed
  ByteQueue& incoming() { return incoming_; }
  ByteQueue& outgoing() { return outgoing_; }
  void set_records_per_key(uint64_t records) { records_per_key_ = records; }  // for tests

 private:
  friend struct TlsHooks;
  friend struct RecordFuzz;
  void attach(bool accepting);
  void explain(const char* what);
  bool take_over();
  Step fail(const char* why);
  Step on_alert(const uint8_t* alert, size_t bytes);
  Step on_handshake(const uint8_t* message, size_t bytes);
  bool update_sealing_keys();

  ssl_st* ssl_ = nullptr;
  bool accepting_ = false;
  bool established_ = false;
  FindKey find_key_;
  std::string identity_;
  LaneKey key_{};
  std::string problem_;
  TrafficSecret dialler_secret_{};  // of what the dialler writes; both only until the handshake is over
  TrafficSecret listener_secret_{};
  bool secrets_seen_[2] = {};
  RecordKeys opening_;
  RecordKeys sealing_;
  int empty_records_ = 0;
  bool update_asked_ = false;  // the peer wants our keys changed too
  uint64_t records_per_key_ = kRecordsPerKey;
  ByteQueue incoming_;
  ByteQueue outgoing_;
};

}  // namespace elastic
