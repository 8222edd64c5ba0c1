// One end of a lane's TLS 1.3 connection as a machine without a socket: encrypted bytes go in and come out through
// two byte queues, plain bytes through read() and write(). The lane moves the queues to and from the kernel.
//
// Why the pre-shared key alone: both pagers got the lane key from the lease, so a certificate would prove nothing
// more. psk_dhe_ke (with X25519) keeps past traffic secret should a lane key leak later. One cipher suite,
// TLS_AES_128_GCM_SHA256: the fastest of TLS 1.3 on every x86-64 with AES-NI (which the platform has). No tickets,
// no session cache, no early data, no renegotiation, no certificates on either side.
//
// Why queues and not a socket BIO: many frames leave in one system call, one recv() brings many records (a socket
// BIO takes two calls a record), and SIGPIPE cannot strike because OpenSSL never sees the socket. OpenSSL's own
// read-ahead would do the same, but moves everything it has read once for every record.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "lane_buffer.hpp"

struct ssl_st;

namespace elastic {

using LaneKey = std::array<uint8_t, 32>;

constexpr size_t kTlsRecordBytes = 16384;      // plain bytes in a full record (RFC 8446, 5.1)
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
  // Decrypts up to `room` bytes to `to`. done: `got` > 0 bytes came; want_more: put more into incoming() first.
  Step read(uint8_t* to, size_t room, size_t& got);
  // Encrypts into outgoing(); at most kTlsRecordBytes per record. False: the connection is broken.
  bool write(const uint8_t* from, size_t bytes);
  void close_notify();  // says into outgoing() that no more will be written

  bool may_have_more() const;  // read() could return something without new input
  const std::string& identity() const { return identity_; }
  const std::string& problem() const { return problem_; }  // one line, after Step::failed
  ByteQueue& incoming() { return incoming_; }
  ByteQueue& outgoing() { return outgoing_; }
  void set_records_per_key(uint64_t records) { records_per_key_ = records; }  // for tests

 private:
  friend struct TlsHooks;
  void attach(bool accepting);
  void explain(const char* what);

  ssl_st* ssl_ = nullptr;
  bool accepting_ = false;
  bool established_ = false;
  FindKey find_key_;
  std::string identity_;
  LaneKey key_{};
  std::string problem_;
  uint64_t records_written_ = 0;
  uint64_t records_per_key_ = kRecordsPerKey;
  ByteQueue incoming_;
  ByteQueue outgoing_;
};

}  // namespace elastic
