// The statistics of a run as one JSON object, with the field names of the command line's --stats file; and
// where its pages are. See home.hpp.
#include <algorithm>
#include <cstdio>

#include "home.hpp"

namespace elastic {

namespace {

constexpr uint64_t kSummaryPauseUs = 1000;  // between two slices
constexpr size_t kSummaryWaitersMax = 64;

Contribution contribution_of(const Node& node) {
  return {node.name,       node.pages_owned_hint,    node.threads_there,
          node.pages_peak, node.counters.jumps_here, node.counters.threads_peak};
}

std::string to_json(const Contribution& one) {
  return "{\"node\":" + json_quote(one.name) +
         format(",\"pages\":%lu,\"threads\":%lu,\"peakPages\":%lu,\"jumpsTo\":%lu,\"threadsPeak\":%lu}",
                one.pages, one.threads, one.peak_pages, one.jumps_to, one.threads_peak);
}

}  // namespace

// What a participant that is gone did still counts in the statistics: one entry for each name, as it may come
// and go any number of times in a run, and no more names than a report has.
void Home::remember(const Node& node) {
  if (node.last_heard_us == 0) return;
  add_counters(departed_counters_, node.counters);
  Contribution sum = contribution_of(node);
  sum.pages = sum.threads = 0;
  const auto same = std::find_if(departed_.begin(), departed_.end(),
                                 [&](const Contribution& other) { return other.name == sum.name; });
  if (same != departed_.end()) {
    sum.peak_pages = std::max(same->peak_pages, sum.peak_pages);
    sum.jumps_to += same->jumps_to;
    sum.threads_peak = std::max(same->threads_peak, sum.threads_peak);
    departed_.erase(same);
  } else if (departed_.size() >= kNodesMax) {
    departed_.erase(departed_.begin());
  }
  departed_.push_back(std::move(sum));
}

std::string Home::stats_json() const {
  Counters sum = counters_;
  add_counters(sum, departed_counters_);
  std::string nodes = to_json({options_.node_name, table_.resident(), count_threads_here(),
                               counters_.peak_resident, counters_.jumps_here, counters_.threads_peak});
  for (const auto& [index, node] : lanes_->all()) {
    add_counters(sum, node->counters);
    nodes += "," + to_json(contribution_of(*node));
  }
  const size_t there = std::min<size_t>(1 + lanes_->all().size(), kNodesMax);
  const size_t gone = std::min(departed_.size(), kNodesMax - there);
  for (size_t i = 0; i < gone; i++) nodes += "," + to_json(departed_[departed_.size() - 1 - i]);
  const uint64_t faults = sum.first_touches + sum.pulls + sum.unspills + sum.jumps;
  std::string out = "{";
  const auto text = [&](const char* name, const std::string& value) {
    out += format("\"%s\":", name) + json_quote(value) + ",";
  };
  const auto number = [&](const char* name, uint64_t value) { out += format("\"%s\":%lu,", name, value); };
  text("elasticProcessId", options_.id);
  text("mode", "stretched");
  text("policy", options_.policy);
  text("backend", "userfaultfd");
  number("wallMs", start_us_ == 0 ? 0 : ((end_us_ != 0 ? end_us_ : now_us()) - start_us_) / 1000);
  number("memoryLimitBytes", engine_->limit() * kPageBytes);
  number("peakResidentPages", counters_.peak_resident);
  number("residentPages", table_.resident());
  number("pagesTouched", sum.pages_touched);
  number("faults", faults);
  number("firstTouches", sum.first_touches);
  number("pulls", sum.pulls);
  number("pagesPulled", sum.pages_pulled);
  number("pushes", sum.pushes);
  number("pagesPushed", sum.pages_pushed);
  number("pagesSpilled", sum.pages_spilled);
  number("unspills", sum.unspills);
  number("pagesUnspilled", sum.pages_unspilled);
  number("spillsFailed", sum.spills_failed);
  number("jumps", sum.jumps);
  number("jumpsHome", sum.jumps_home);
  number("pagesWithJumps", sum.pages_with_jumps);
  number("framesRefused", sum.frames_refused);
  number("lanesResumed", sum.lanes_resumed);
  number("bytesSent", sum.bytes_sent);
  number("bytesReceived", sum.bytes_received);
  number("childProcesses", children_);
  number("epoch", lanes_->epoch);
  out += format("\"pullUs\":{\"p50\":%.1f,\"p99\":%.1f},", sum.pull_ns.percentile_us(0.5),
                sum.pull_ns.percentile_us(0.99));
  out += format("\"jumpUs\":{\"p50\":%.1f,\"p99\":%.1f},", sum.jump_ns.percentile_us(0.5),
                sum.jump_ns.percentile_us(0.99));
  out += format("\"running\":%s,", started_ && !ending_ ? "true" : "false");
  return out + "\"participants\":[" + nodes + "]}";
}

void Home::request_summary(std::function<void(const ControlMessage&)> reply) {
  if (summary_waiters_.size() >= kSummaryWaitersMax) return;
  summary_waiters_.push_back(std::move(reply));
  if (summary_waiters_.size() > 1) return;
  summary_ = PageSummary();
  continue_summary();
}

void Home::continue_summary() {
  if (!summary_.look_on(table_)) {
    loop_.at(now_us() + kSummaryPauseUs, [this] { continue_summary(); });
    return;
  }
  std::map<uint16_t, std::string> names{{kHome, options_.node_name}};
  for (const auto& [index, node] : lanes_->all()) names.emplace(index, node->name);
  const ControlMessage answer{ControlType::pages, {}, {summary_.json(names)}};
  for (const auto& reply : std::exchange(summary_waiters_, {})) reply(answer);
}

}  // namespace elastic
