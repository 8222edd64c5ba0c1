// The decisions; see policy.hpp. The order of the steps in on_remote_fault is part of the rule: execution
// since the last event, then the pull, then the wish, then the guards.
#include "policy.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <string_view>

#include "util.hpp"

namespace elastic {

namespace {

constexpr uint8_t kLocalEvent = 255;
constexpr uint8_t kPullsAfterArrivalMin = 4;
constexpr uint8_t kStuckDoublingsMax = 4;
constexpr uint64_t kLocalUsMax = 3'600'000'000;
constexpr double kShareSlack = 1e-9;
constexpr uint32_t kRestlessPulls = 4, kLocalsPerPullMin = 4;
constexpr uint64_t kPatienceMax = 12;
constexpr uint64_t kStayUsPerFaultMin = 50;
constexpr uint8_t kShortStaysFree = 8, kShortStayDoublingsMax = 10;

void count(uint16_t& counter, uint64_t more) {
  counter = static_cast<uint16_t>(std::min<uint64_t>(counter + more, UINT16_MAX));
}

struct Parameters {
  uint64_t window = 10;
  double threshold = 0.2;
  uint64_t local_us = 50;
  uint64_t patience = 10;
};

template <typename Number>
bool parse(std::string_view text, Number& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

bool set_parameter(std::string_view key, std::string_view value, Parameters& parameters) {
  if (key == "window") {
    return parse(value, parameters.window) && parameters.window >= 1 && parameters.window <= kPolicyWindowMax;
  }
  if (key == "threshold") {
    return parse(value, parameters.threshold) && parameters.threshold > 0 && parameters.threshold <= 1;
  }
  if (key == "localUs") {
    return parse(value, parameters.local_us) && parameters.local_us >= 1 &&
           parameters.local_us <= kLocalUsMax;
  }
  if (key == "patience") return parse(value, parameters.patience) && parameters.patience <= kPatienceMax;
  return false;
}

Parameters parse_parameters(std::string_view text) {
  Parameters parameters;
  while (!text.empty()) {
    const std::string_view part = text.substr(0, text.find(','));
    const size_t equals = part.find('=');
    if (equals == part.npos || !set_parameter(part.substr(0, equals), part.substr(equals + 1), parameters)) {
      throw Failure(format("policy multinode-adaptive-lru does not understand \"%.*s\"",
                           static_cast<int>(std::min<size_t>(part.size(), 60)), part.data()));
    }
    text.remove_prefix(std::min(text.size(), part.size() + 1));
  }
  return parameters;
}

void count_execution(ThreadRule& thread, uint64_t us) {
  thread.stay_us = static_cast<uint32_t>(std::min<uint64_t>(thread.stay_us + us, UINT32_MAX));
}

void count_progress(ThreadRule& thread) { thread.short_stays -= thread.short_stays > 0 ? 1 : 0; }

// The fault that ends the stay is one of its faults here.
void judge_length(ThreadRule& thread) {
  const bool short_stay = thread.stay_us < kStayUsPerFaultMin * (thread.pulls_since_arrival + 1u);
  constexpr uint8_t most = kShortStaysFree + kShortStayDoublingsMax;
  if (short_stay)
    thread.short_stays = std::min<uint8_t>(thread.short_stays + 1, most);
  else
    count_progress(thread);
}

uint32_t pulls_before_due(const ThreadRule& thread) {
  return thread.short_stays <= kShortStaysFree ? 0 : 1u << (thread.short_stays - kShortStaysFree);
}

bool arrived_lately(const ThreadRule& thread) { return thread.pulls_since_arrival < kPullsAfterArrivalMin; }

// Why a jump that is wished must not be, or nothing (`refused` false).
bool guards_refuse(const ThreadRule& thread, uint64_t rip, bool due, DecisionReason& reason) {
  if (rip == thread.last_jump_rip) {
    reason = DecisionReason::same_instruction;
    return thread.pulls_since_arrival < kPullsAfterArrivalMin << thread.stuck_jumps;
  }
  reason = due ? DecisionReason::to_and_fro : DecisionReason::just_arrived;
  return due ? thread.pulls_since_arrival < pulls_before_due(thread) : arrived_lately(thread);
}

}  // namespace

JumpRule::JumpRule(const std::string& spec, uint64_t jump_every) : jump_every_(jump_every) {
  const std::string_view text = spec;
  const std::string_view name = text.substr(0, text.find(':'));
  if (text == "always-pull") return;
  if (name != "multinode-adaptive-lru") throw Failure("unknown policy \"" + spec.substr(0, 60) + "\"");
  const Parameters parameters =
      parse_parameters(text.size() == name.size() ? "" : text.substr(name.size() + 1));
  const double needed =
      std::ceil(parameters.threshold * static_cast<double>(parameters.window) - kShareSlack);
  adaptive_ = true;
  window_ = static_cast<uint32_t>(parameters.window);
  needed_ = std::max<uint32_t>(1, static_cast<uint32_t>(std::max(0.0, needed)));
  local_us_ = parameters.local_us;
  patience_ = static_cast<uint8_t>(parameters.patience);
}

Decision JumpRule::on_remote_fault(ThreadRule& thread, uint8_t owner, uint64_t ran_us, uint64_t rip) const {
  enter_execution(thread, ran_us);
  Decision decision = wish(thread, owner);
  if (thread.faults_since_jump != UINT32_MAX) thread.faults_since_jump++;
  const bool due = jump_every_ > 0 && thread.faults_since_jump >= jump_every_;
  if (due) decision = {true, owner, DecisionReason::jump_every};
  DecisionReason refusal{};
  if (decision.jump && guards_refuse(thread, rip, due, refusal)) decision = {false, 0, refusal};
  if (!decision.jump) {
    count(thread.pulls_since_arrival, 1);
    return decision;
  }
  thread.jumped_at_same_rip = rip == thread.last_jump_rip;
  thread.last_jump_rip = rip;
  thread.jumping = 1;
  thread.faults_since_jump = 0;
  thread.events_count = 0;
  thread.events_next = 0;
  judge_stay(thread);
  judge_length(thread);
  return decision;
}

void JumpRule::on_local(ThreadRule& thread) const {
  if (!adaptive_) return;
  enter(thread, kLocalEvent);
  count(thread.stay_locals, 1);
}

// The fault that ends the stay is none of its pulls.
void JumpRule::judge_stay(ThreadRule& thread) const {
  if (!adaptive_) return;
  const bool worth_it = thread.stay_locals + kLocalsPerPullMin >= kLocalsPerPullMin * thread.stay_pulls;
  thread.restless = worth_it ? 0 : std::min<uint8_t>(thread.restless + 1, patience_);
}

void JumpRule::on_arrival(ThreadRule& thread, uint64_t ran_us, uint64_t mark) const {
  const bool progressed = mark != 0 && mark != thread.mark;
  const bool stuck = thread.jumping && thread.jumped_at_same_rip && !progressed;
  thread.stuck_jumps = stuck ? std::min<uint8_t>(thread.stuck_jumps + 1, kStuckDoublingsMax) : 0;
  if (!thread.jumping) {
    thread.last_jump_rip = 0;
    count_progress(thread);
  }
  thread.jumping = 0;
  thread.mark = mark;
  thread.pulls_since_arrival = 0;
  thread.stay_pulls = 0;
  thread.stay_locals = 0;
  thread.stay_us = 0;
  thread.last_event_us = ran_us;
}

Decision JumpRule::wish(ThreadRule& thread, uint8_t owner) const {
  if (!adaptive_) return {false, 0, DecisionReason::always_pull};
  enter(thread, owner);
  const uint32_t stay_pulls = thread.stay_pulls;
  count(thread.stay_pulls, 1);
  const auto pulls = std::count(thread.events, thread.events + thread.events_count, owner);
  if (pulls < static_cast<int64_t>(needed_)) return {false, 0, DecisionReason::below_threshold};
  if (thread.restless > 0 && stay_pulls < kRestlessPulls << thread.restless)
    return {false, 0, DecisionReason::restless};
  return {true, owner, DecisionReason::threshold};
}

void JumpRule::enter_execution(ThreadRule& thread, uint64_t ran_us) const {
  const uint64_t executed_us = ran_us > thread.last_event_us ? ran_us - thread.last_event_us : 0;
  thread.last_event_us = ran_us;
  count_execution(thread, executed_us);
  if (!adaptive_) return;
  const uint64_t locals = executed_us / local_us_;
  for (uint64_t i = 0; i < std::min<uint64_t>(locals, window_); i++) enter(thread, kLocalEvent);
  count(thread.stay_locals, locals);
}

// The events lie in a ring of window_ places; their order does not matter for counting, only which one is
// oldest.
void JumpRule::enter(ThreadRule& thread, uint8_t event) const {
  thread.events[thread.events_next] = event;
  thread.events_next = static_cast<uint8_t>((thread.events_next + 1u) % window_);
  if (thread.events_count < window_) thread.events_count++;
}

uint64_t register_mark(const void* registers, size_t bytes) {
  uint64_t digest = 0xcbf29ce484222325ull;
  for (size_t at = 0; at + sizeof(uint64_t) <= bytes; at += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, static_cast<const char*>(registers) + at, sizeof word);
    digest = (digest ^ word) * 0x100000001b3ull;
  }
  return digest == 0 ? 1 : digest;
}

const char* reason_name(DecisionReason reason) {
  switch (reason) {
    case DecisionReason::always_pull: return "always-pull";
    case DecisionReason::below_threshold: return "below-threshold";
    case DecisionReason::restless: return "restless";
    case DecisionReason::just_arrived: return "just-arrived";
    case DecisionReason::same_instruction: return "same-instruction";
    case DecisionReason::to_and_fro: return "to-and-fro";
    case DecisionReason::threshold: return "threshold";
    case DecisionReason::jump_every: return "jump-every";
  }
  return "unknown";
}

}  // namespace elastic
