// How a lane goes on over another connection. See lane.hpp for the order of the calls.
#include "lane_state.hpp"

namespace elastic {

void Lane::resume(Lane& lost) {
  State& state = *state_;
  State& from = *lost.state_;
  from.end(LaneIo::closed, "another connection has taken its place");
  state.kept = std::exchange(from.kept, KeptFrames());
  state.sequence_sent = from.sequence_sent;
  state.sequence_received = from.sequence_received;
  state.unacknowledged_bytes = from.unacknowledged_bytes;
  state.flows = false;
}

void Lane::greet(FrameHeader hello, std::span<const iovec> parts) {
  State& state = *state_;
  hello.magic = kWireMagic;
  hello.sequence = 0;
  hello.ack = 0;
  hello.version = state.sequence_received;
  std::vector<uint8_t> payload;
  for (const iovec& part : parts) {
    const auto* bytes = static_cast<const uint8_t*>(part.iov_base);
    payload.insert(payload.end(), bytes, bytes + part.iov_len);
  }
  hello.payload_bytes = static_cast<uint32_t>(payload.size());
  const auto* header = reinterpret_cast<const uint8_t*>(&hello);
  state.greeting.assign(header, header + sizeof hello);
  state.greeting.insert(state.greeting.end(), payload.begin(), payload.end());
  if (state.established) state.say_greeting();
}

bool Lane::acknowledged(uint64_t sequence) {
  return sequence >= state_->kept.released() && state_->kept.release(sequence);
}

void Lane::go_on() {
  state_->kept.send_again();
  state_->flows = true;
}

void Lane::give_up(std::string reason) { state_->end(LaneIo::closed, std::move(reason)); }

void Lane::disconnect() {
  State& state = *state_;
  state.fd.reset();
  state.established = false;
  state.handed_bytes = 0;
  state.plain = ByteQueue();
  state.tls.incoming() = ByteQueue();
  state.tls.outgoing() = ByteQueue();
}

void Lane::State::say_greeting() {
  if (!greeting.empty() && !tls.write(greeting.data(), greeting.size())) end(LaneIo::refused, tls.problem());
  greeting.clear();
}

}  // namespace elastic
