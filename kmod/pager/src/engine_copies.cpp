// Inactive copies. A lender that gives a page to home for reading keeps its bytes. If the page leaves home
// again unwritten, it is offered to that lender, which says whether it still has them: nothing is read,
// encrypted, sent and stored a second time. See engine.hpp.
//
// Home knows what is unwritten by write protection, whose first write costs a fault; so copies are asked for
// only while they pay. A lender drops copies whenever it wants the room, without a word. Until it has
// answered, the page stays where it is, and who wants to write to it waits.
//
// Only where no thread ever runs on a lender: there is nobody who could use what it has not yet dropped, or
// has just been given back.
#include <algorithm>

#include "engine.hpp"

namespace elastic {

namespace {
// As good as gone, but still in memory: at most a sixteenth of the limit, or 1 MB.
constexpr uint64_t kOfferedPart = 16, kOfferedMin = 32, kOfferedMax = 256;
// In pages that came back without their bytes: what a first write costs, and an offer that was refused.
constexpr int kWriteCosts = 1, kRefusalCosts = 2;
constexpr int kPayMin = -64, kPayMax = 256;
constexpr uint64_t kDeclinedMax = 64;  // pulls for reading, until one is tried again
constexpr int64_t kRoomMin = 64;       // of a lender that keeps copies
}  // namespace

bool Engine::wants_copies(const FaultEvent& fault) {
  if (config_.self != kHome || fault.write || !host_.threads_stay()) return false;
  if (copies_pay_ >= 0) return true;
  copies_declined_ = (copies_declined_ + 1) % kDeclinedMax;
  return copies_declined_ == 0;
}

// Whether the pages of an answer are protected until they are written to. The kernel could not write to those
// that are pinned.
bool Engine::come_clean(const Frame& frame) const {
  if (config_.self != kHome || frame.header.flags != kKeepsCopies || !host_.threads_stay()) return false;
  for (uint32_t i = 0; i < frame.header.count; i++) {
    PageMeta meta;
    memcpy(&meta, frame.payload.data() + i * sizeof meta, sizeof meta);
    if (table_.peek(meta.page).pinned) return false;
  }
  return true;
}

// A resident page of home is about to be written to: what others keep of it is worth nothing.
void Engine::on_write_to_clean(PageEntry& e) {
  e.left_at = 0;
  copies_pay_ = std::max(kPayMin, copies_pay_ - kWriteCosts);
}

// Takes those out of `victims` that can go without their bytes; false if there were none.
bool Engine::offer(std::vector<uint64_t>& victims) {
  const auto can_be_offered = [this](uint64_t page) { return table_.peek(page).copy_at() != 0; };
  if (std::none_of(victims.begin(), victims.end(), can_be_offered)) return false;
  const auto most =
      static_cast<int64_t>(std::clamp(config_.pages_limit / kOfferedPart, kOfferedMin, kOfferedMax));
  int64_t offered = 0;
  for (const auto& [index, node] : lanes_.all()) {
    if (!takes_pages(*node) || !lanes_.bulk_has_room(*node)) continue;
    metas_.clear();
    for (const uint64_t page : victims) {
      PageEntry& e = table_.entry(page);
      if (e.copy_at() != index || offered_ + offered >= most) continue;
      e.left_at |= kOfferedBit;
      offered++;
      metas_.push_back({page, e.version + 1, static_cast<uint32_t>(e.last_written_cut), kPageOffered, 0});
    }
    if (metas_.empty()) continue;
    node->pages_pushed += static_cast<uint32_t>(metas_.size());
    counters_.pushes++;
    send_pages(*node, FrameType::push, metas_, 0, true);
  }
  offered_ += offered;
  std::erase_if(victims, [this](uint64_t page) { return table_.peek(page).offered(); });
  return offered > 0;
}

// The answer to an offer; false: it is none.
bool Engine::on_offer_answered(Node& node, const PageMeta& meta) {
  PageEntry& e = table_.entry(meta.page);
  if (!e.offered() || e.copy_at() != node.index) return false;
  const bool taken = meta.flags == kPageMoved && meta.owner == node.index && meta.version == e.version + 1;
  if (taken) {
    shipped_.push_back({meta.page, 1});
    table_.remove(meta.page);
    note_remote(e, node.index, meta.version);
    counters_.pages_pushed++;
    copies_pay_ = std::min(kPayMax, copies_pay_ + 1);
  } else {
    e.left_at = 0;
    copies_pay_ = std::max(kPayMin, copies_pay_ - kRefusalCosts);
  }
  end_offer(meta.page);
  return true;
}

// The page is not offered any more: it stays, has gone, or has ended.
void Engine::end_offer(uint64_t page) {
  offered_--;
  PageEntry& e = table_.entry(page);
  const bool stays = e.state() == PageState::resident;
  const bool waited_for = std::erase(offer_waiters_, page) > 0;
  if (stays && !e.shared && (waited_for || e.pinned)) memory_.unprotect(page, 1);
  if (waited_for) {
    drop_shipped();
    memory_.wake(page, 1);
  }
  if (stays)
    check_waiters(page);
  else if (e.watched && e.state() == PageState::remote)
    bring(page);
  retry_if_deferred(page);
}

bool Engine::keeps_copies() const {
  return config_.self != kHome && !memory_.attached() && room() - static_cast<int64_t>(copied_) >= kRoomMin;
}

// Of a page that has just been given to home; its bytes are still in memory.
void Engine::keep_copy(uint64_t page) {
  table_.entry(page).set_state(PageState::copied);
  copies_.push_back(page);
  copied_++;
}

void Engine::discard_copy(uint64_t page) {
  memory_.drop(page, 1);
  table_.entry(page).set_state(PageState::remote);
  copied_--;
}

// Pages that are owned here come first.
void Engine::trim_copies(int64_t room_wanted) {
  while (!copies_.empty() && (copies_.size() > 2 * copied_ + kOfferedMax ||
                              (copied_ > 0 && room() - static_cast<int64_t>(copied_) < room_wanted))) {
    const uint64_t page = copies_.front();
    copies_.pop_front();
    if (table_.peek(page).state() == PageState::copied) discard_copy(page);
  }
}

// An offer of home, which is answered with all of its frame.
void Engine::take_offered(Node& node, const PageMeta& meta) {
  PageEntry& e = table_.entry(meta.page);
  PageMeta answer{meta.page, meta.version, 0, kPageAbsent, config_.self};
  if (node.index == kHome && e.state() == PageState::copied && e.version + 1 == meta.version && room() > 0) {
    copied_--;
    table_.insert_front(meta.page, false);
    e.version = meta.version;
    e.last_written_cut = meta.last_written_cut;
    answer.flags = kPageMoved;
  }
  offer_answers_.push_back(answer);
}

void Engine::answer_offers(Node& node) {
  if (offer_answers_.empty()) return;
  send_pages(node, FrameType::pages, offer_answers_, 0, false);
  offer_answers_.clear();
}

}  // namespace elastic
