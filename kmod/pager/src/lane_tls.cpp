// The lane's use of OpenSSL 3 for the handshake, all of it: two contexts (one a role), the pre-shared-key
// callbacks, a BIO that reads and writes the byte queues of a TlsEnd; and what is not data among the records
// that follow. See lane_tls.hpp for why it is made so.
//
// The system's openssl.cnf and OPENSSL_CONF are not read: the protocol here is fixed, and the environment of
// the pager is the application's.
#include "lane_tls.hpp"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <cstdio>
#include <stdexcept>

namespace elastic {

namespace {

constexpr uint8_t kAes128GcmSha256[2] = {0x13, 0x01};  // RFC 8446, B.4
constexpr size_t kIdentityCharsMax = 20;               // a 64-bit lease id in decimal
constexpr int kEmptyRecordsMax = 32;                   // in a row; more are an attack
constexpr uint8_t kAlertWarning = 1;
constexpr uint8_t kAlertCloseNotify = 0;
constexpr uint8_t kKeyUpdate[4] = {24, 0, 0, 1};  // then one byte: 1 asks for the same in return
constexpr size_t kKeyUpdateBytes = 5;

// 64 hexadecimal digits as OpenSSL writes them.
bool read_secret(const char* hex, TrafficSecret& secret) {
  for (uint8_t& byte : secret) {
    unsigned value = 0;
    if (std::sscanf(hex, "%2x", &value) != 1) return false;
    byte = static_cast<uint8_t>(value);
    hex += 2;
  }
  return true;
}

bool is_lease_id(const std::string& identity) {
  return !identity.empty() && identity.size() <= kIdentityCharsMax &&
         std::all_of(identity.begin(), identity.end(), [](char c) { return c >= '0' && c <= '9'; });
}

SSL_SESSION* session_of_key(SSL* ssl, const LaneKey& key) {
  const SSL_CIPHER* cipher = SSL_CIPHER_find(ssl, kAes128GcmSha256);
  SSL_SESSION* session = SSL_SESSION_new();
  if (session != nullptr && cipher != nullptr &&
      SSL_SESSION_set1_master_key(session, key.data(), key.size()) == 1 &&
      SSL_SESSION_set_cipher(session, cipher) == 1 &&
      SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1)
    return session;
  SSL_SESSION_free(session);
  return nullptr;
}

[[noreturn]] void fail_openssl(const char* what) {
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  ERR_clear_error();
  throw std::runtime_error(std::string("OpenSSL: ") + what + ": " + (reason != nullptr ? reason : "unknown"));
}

}  // namespace

// What OpenSSL calls back into; a friend of TlsEnd.
struct TlsHooks {
  static int use_session(SSL* ssl, const EVP_MD*, const unsigned char** id, size_t* id_bytes,
                         SSL_SESSION** session) {
    auto* end = static_cast<TlsEnd*>(SSL_get_app_data(ssl));
    *session = session_of_key(ssl, end->key_);
    if (*session == nullptr) return 0;
    *id = reinterpret_cast<const unsigned char*>(end->identity_.data());
    *id_bytes = end->identity_.size();
    return 1;
  }

  // Returning 0 ends the handshake with an alert: there is nothing to fall back to.
  static int find_session(SSL* ssl, const unsigned char* id, size_t id_bytes, SSL_SESSION** session) {
    auto* end = static_cast<TlsEnd*>(SSL_get_app_data(ssl));
    *session = nullptr;
    end->identity_.assign(reinterpret_cast<const char*>(id), std::min(id_bytes, kIdentityCharsMax + 1));
    if (!is_lease_id(end->identity_)) {
      end->identity_.clear();
      end->problem_ = "the dialler named no lease id as its lane identity";
      return 0;
    }
    std::optional<LaneKey> key = end->find_key_(end->identity_);
    if (!key) {
      end->problem_ = "unknown lane identity " + end->identity_ + ": no live lease has this id";
      return 0;
    }
    *session = session_of_key(ssl, *key);
    OPENSSL_cleanse(key->data(), key->size());
    return *session != nullptr ? 1 : 0;
  }

  // The key log is OpenSSL's only way to hand out traffic secrets: "LABEL client-random secret". Nothing is
  // written anywhere.
  static void on_secret(const SSL* ssl, const char* line) {
    auto* end = static_cast<TlsEnd*>(SSL_get_app_data(ssl));
    const std::string_view text(line);
    const size_t last_space = text.rfind(' ');
    if (last_space == text.npos || text.size() - last_space != 65) return;
    if (text.starts_with("CLIENT_TRAFFIC_SECRET_0 "))
      end->secrets_seen_[0] = read_secret(line + last_space + 1, end->dialler_secret_);
    if (text.starts_with("SERVER_TRAFFIC_SECRET_0 "))
      end->secrets_seen_[1] = read_secret(line + last_space + 1, end->listener_secret_);
  }

  static int bio_read(BIO* bio, char* to, size_t room, size_t* got) {
    ByteQueue& from = static_cast<TlsEnd*>(BIO_get_data(bio))->incoming_;
    BIO_clear_retry_flags(bio);
    if (from.empty()) {
      BIO_set_retry_read(bio);
      return 0;
    }
    *got = std::min(room, from.size());
    std::memcpy(to, from.data(), *got);
    from.consume(*got);
    return 1;
  }

  static int bio_write(BIO* bio, const char* from, size_t bytes, size_t* taken) {
    static_cast<TlsEnd*>(BIO_get_data(bio))->outgoing_.append(from, bytes);
    *taken = bytes;
    return 1;
  }

  static long bio_control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

  static BIO_METHOD* bio_method() {
    static BIO_METHOD* method = [] {
      BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "elasticos lane");
      if (made == nullptr) fail_openssl("cannot make a BIO");
      BIO_meth_set_read_ex(made, bio_read);
      BIO_meth_set_write_ex(made, bio_write);
      BIO_meth_set_ctrl(made, bio_control);
      return made;
    }();
    return method;
  }

  static SSL_CTX* make_context(bool accepting) {
    OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, nullptr);
    SSL_CTX* context = SSL_CTX_new(accepting ? TLS_server_method() : TLS_client_method());
    if (context == nullptr) fail_openssl("cannot make a context");
    if (SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256") != 1 ||
        SSL_CTX_set1_groups_list(context, "X25519") != 1)
      fail_openssl("cannot set up TLS 1.3");
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_clear_options(context, SSL_OP_ENABLE_MIDDLEBOX_COMPAT);
    SSL_CTX_set_keylog_callback(context, on_secret);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(context, 0);
    SSL_CTX_set_max_early_data(context, 0);
    SSL_CTX_set_recv_max_early_data(context, 0);
    // A listener that ignored the key and showed a certificate instead must fail: no authority is trusted.
    SSL_CTX_set_verify(context, accepting ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, nullptr);
    if (accepting) {
      SSL_CTX_set_psk_find_session_callback(context, find_session);
    } else {
      SSL_CTX_set_psk_use_session_callback(context, use_session);
    }
    return context;
  }

  // One context a role for the life of the process: it holds no secret, keys come from the callbacks.
  static SSL_CTX* context(bool accepting) {
    static SSL_CTX* accepting_context = make_context(true);
    static SSL_CTX* dialling_context = make_context(false);
    return accepting ? accepting_context : dialling_context;
  }
};

TlsEnd::TlsEnd(std::string identity, const LaneKey& key) : identity_(std::move(identity)), key_(key) {
  if (!is_lease_id(identity_)) throw std::invalid_argument("a lane identity is a lease id in decimal");
  attach(false);
}

TlsEnd::TlsEnd(FindKey find_key) : find_key_(std::move(find_key)) { attach(true); }

TlsEnd::~TlsEnd() {
  SSL_free(ssl_);
  OPENSSL_cleanse(key_.data(), key_.size());
  OPENSSL_cleanse(dialler_secret_.data(), dialler_secret_.size());
  OPENSSL_cleanse(listener_secret_.data(), listener_secret_.size());
}

void TlsEnd::attach(bool accepting) {
  accepting_ = accepting;
  ssl_ = SSL_new(TlsHooks::context(accepting));
  BIO* bio = ssl_ != nullptr ? BIO_new(TlsHooks::bio_method()) : nullptr;
  if (bio == nullptr) {
    SSL_free(ssl_);
    fail_openssl("cannot make a connection");
  }
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_, bio, bio);
  SSL_set_app_data(ssl_, this);
  if (accepting) {
    SSL_set_accept_state(ssl_);
  } else {
    SSL_set_connect_state(ssl_);
  }
}

// Puts the reason of the failure into problem_, in the words of who reads it: a refused key is the common
// case.
void TlsEnd::explain(const char* what) {
  const unsigned long code = ERR_peek_last_error();
  const int reason = ERR_GET_REASON(code);
  const char* text = ERR_reason_error_string(code);
  const std::string detail = text != nullptr ? text : "no detail";
  if (!problem_.empty()) {
    // A callback has already said it better.
  } else if (!established_ && accepting_ && reason == SSL_R_BINDER_DOES_NOT_VERIFY) {
    problem_ = "wrong lane key for identity " + identity_;
  } else if (!established_ && !accepting_ && reason >= SSL_AD_REASON_OFFSET) {
    problem_ = "the listener refused lane identity " + identity_ + ": unknown there, or the keys differ (" +
               detail + ")";
  } else if (!established_ && accepting_ && identity_.empty()) {
    problem_ = std::string(what) + ": the dialler does not speak TLS 1.3 with a lane key (" + detail + ")";
  } else {
    problem_ = std::string(what) + ": " + detail;
  }
  ERR_clear_error();
}

TlsEnd::Step TlsEnd::handshake() {
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_);
  if (result == 1) {
    // Both hold whenever the key was used; anything else would be an unauthenticated connection.
    if (SSL_session_reused(ssl_) != 1 || identity_.empty()) {
      problem_ = "TLS handshake ended without the lane key";
      return Step::failed;
    }
    if (!take_over()) return fail("TLS handshake ended without traffic secrets");
    return Step::done;
  }
  if (SSL_get_error(ssl_, result) == SSL_ERROR_WANT_READ) return Step::want_more;
  explain("TLS handshake failed");
  return Step::failed;
}

// Both directions begin with fresh keys: the BIO gives OpenSSL only whole records it asks for, no ticket is
// sent, and no early data is taken, so not one record under these secrets has been read or written by it.
bool TlsEnd::take_over() {
  if (!secrets_seen_[0] || !secrets_seen_[1]) return false;
  opening_.start(accepting_ ? dialler_secret_ : listener_secret_, false);
  sealing_.start(accepting_ ? listener_secret_ : dialler_secret_, true);
  established_ = true;
  OPENSSL_cleanse(key_.data(), key_.size());
  OPENSSL_cleanse(dialler_secret_.data(), dialler_secret_.size());
  OPENSSL_cleanse(listener_secret_.data(), listener_secret_.size());
  SSL_free(ssl_);
  ssl_ = nullptr;
  return true;
}

TlsEnd::Step TlsEnd::fail(const char* why) {
  if (problem_.empty()) problem_ = why;
  ERR_clear_error();
  return Step::failed;
}

TlsEnd::Step TlsEnd::read(ByteQueue& plain) {
  while (incoming_.size() >= kRecordHeaderBytes) {
    const uint8_t* const record = incoming_.data();
    const size_t sealed = static_cast<size_t>(record[3]) << 8 | record[4];
    if (record[0] != static_cast<uint8_t>(RecordType::data) || record[1] != 3 ||
        sealed > kRecordSealedBytesMax)
      return fail("broken TLS record: bad header");
    const size_t whole = kRecordHeaderBytes + sealed;
    if (incoming_.size() < whole) return Step::want_more;
    RecordType type{};
    size_t bytes = 0;
    if (!opening_.open({record, whole}, plain, type, bytes))
      return fail("broken TLS record: it does not verify");
    incoming_.consume(whole);
    if (type == RecordType::data && bytes > 0) {
      empty_records_ = 0;
      return Step::done;
    }
    // Not data: taken back out of the caller's queue. It is short, and it is still the queue's newest.
    if (bytes > kKeyUpdateBytes) {
      plain.uncommit(bytes);
      return fail("broken TLS record: unexpected message");
    }
    uint8_t message[kKeyUpdateBytes] = {};
    std::memcpy(message, plain.data() + plain.size() - bytes, bytes);
    plain.uncommit(bytes);
    const Step step = type == RecordType::alert       ? on_alert(message, bytes)
                      : type == RecordType::handshake ? on_handshake(message, bytes)
                      : type == RecordType::data && ++empty_records_ <= kEmptyRecordsMax
                          ? Step::want_more
                          : fail("broken TLS record: unexpected type");
    if (step != Step::want_more) return step;
  }
  return Step::want_more;
}

TlsEnd::Step TlsEnd::on_alert(const uint8_t* alert, size_t bytes) {
  if (bytes != 2) return fail("broken TLS record: malformed alert");
  if (alert[1] == kAlertCloseNotify) return Step::closed;
  problem_ = "the other side ended the connection with TLS alert " + std::to_string(alert[1]);
  return Step::failed;
}

TlsEnd::Step TlsEnd::on_handshake(const uint8_t* message, size_t bytes) {
  if (bytes != kKeyUpdateBytes || std::memcmp(message, kKeyUpdate, sizeof kKeyUpdate) != 0 || message[4] > 1)
    return fail("broken TLS record: unexpected handshake message");
  if (++empty_records_ > kEmptyRecordsMax) return fail("broken TLS record: key updates without data");
  opening_.update();
  if (message[4] == 1) update_asked_ = true;  // answered with the next write: however often it asks, once
  return Step::want_more;
}

bool TlsEnd::update_sealing_keys() {
  const uint8_t message[kKeyUpdateBytes] = {kKeyUpdate[0], kKeyUpdate[1], kKeyUpdate[2], kKeyUpdate[3], 0};
  update_asked_ = false;
  if (!sealing_.seal(RecordType::handshake, message, sizeof message, outgoing_)) return false;
  sealing_.update();
  return true;
}

bool TlsEnd::write(const uint8_t* from, size_t bytes) {
  while (bytes > 0) {
    if ((update_asked_ || sealing_.records() >= records_per_key_) && !update_sealing_keys()) break;
    const size_t part = std::min(bytes, kRecordPlainBytes);
    if (!sealing_.seal(RecordType::data, from, part, outgoing_)) break;
    from += part;
    bytes -= part;
  }
  if (bytes > 0) fail("cannot encrypt");
  return bytes == 0;
}

void TlsEnd::close_notify() {
  const uint8_t alert[2] = {kAlertWarning, kAlertCloseNotify};
  if (established_) sealing_.seal(RecordType::alert, alert, sizeof alert, outgoing_);
}

}  // namespace elastic
