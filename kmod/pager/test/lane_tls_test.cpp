// The lane's TLS end against OpenSSL itself, in both roles: what the record layer speaks is TLS 1.3, key
// updates and the closing alert included; and what OpenSSL must not get away with (early certificates,
// tickets, other suites, other versions) is refused.
#include <openssl/ssl.h>

#include <cstring>

#include "../src/lane_tls.hpp"
#include "lane_test_kit.hpp"
#include "lane_tests.hpp"

namespace elastic::test {

namespace {

SSL_SESSION* session_of(SSL* ssl, const LaneKey& key) {
  const uint8_t suite[2] = {0x13, 0x01};
  SSL_SESSION* session = SSL_SESSION_new();
  SSL_SESSION_set1_master_key(session, key.data(), key.size());
  SSL_SESSION_set_cipher(session, SSL_CIPHER_find(ssl, suite));
  SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION);
  return session;
}

int use_session(SSL* ssl, const EVP_MD*, const unsigned char** id, size_t* bytes, SSL_SESSION** session) {
  *id = reinterpret_cast<const unsigned char*>("7");
  *bytes = 1;
  *session = session_of(ssl, key_of(1));
  return 1;
}

int find_session(SSL* ssl, const unsigned char*, size_t, SSL_SESSION** session) {
  *session = session_of(ssl, key_of(1));
  return 1;
}

// An end made of OpenSSL alone, with memory BIOs.
struct Plain {
  explicit Plain(bool accepting, int version = TLS1_3_VERSION, bool with_key = true)
      : context(SSL_CTX_new(accepting ? TLS_server_method() : TLS_client_method())) {
    SSL_CTX_set_min_proto_version(context, version);
    SSL_CTX_set_max_proto_version(context, version);
    SSL_CTX_set_num_tickets(context, 0);
    if (with_key && accepting) SSL_CTX_set_psk_find_session_callback(context, find_session);
    if (with_key && !accepting) SSL_CTX_set_psk_use_session_callback(context, use_session);
    ssl = SSL_new(context);
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    accepting ? SSL_set_accept_state(ssl) : SSL_set_connect_state(ssl);
  }
  ~Plain() {
    SSL_free(ssl);
    SSL_CTX_free(context);
  }
  Plain(const Plain&) = delete;
  Plain& operator=(const Plain&) = delete;

  // Moves what each side wrote to the other.
  void exchange(TlsEnd& end) {
    BIO_write(SSL_get_rbio(ssl), end.outgoing().data(), static_cast<int>(end.outgoing().size()));
    end.outgoing().clear();
    uint8_t bytes[4096];
    for (int got; (got = BIO_read(SSL_get_wbio(ssl), bytes, sizeof bytes)) > 0;)
      end.incoming().append(bytes, static_cast<size_t>(got));
  }

  SSL_CTX* context;
  SSL* ssl;
};

TlsEnd::Step shake(TlsEnd& end, Plain& plain) {
  TlsEnd::Step step = TlsEnd::Step::want_more;
  for (int turn = 0; turn < 10; ++turn) {
    if (step == TlsEnd::Step::want_more) step = end.handshake();
    plain.exchange(end);
    SSL_do_handshake(plain.ssl);
    plain.exchange(end);
    if (step == TlsEnd::Step::failed) return step;
    if (step == TlsEnd::Step::done && SSL_is_init_finished(plain.ssl)) return step;
  }
  return step;
}

std::unique_ptr<TlsEnd> end_of(bool accepting) {
  if (!accepting) return std::make_unique<TlsEnd>("7", key_of(1));
  return std::make_unique<TlsEnd>([](const std::string&) { return key_of(1); });
}

void talk(bool accepting) {
  auto end = end_of(accepting);
  Plain plain(!accepting);
  CHECK(shake(*end, plain) == TlsEnd::Step::done);
  CHECK(end->identity() == "7" && SSL_session_reused(plain.ssl) == 1);
  end->set_records_per_key(5);
  Random random(9);
  std::vector<uint8_t> out(40'000), in(50'000);
  for (int round = 0; round < 300; ++round) {
    if (round % 50 == 7) SSL_key_update(plain.ssl, SSL_KEY_UPDATE_REQUESTED);
    const size_t bytes = 1 + random.below(round % 10 == 0 ? out.size() : 300);
    for (size_t i = 0; i < bytes; ++i) out[i] = static_cast<uint8_t>(random.next());
    CHECK(end->write(out.data(), bytes));
    CHECK(SSL_write(plain.ssl, out.data(), static_cast<int>(bytes)) == static_cast<int>(bytes));
    plain.exchange(*end);
    size_t read = 0;
    for (int got; read < bytes && (got = SSL_read(plain.ssl, in.data() + read, 20'000)) > 0;)
      read += static_cast<size_t>(got);
    CHECK(read == bytes && std::memcmp(in.data(), out.data(), bytes) == 0);
    ByteQueue queue;
    while (queue.size() < bytes && end->read(queue) == TlsEnd::Step::done) {
    }
    CHECK(queue.size() == bytes && std::memcmp(queue.data(), out.data(), bytes) == 0);
  }
  end->close_notify();
  plain.exchange(*end);
  CHECK(SSL_read(plain.ssl, in.data(), 1) == 0 && (SSL_get_shutdown(plain.ssl) & SSL_RECEIVED_SHUTDOWN) != 0);
  SSL_shutdown(plain.ssl);
  plain.exchange(*end);
  ByteQueue queue;
  CHECK(end->read(queue) == TlsEnd::Step::closed && queue.empty());
}

// Every single bit flipped in a record is noticed, and nothing of it is handed out.
void test_flipped_bits() {
  for (size_t bit = 0; bit < 8 * (5 + 20 + 1 + 16); ++bit) {
    auto end = end_of(true);
    Plain plain(false);
    CHECK(shake(*end, plain) == TlsEnd::Step::done);
    SSL_write(plain.ssl, "twenty bytes of text", 20);
    plain.exchange(*end);
    const_cast<uint8_t*>(end->incoming().data())[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    ByteQueue queue;
    const TlsEnd::Step step = end->read(queue);
    // A length made larger waits for bytes that never come; one too large is refused at once.
    CHECK(step == TlsEnd::Step::failed || (step == TlsEnd::Step::want_more && bit / 8 >= 3 && bit / 8 <= 4));
    CHECK(queue.empty());
  }
}

void test_refused_ends() {
  auto old_version = end_of(true);
  Plain dials_old(false, TLS1_2_VERSION);
  CHECK(shake(*old_version, dials_old) == TlsEnd::Step::failed && !old_version->problem().empty());
  auto no_key = end_of(true);
  Plain dials_without_key(false, TLS1_3_VERSION, false);
  CHECK(shake(*no_key, dials_without_key) == TlsEnd::Step::failed);
  auto dialler = end_of(false);
  Plain listens_without_key(true, TLS1_3_VERSION, false);
  CHECK(shake(*dialler, listens_without_key) == TlsEnd::Step::failed);
  for (const char* identity : {"", "x", "-1", "123456789012345678901", "7 ", "0x7"}) {
    bool thrown = false;
    try {
      TlsEnd bad(identity, key_of(1));
    } catch (const std::invalid_argument&) {
      thrown = true;
    }
    CHECK(thrown);
  }
}

}  // namespace

std::vector<LaneTest> tls_tests() {
  return {{"TLS with OpenSSL, listening", [] { talk(true); }},
          {"TLS with OpenSSL, dialling", [] { talk(false); }},
          {"flipped bits", test_flipped_bits},
          {"ends that must be refused", test_refused_ends}};
}

}  // namespace elastic::test
