// The record layer of lane_record.hpp, on OpenSSL's EVP interface.
#include "lane_record.hpp"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <stdexcept>
#include <string>

namespace elastic {

namespace {

constexpr size_t kKeyBytes = 16;

// HKDF-Expand-Label (RFC 8446, 7.1) with an empty context and at most one block of output.
template <size_t kBytes>
std::array<uint8_t, kBytes> expand_label(const TrafficSecret& secret, const char* label) {
  static_assert(kBytes <= 32);
  const std::string full = std::string("tls13 ") + label;
  std::string info = {0, static_cast<char>(kBytes), static_cast<char>(full.size())};
  info += full;
  info += '\0';    // empty context
  info += '\x01';  // block number
  std::array<uint8_t, 32> block;
  unsigned block_bytes = 0;
  const auto* input = reinterpret_cast<const uint8_t*>(info.data());
  if (HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()), input, info.size(), block.data(),
           &block_bytes) == nullptr)
    throw std::runtime_error("OpenSSL: cannot derive lane keys");
  std::array<uint8_t, kBytes> out;
  std::memcpy(out.data(), block.data(), kBytes);
  OPENSSL_cleanse(block.data(), block.size());
  return out;
}

}  // namespace

RecordKeys::RecordKeys() : cipher_(EVP_CIPHER_CTX_new()) {
  if (cipher_ == nullptr) throw std::runtime_error("OpenSSL: out of memory");
}

RecordKeys::~RecordKeys() {
  EVP_CIPHER_CTX_free(cipher_);
  OPENSSL_cleanse(secret_.data(), secret_.size());
  OPENSSL_cleanse(iv_.data(), iv_.size());
}

void RecordKeys::start(const TrafficSecret& secret, bool sealing) {
  sealing_ = sealing;
  secret_ = secret;
  derive();
}

void RecordKeys::update() {
  secret_ = expand_label<32>(secret_, "traffic upd");
  derive();
}

void RecordKeys::derive() {
  auto key = expand_label<kKeyBytes>(secret_, "key");
  iv_ = expand_label<12>(secret_, "iv");
  record_number_ = 0;
  const int done =
      EVP_CipherInit_ex(cipher_, EVP_aes_128_gcm(), nullptr, key.data(), nullptr, sealing_ ? 1 : 0);
  OPENSSL_cleanse(key.data(), key.size());
  if (done != 1) throw std::runtime_error("OpenSSL: no AES-128-GCM");
}

// The record number, counted from zero for each key, exclusive-ored into the IV: no nonce is ever used twice.
bool RecordKeys::next_nonce() {
  std::array<uint8_t, 12> nonce = iv_;
  for (size_t i = 0; i < 8; ++i) nonce[11 - i] ^= static_cast<uint8_t>(record_number_ >> (8 * i));
  ++record_number_;
  return EVP_CipherInit_ex(cipher_, nullptr, nullptr, nullptr, nonce.data(), -1) == 1;
}

bool RecordKeys::seal(RecordType type, const uint8_t* plain, size_t bytes, ByteQueue& out) {
  const size_t sealed = bytes + 1 + kRecordTagBytes;
  uint8_t* const record = out.reserve(kRecordHeaderBytes + sealed);
  record[0] = static_cast<uint8_t>(RecordType::data);
  record[1] = 3;
  record[2] = 3;
  record[3] = static_cast<uint8_t>(sealed >> 8);
  record[4] = static_cast<uint8_t>(sealed);
  uint8_t* const body = record + kRecordHeaderBytes;
  const auto inner_type = static_cast<uint8_t>(type);
  int done = 0;
  if (!next_nonce() || EVP_CipherUpdate(cipher_, nullptr, &done, record, kRecordHeaderBytes) != 1 ||
      EVP_CipherUpdate(cipher_, body, &done, plain, static_cast<int>(bytes)) != 1 ||
      EVP_CipherUpdate(cipher_, body + bytes, &done, &inner_type, 1) != 1 ||
      EVP_CipherFinal_ex(cipher_, body + bytes + 1, &done) != 1 ||
      EVP_CIPHER_CTX_ctrl(cipher_, EVP_CTRL_AEAD_GET_TAG, kRecordTagBytes, body + bytes + 1) != 1)
    return false;
  out.commit(kRecordHeaderBytes + sealed);
  return true;
}

bool RecordKeys::open(std::span<const uint8_t> record, ByteQueue& out, RecordType& type, size_t& bytes) {
  if (record.size() < kRecordHeaderBytes + 1 + kRecordTagBytes) return false;
  const size_t inner = record.size() - kRecordHeaderBytes - kRecordTagBytes;
  const uint8_t* const body = record.data() + kRecordHeaderBytes;
  uint8_t* const plain = out.reserve(inner);
  auto* const tag = const_cast<uint8_t*>(body + inner);  // only read: the call that gets a tag is the same
  int done = 0;
  if (!next_nonce() || EVP_CIPHER_CTX_ctrl(cipher_, EVP_CTRL_AEAD_SET_TAG, kRecordTagBytes, tag) != 1 ||
      EVP_CipherUpdate(cipher_, nullptr, &done, record.data(), kRecordHeaderBytes) != 1 ||
      EVP_CipherUpdate(cipher_, plain, &done, body, static_cast<int>(inner)) != 1 ||
      EVP_CipherFinal_ex(cipher_, plain + inner, &done) != 1)
    return false;
  bytes = inner;
  while (bytes > 0 && plain[bytes - 1] == 0) --bytes;  // padding
  if (bytes == 0 || bytes > kRecordPlainBytes + 1) return false;
  type = static_cast<RecordType>(plain[--bytes]);
  out.commit(bytes);
  return true;
}

}  // namespace elastic
