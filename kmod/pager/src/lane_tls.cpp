// The lane's use of OpenSSL 3, all of it: two contexts (one a role), the pre-shared-key callbacks, and a BIO that
// reads and writes the byte queues of a TlsEnd. See lane_tls.hpp for why it is made so.
//
// The system's openssl.cnf and OPENSSL_CONF are not read: the protocol here is fixed, and the environment of the
// pager is the application's.
#include "lane_tls.hpp"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <stdexcept>

namespace elastic {

namespace {

constexpr uint8_t kAes128GcmSha256[2] = {0x13, 0x01};  // RFC 8446, B.4
constexpr size_t kIdentityCharsMax = 20;               // a 64-bit lease id in decimal

bool is_lease_id(const std::string& identity) {
  return !identity.empty() && identity.size() <= kIdentityCharsMax &&
         std::all_of(identity.begin(), identity.end(), [](char c) { return c >= '0' && c <= '9'; });
}

SSL_SESSION* session_of_key(SSL* ssl, const LaneKey& key) {
  const SSL_CIPHER* cipher = SSL_CIPHER_find(ssl, kAes128GcmSha256);
  SSL_SESSION* session = SSL_SESSION_new();
  if (session != nullptr && cipher != nullptr && SSL_SESSION_set1_master_key(session, key.data(), key.size()) == 1 &&
      SSL_SESSION_set_cipher(session, cipher) == 1 && SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1)
    return session;
  SSL_SESSION_free(session);
  return nullptr;
}

[[noreturn]] void fail_openssl(const char* what) {
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  ERR_clear_error();
  throw std::runtime_error(std::string("OpenSSL: ") + what + ": " + (reason != nullptr ? reason : "unknown error"));
}

}  // namespace

// What OpenSSL calls back into; a friend of TlsEnd.
struct TlsHooks {
  static int use_session(SSL* ssl, const EVP_MD*, const unsigned char** id, size_t* id_bytes, SSL_SESSION** session) {
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

// Puts the reason of the failure into problem_, in the words of who reads it: a refused key is the common case.
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
    problem_ = "the listener refused lane identity " + identity_ + ": unknown there, or the keys differ (" + detail + ")";
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
    established_ = true;
    OPENSSL_cleanse(key_.data(), key_.size());
    return Step::done;
  }
  if (SSL_get_error(ssl_, result) == SSL_ERROR_WANT_READ) return Step::want_more;
  explain("TLS handshake failed");
  return Step::failed;
}

TlsEnd::Step TlsEnd::read(uint8_t* to, size_t room, size_t& got) {
  ERR_clear_error();
  if (SSL_read_ex(ssl_, to, room, &got) == 1) return Step::done;
  got = 0;
  switch (SSL_get_error(ssl_, 0)) {
    case SSL_ERROR_WANT_READ: return Step::want_more;
    case SSL_ERROR_ZERO_RETURN: return Step::closed;
    default: explain("broken TLS record"); return Step::failed;
  }
}

bool TlsEnd::write(const uint8_t* from, size_t bytes) {
  ERR_clear_error();
  records_written_ += (bytes + kTlsRecordBytes - 1) / kTlsRecordBytes;
  if (records_written_ >= records_per_key_) {
    records_written_ = 0;
    SSL_key_update(ssl_, SSL_KEY_UPDATE_NOT_REQUESTED);  // goes out before this record
  }
  size_t written = 0;
  if (SSL_write_ex(ssl_, from, bytes, &written) == 1) return true;
  explain("cannot encrypt");
  return false;
}

void TlsEnd::close_notify() {
  ERR_clear_error();
  SSL_shutdown(ssl_);
  ERR_clear_error();
}

bool TlsEnd::may_have_more() const { return !incoming_.empty() || SSL_has_pending(ssl_) == 1; }

}  // namespace elastic
