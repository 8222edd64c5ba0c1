// See silence.hpp.
#include "silence.hpp"

#include <algorithm>

namespace elastic {

namespace {
constexpr uint64_t kTellUs = 500'000;        // five frames on each connection are missing
constexpr uint64_t kSilentUs = 4'000'000;    // a peer that stalls is waited for so long without any verdict
constexpr uint64_t kWaitUs = 2'000'000;      // after a verdict that it stalls; there is one every 500 ms
constexpr uint64_t kWaitMaxUs = 35'000'000;  // of silence; its agent's own limit is 30 s
constexpr uint64_t kRunsUs = 1'000'000;      // what it did then it does now
constexpr uint64_t kOwnStallUs = 300'000;
constexpr int64_t kDead = 0, kStalls = 1, kRuns = 2;

uint64_t silent_us(const Node& node, uint64_t now) { return now - std::min(now, node.last_heard_us); }
}  // namespace

void Silence::look() {
  const uint64_t now = now_us();
  forgive_own_stall(now);
  std::vector<std::pair<uint16_t, uint64_t>> lost;
  for (auto& [index, node] : lanes_.all()) {
    if (!node->up) continue;
    const uint64_t silent = silent_us(*node, now);
    tell(*node, silent);
    if (silent > kSilentUs && (now > node->waited_until_us || silent > kWaitMaxUs))
      lost.emplace_back(index, silent);
  }
  for (const auto& [index, silent] : lost) lanes_.cut(index, format("silent for %lu s", silent / 1'000'000));
}

void Silence::forgive_own_stall(uint64_t now) {
  const uint64_t since = looked_us_ == 0 ? 0 : now - looked_us_;
  looked_us_ = now;
  if (since < kOwnStallUs) return;
  const uint64_t stalled = since - kLookUs;
  for (auto& [index, node] : lanes_.all()) {  // what came in the meantime may have been read already
    node->last_heard_us = std::min(now, node->last_heard_us + stalled);
    node->waited_until_us = std::min(now + kWaitUs, node->waited_until_us + stalled);
  }
}

// NODE_SILENT: [node, leaseId, silentMs], again and again while it is; 0 when it is heard again.
void Silence::tell(Node& node, uint64_t silent) {
  const bool is_silent = silent >= kTellUs;
  if (!is_silent && !node.silence_told) return;
  node.silence_told = is_silent;
  const int64_t silent_ms = is_silent ? static_cast<int64_t>(silent / 1000) : 0;
  control_.to_agents(
      {ControlType::node_silent, {node.index, static_cast<int64_t>(node.lease.id), silent_ms}, {}});
}

// NODE_VERDICT: [node, leaseId, verdict], [reason]. A late one, of a lane before the present one, changes
// nothing.
void Silence::on_verdict(const ControlMessage& message) {
  const auto index = static_cast<uint16_t>(message.numbers[0]);
  const auto lease = static_cast<uint64_t>(message.numbers[1]);
  Node* node = lanes_.find(index);
  if (node == nullptr || node->lease.id != lease) return;
  const uint64_t now = now_us();
  if (message.numbers[2] == kStalls || message.numbers[2] == kRuns) node->waited_until_us = now + kWaitUs;
  if (message.numbers[2] == kRuns) node->runs_until_us = now + kRunsUs;
  if (message.numbers[2] != kDead) return;
  // Not from within the control socket: this may be the end of the run.
  loop_.at(0, [this, index, lease, reason = message.strings[0]] { lanes_.end_dead(index, lease, reason); });
}

}  // namespace elastic
