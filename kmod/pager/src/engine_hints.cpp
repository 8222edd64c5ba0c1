// What this node tells of its pages, and what others tell of theirs: only where to ask first. See hints.hpp.
#include "engine.hpp"

namespace elastic {

namespace {
constexpr uint64_t kSlicePauseUs = 5000;  // a slice takes some 50 µs: a hundredth of the time
constexpr size_t kOwnedWaitersMax = 8;
}  // namespace

void Engine::look_for_owned(std::function<void(const std::vector<OwnedRange>&)> done) {
  if (owned_waiters_.size() >= kOwnedWaitersMax) return;
  owned_waiters_.push_back(std::move(done));
  if (owned_waiters_.size() > 1) return;
  owned_ = {};
  look_on();
}

void Engine::look_on() {
  if (!owned_.look_on(table_)) {
    loop_.at(now_us() + kSlicePauseUs, [this] { look_on(); });
    return;
  }
  const std::vector<OwnedRange> ranges = owned_.ranges();
  for (const auto& done : std::exchange(owned_waiters_, {})) done(ranges);
}

void Engine::set_hints(uint64_t node, std::vector<OwnedRange> ranges) {
  if (config_.self == kHome || node >= kNodesMax || node == config_.self) return;
  hints_.set(static_cast<uint16_t>(node), std::move(ranges));
}

// Who the table says has the page, and who is asked: home where the table says nothing. Of a page of which it
// has never heard no hint is believed either: a node that joins has not been told of what ended before.
Engine::Asking Engine::whom_to_ask(uint64_t page, const PageEntry& e) {
  const auto known = static_cast<uint16_t>(e.state() == PageState::remote ? e.where : kHome);
  if (config_.self == kHome || e.version == 0) return {known, known};
  const auto up = [this](uint16_t node) {
    const Node* there = lanes_.find(node);
    return there != nullptr && there->up && there->synced && !there->left;
  };
  return {known, hints_.owner(page, e.version, up).value_or(known)};
}

// Somebody here waits for the page, which was not where it was asked for.
void Engine::ask_on(uint64_t page, uint16_t owner) {
  if (Node* next = lanes_.find(owner); next != nullptr && next->up) {
    leave_remote(table_.entry(page));  // ask() counts it again
    if (config_.self == kHome) next->pages_owned_hint++;
    return ask({owner, owner}, page, 1, page);
  }
  if (config_.self == kHome) throw Failure("a page belongs to a node that is gone");
  retry_if_deferred(page);
  host_.want_lane(owner);
  host_.must_go_home(page);
}

}  // namespace elastic
