// The record layer of an established TLS 1.3 connection (RFC 8446, 5), one object for each direction. OpenSSL
// does the handshake; then its traffic secrets move here, as they would move into the kernel with kTLS (which
// a stock kernel need not have).
//
// Why not OpenSSL's own: it spends 1.5 us on a small record where AES-GCM takes 0.5, and copies every byte
// three times on the way in. A pull is four records, so that was 6 us of each. Here records are encrypted
// from the caller's memory into the queue and decrypted from the queue into the frame buffer, without a copy.
// lane_tls_test.cpp proves against OpenSSL itself that what is spoken is still TLS 1.3.
//
// Limits: TLS_AES_128_GCM_SHA256 only; no padding is sent (it is accepted). The first record that does not
// verify ends the connection, and nothing of it is handed out.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "lane_buffer.hpp"

struct evp_cipher_ctx_st;

namespace elastic {

constexpr size_t kRecordPlainBytes = 16384;  // plain bytes in a full record
constexpr size_t kRecordHeaderBytes = 5;
constexpr size_t kRecordTagBytes = 16;
constexpr size_t kRecordSealedBytesMax = kRecordPlainBytes + 256;  // RFC 8446, 5.2

enum class RecordType : uint8_t { change_cipher_spec = 20, alert = 21, handshake = 22, data = 23 };

using TrafficSecret = std::array<uint8_t, 32>;

// Keys and record number of one direction. Throws std::runtime_error only when OpenSSL lacks AES-GCM or
// memory.
class RecordKeys {
 public:
  RecordKeys();
  ~RecordKeys();
  RecordKeys(const RecordKeys&) = delete;
  RecordKeys& operator=(const RecordKeys&) = delete;

  void start(const TrafficSecret& secret, bool sealing);
  void update();  // the next generation of keys (RFC 8446, 7.2)
  uint64_t records() const { return record_number_; }

  // Appends one record to `out`; at most kRecordPlainBytes.
  bool seal(RecordType type, const uint8_t* plain, size_t bytes, ByteQueue& out);
  // Opens one whole record (header included) and appends what it carried to `out`; `bytes` says how much.
  bool open(std::span<const uint8_t> record, ByteQueue& out, RecordType& type, size_t& bytes);

 private:
  void derive();
  bool next_nonce();

  evp_cipher_ctx_st* cipher_ = nullptr;
  bool sealing_ = false;
  TrafficSecret secret_{};
  std::array<uint8_t, 12> iv_{};
  uint64_t record_number_ = 0;
};

}  // namespace elastic
