// The lane itself: frames over TlsEnd over a non-blocking socket. See lane.hpp for the contract,
// lane_state.hpp for the path of a frame.
//
// SIGPIPE: every byte leaves through send() with MSG_NOSIGNAL here; OpenSSL never touches the socket.
#include "lane.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <system_error>

#include "frame_check.hpp"
#include "lane_socket.hpp"
#include "lane_state.hpp"

namespace elastic {

namespace {

constexpr size_t kReceiveBytes = 64u << 10;  // one recv(); 32 to 512 KiB measure the same within noise
constexpr int kReceivesPerEvent = 8;         // then the other descriptors get their turn
constexpr size_t kHandshakeReceiveBytes = 16u << 10;
constexpr uint64_t kHandshakeBytesMax = 32u << 10;  // a pre-shared-key handshake needs less than 1 KiB
// Capacity an empty queue keeps: what waits to be sent, and what has come (the largest answer, and a record).
constexpr size_t kKeepBytes = 160u << 10, kKeepPlainBytes = 288u << 10;
constexpr size_t kSealBytes = 9 * kRecordPlainBytes;  // for one send(): a batch of 32 pages and its metas

}  // namespace

Lane::State::State(Fd socket, std::string identity, const LaneKey& key)
    : fd(std::move(socket)), connecting(true), tls(std::move(identity), key) {}

Lane::State::State(Fd socket, std::shared_ptr<ListenerShared> shared)
    : fd(std::move(socket)),
      listener(std::move(shared)),
      tls([table = listener](const std::string& identity) { return table->find_key(identity); }) {
  ++listener->pending;
}

Lane::State::~State() { leave_pending(); }

void Lane::State::leave_pending() {
  if (listener) --listener->pending;
  listener.reset();
}

std::string Lane::State::where() const { return address.empty() ? "lane" : "lane to " + address; }

void Lane::State::end(LaneIo as, std::string reason) {
  if (status != LaneIo::ok) return;
  status = as;
  problem = where() + ": " + reason;
  leave_pending();
}

// After the last frame has been handed out: whatever is left is a part of one.
void Lane::State::end_of_stream() {
  const bool in_frame = established && (!plain.empty() || tls.may_have_more());
  end(LaneIo::closed, !established ? "closed by the other side during the handshake"
                      : in_frame   ? "closed by the other side in the middle of a frame"
                                   : "closed by the other side");
}

void Lane::State::on_connected() {
  int error = 0;
  socklen_t bytes = sizeof error;
  if (getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &bytes) != 0) error = errno;
  connection_refused = error == ECONNREFUSED;
  if (error != 0) return end(LaneIo::closed, std::string("cannot connect: ") + strerror(error));
  connecting = false;
  drained = false;
}

bool Lane::State::receive() {
  if (drained || receives_left == 0 || status != LaneIo::ok) return false;
  --receives_left;
  ByteQueue& incoming = tls.incoming();
  // What is left there is less than a record.
  const size_t room =
      established ? kReceiveBytes - std::min(incoming.size(), kReceiveBytes / 2) : kHandshakeReceiveBytes;
  uint8_t* to = incoming.reserve(room);
  const ssize_t got = recv(fd.get(), to, room, 0);
  if (got > 0) {
    incoming.commit(static_cast<size_t>(got));
    bytes_received += static_cast<uint64_t>(got);
    drained = static_cast<size_t>(got) < room;
    return true;
  }
  drained = true;
  if (got == 0) {
    end_of_stream();
  } else if (errno != EAGAIN && errno != EINTR) {
    end(LaneIo::closed, strerror(errno));
  } else if (errno == EINTR) {
    drained = false;
  }
  return false;
}

void Lane::State::advance_handshake() {
  while (status == LaneIo::ok) {
    switch (tls.handshake()) {
      case TlsEnd::Step::done: return become_established();
      case TlsEnd::Step::want_more:
        // Data may follow the handshake closely, so only what the handshake itself has taken counts.
        if (bytes_received > kHandshakeBytesMax)
          return end(LaneIo::refused, "more bytes than a handshake needs");
        if (!receive()) return;
        break;
      case TlsEnd::Step::closed:
      case TlsEnd::Step::failed: return end(LaneIo::refused, tls.problem());
    }
  }
}

void Lane::State::become_established() {
  established = true;
  leave_pending();
  say_greeting();
}

bool Lane::State::pull_plain() {
  size_t wanted = 0;
  if (plain.size() >= sizeof(FrameHeader)) {
    // One reserve() for the whole frame, so that its bytes are not moved later.
    FrameHeader header;
    std::memcpy(&header, plain.data(), sizeof header);
    const size_t whole = sizeof header + std::min(header.payload_bytes, kMaxPayloadBytes);
    if (whole > plain.size()) wanted = std::max(wanted, whole - plain.size());
  }
  plain.reserve(wanted + kRecordPlainBytes + 1);  // its last record may carry the beginning of the next frame
  while (status == LaneIo::ok && (tls.may_have_more() || receive())) {
    switch (tls.read(plain)) {
      case TlsEnd::Step::done: return true;
      case TlsEnd::Step::want_more:
        if (!receive()) return false;
        break;
      case TlsEnd::Step::closed: end(LaneIo::ended, "closed by the other side"); return false;
      case TlsEnd::Step::failed: end(LaneIo::refused, tls.problem()); return false;
    }
  }
  return false;
}

bool Lane::State::frame_is_buffered() const {
  if (plain.size() < sizeof(FrameHeader)) return false;
  FrameHeader header;
  std::memcpy(&header, plain.data(), sizeof header);
  return header_problem(header) != nullptr || plain.size() >= sizeof header + header.payload_bytes;
}

// A hello without a number resumes a lost connection; it says what has come there.
bool Lane::State::check_header(const FrameHeader& header) {
  const char* wrong = header_problem(header);
  const bool resumes = header.type == static_cast<uint16_t>(FrameType::hello) && header.sequence == 0;
  if (wrong != nullptr) {
    // said
  } else if (resumes) {
    if (began) wrong = "resumes what goes on";
  } else if (!flows) {
    wrong = "no hello that resumes";
  } else if (header.sequence != sequence_received + 1) {
    wrong = "frame out of sequence";
  }
  if (wrong != nullptr) end(LaneIo::refused, std::string("malformed frame: ") + wrong);
  return wrong == nullptr;
}

// Its header has been checked. What is sent again acknowledges what was acknowledged long ago.
bool Lane::State::take_frame(const Frame& frame) {
  std::optional<std::string> problem = frame_problem(frame.header, frame.payload);
  if (!problem && frame.header.sequence > 0 && !kept.release(frame.header.ack))
    problem = "acknowledges what was not sent";
  if (problem) {
    end(LaneIo::refused, "malformed frame: " + *problem);
    return false;
  }
  began = true;
  if (frame.header.sequence > 0) sequence_received = frame.header.sequence;
  handed_bytes = sizeof frame.header + frame.payload.size();
  unacknowledged_bytes += handed_bytes;
  return true;
}

void Lane::State::seal() {
  if (!established || !flows || status != LaneIo::ok) return;
  while (tls.outgoing().size() < kSealBytes) {
    const std::span<const uint8_t> next = kept.unsent(kRecordPlainBytes);
    if (next.empty()) break;
    if (!tls.write(next.data(), next.size())) return end(LaneIo::refused, tls.problem());
    kept.sent(next.size());
  }
  if (finishing && !notified && kept.unsent_bytes() == 0) {
    notified = true;
    tls.close_notify();
  }
}

void Lane::State::write_out() {
  ByteQueue& out = tls.outgoing();
  while (!write_broken && !connecting) {
    if (out.empty()) seal();
    if (out.empty()) break;
    const ssize_t taken = ::send(fd.get(), out.data(), out.size(), MSG_NOSIGNAL);
    if (taken > 0) {
      bytes_sent += static_cast<uint64_t>(taken);
      out.consume(static_cast<size_t>(taken));
    } else if (errno == EAGAIN) {
      return;
    } else if (errno != EINTR) {
      // EPIPE or a reset. What the peer sent before is still to be read; recv() then tells the end.
      write_broken = true;
    }
  }
  if (write_broken) out.clear();
  out.shrink(kKeepBytes);
  if (notified && !finished) {
    finished = true;
    shutdown(fd.get(), SHUT_WR);
  }
}

Lane::Lane(std::unique_ptr<State> state) : state_(std::move(state)) {}

std::unique_ptr<Lane> Lane::dial(const std::string& host, uint16_t port, const std::string& identity,
                                 const LaneKey& key) {
  auto state = std::make_unique<State>(start_connect(host, port), identity, key);
  state->address = host + " port " + std::to_string(port);
  return std::unique_ptr<Lane>(new Lane(std::move(state)));
}

Lane::~Lane() { finish(); }

int Lane::fd() const { return state_->fd.get(); }
bool Lane::established() const { return state_->established && state_->status == LaneIo::ok; }
bool Lane::refused_in_handshake() const { return !state_->established && state_->status == LaneIo::refused; }
LaneIo Lane::status() const { return state_->status; }
const std::string& Lane::identity() const { return state_->tls.identity(); }
const std::string& Lane::last_error() const { return state_->problem; }
uint64_t Lane::bytes_sent() const { return state_->bytes_sent; }
uint64_t Lane::bytes_received() const { return state_->bytes_received; }
Lane::Traffic Lane::take_traffic() {
  const Traffic before = std::exchange(state_->taken, {state_->bytes_sent, state_->bytes_received});
  return {state_->bytes_sent - before.sent, state_->bytes_received - before.received};
}

uint64_t Lane::sequence_sent() const { return state_->sequence_sent; }
uint64_t Lane::sequence_received() const { return state_->sequence_received; }
uint64_t Lane::sequence_acked() const { return state_->kept.released(); }
size_t Lane::kept_bytes() const { return state_->kept.bytes(); }
size_t Lane::unacknowledged_bytes() const { return state_->unacknowledged_bytes; }
bool Lane::connection_refused() const { return state_->connection_refused; }

size_t Lane::queued_bytes() const {
  return state_->tls.outgoing().size() + state_->kept.unsent_bytes() + state_->greeting.size();
}

size_t Lane::buffer_bytes() const {
  return state_->tls.incoming().capacity() + state_->tls.outgoing().capacity() + state_->plain.capacity() +
         state_->kept.capacity();
}

uint32_t Lane::wanted_events() const {
  const bool to_send = state_->established && state_->flows && state_->kept.unsent_bytes() > 0;
  const bool waiting = state_->connecting || to_send || !state_->tls.outgoing().empty();
  return waiting ? EPOLLIN | EPOLLOUT : static_cast<uint32_t>(EPOLLIN);
}

LaneIo Lane::on_event(uint32_t events) {
  State& state = *state_;
  if (state.status != LaneIo::ok) return state.status;
  state.plain.consume(std::exchange(state.handed_bytes, 0));
  if (state.connecting) {
    if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) == 0) return LaneIo::ok;
    state.on_connected();
  }
  if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP | EPOLLRDHUP)) != 0) state.drained = false;
  state.receives_left = kReceivesPerEvent;
  if (!state.established && state.status == LaneIo::ok) state.advance_handshake();
  if (state.established && !state.frame_is_buffered()) state.pull_plain();
  state.write_out();
  return state.status;
}

bool Lane::next_frame(Frame& out) {
  State& state = *state_;
  state.plain.consume(std::exchange(state.handed_bytes, 0));
  if (!state.established || state.status == LaneIo::refused) return false;
  for (;;) {
    if (state.plain.size() >= sizeof(FrameHeader)) {
      std::memcpy(&out.header, state.plain.data(), sizeof out.header);
      if (!state.check_header(out.header)) return false;
      const size_t whole = sizeof out.header + out.header.payload_bytes;
      if (state.plain.size() >= whole) {
        out.payload = {state.plain.data() + sizeof out.header, out.header.payload_bytes};
        return state.take_frame(out);
      }
    }
    if (!state.pull_plain()) {
      state.plain.shrink(kKeepPlainBytes);
      return false;
    }
  }
}

void Lane::send(FrameHeader header, std::span<const iovec> parts) {
  State& state = *state_;
  if (state.finishing) return;
  size_t payload_bytes = 0;
  for (const iovec& part : parts) payload_bytes += part.iov_len;
  if (payload_bytes > kMaxPayloadBytes) throw std::length_error("lane frame payload too large");
  header.magic = kWireMagic;
  header.payload_bytes = static_cast<uint32_t>(payload_bytes);
  header.sequence = ++state.sequence_sent;
  header.ack = state.sequence_received;
  state.unacknowledged_bytes = 0;
  state.kept.append(&header, sizeof header);
  for (const iovec& part : parts) state.kept.append(part.iov_base, part.iov_len);
}

LaneIo Lane::flush() {
  state_->write_out();
  return state_->status;
}

LaneIo Lane::finish() {
  State& state = *state_;
  if (state.established && state.status == LaneIo::ok) {
    state.finishing = true;
    state.write_out();
  }
  return state.status;
}

}  // namespace elastic
