// What a participant lends and how it stops: lease, room told to others, and draining. See peer.hpp.
#include <algorithm>

#include "peer.hpp"

namespace elastic {

namespace {
constexpr uint64_t kNotesPauseUs = 2000;
// Beyond twice the lease: pages that go along with jumps are not counted before they are sent.
constexpr uint64_t kBeyondLeaseMax = 4096;
// For 2 MiB of which a page has been here: two pages of the table, and one of the shell's translations.
constexpr uint64_t kChunkBytes = 3 * kPageBytes;
constexpr uint64_t kTablesBytesMax = 64 << 20;
// And three eighths of what is lent: what 64 nodes that lend as much need, all of it in use.
constexpr uint64_t kTablesShare = 3, kTablesOf = 8;
// What an honest run may touch until home has read that it is too much.
constexpr uint64_t kTablesLateBytes = 128 << 20;
}  // namespace

void Peer::update_lease(const ControlMessage& message) {
  Node* home = lanes_->find(kHome);
  if (home == nullptr || home->lease.id != static_cast<uint64_t>(message.numbers[0])) return;
  lease_pages_ = std::min<uint64_t>(options_.memory_pages, static_cast<uint64_t>(message.numbers[1]));
  lease_threads_ = static_cast<uint32_t>(message.numbers[2]);
  pages_allowed_ = std::max(pages_allowed_, lease_pages_);
  engine_->set_limit(lease_pages_);
  home->lease.revoked = message.numbers[3] == 0;
  home->lease.expires_us = now_us() + static_cast<uint64_t>(message.numbers[3]) * 1000;
  if (home->lease.revoked) start_draining();
  tell_room();
}

// Asks home to take everything back: it fetches the pages as it has room, and says bye when it has them all.
void Peer::start_draining() {
  draining_ = true;
  tell_room();
  if (Node* home = lanes_->find(kHome)) {
    lanes_->send(*home, FrameType::give_back, {});
    tell_owned();
  }
  guests_.all_go_home();
}

// In pieces, so that what is urgent passes between them; one pass at a time.
void Peer::tell_owned() {
  Node* home = lanes_->find(kHome);
  telling_ = home != nullptr && home->up && !engine_->tell_owned(*home);
  if (telling_) loop_.at(now_us() + kNotesPauseUs, [this] { tell_owned(); });
}

bool Peer::may_host(const Node& home) const {
  return !draining_ && !home.lease.revoked && lease_pages_ >= kThreadPagesMin;
}

void Peer::tell_room() {
  for (auto& [index, node] : lanes_->all()) {
    StatusPayload status = engine_->status_for(*node, draining_, guests_.running());
    const iovec part{&status, sizeof status};
    lanes_->send(*node, FrameType::status, {}, {&part, 1});
    if (draining_ && node->up && node->closed_sequence == 0)
      node->closed_sequence = node->urgent->sequence_sent();
  }
}

// Several nodes may push here by an older status at once, each within what was free when it was written: all
// of it together is less than the lease once more. What is beyond that no honest node sends.
uint64_t Peer::pages_bound() const { return 2 * pages_allowed_ + kBeyondLeaseMax; }

// The page table grows with the memory that pages here have been part of, not with their number: a program
// whose pages lie far apart would take many times what is lent. They go home, and the table goes with this
// pager.
void Peer::watch_tables() {
  const uint64_t bytes = table_.touched_chunks() * kChunkBytes;
  const uint64_t lent = std::max(lease_pages_, pages_allowed_) * kPageBytes;
  const uint64_t bound = kTablesBytesMax + lent / kTablesOf * kTablesShare;
  if (bytes > 2 * bound + kTablesLateBytes) throw Failure("page tables have grown far beyond the lease");
  if (draining_ || bytes <= bound) return;
  control_->log(LogLevel::warning, format("%lu MiB for page tables, beside what is lent", bytes >> 20));
  start_draining();
}

// Home may have missed where a page went last: it is told until it has them all.
void Peer::go_on_draining(Node& home) {
  const uint64_t now = now_us();
  if (engine_->empty() && guests_.running() == 0 && lanes_->no_more_pushed()) {
    FrameHeader empty;
    empty.argument = 1;
    lanes_->send(home, FrameType::give_back, empty);
  } else if (!telling_ && now / 1'000'000 != (now - kTickUs) / 1'000'000) {
    tell_owned();
  }
}

}  // namespace elastic
