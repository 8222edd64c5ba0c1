// The statistics of a run as one JSON object: the field names of the command line's --stats file. See
// home.hpp.
#include <algorithm>
#include <cstdio>

#include "home.hpp"

namespace elastic {

namespace {
constexpr const char* kNumbersFormat = ",\"peakPages\":%lu,\"jumpsTo\":%lu,\"threadsPeak\":%lu}";

// What one participant did. `head` is its object up to the quoted name.
struct Contribution {
  std::string head;
  uint64_t peak_pages = 0, jumps_to = 0, threads_peak = 0;

  std::string json() const { return head + format(kNumbersFormat, peak_pages, jumps_to, threads_peak); }
};

// Reads what participant_json wrote.
Contribution read_contribution(const std::string& json) {
  Contribution out;
  const size_t numbers = json.rfind(",\"peakPages\":");
  if (numbers == std::string::npos) return out;
  out.head = json.substr(0, numbers);
  sscanf(json.c_str() + numbers, kNumbersFormat, &out.peak_pages, &out.jumps_to, &out.threads_peak);
  return out;
}

// Those that are gone, one for each name: a node may come and go any number of times in a run. The names that
// were there last, if there are too many for the report.
std::vector<Contribution> merge_departed(const std::vector<std::string>& departed, size_t count_max) {
  std::vector<Contribution> merged;
  for (auto text = departed.rbegin(); text != departed.rend(); ++text) {
    const Contribution one = read_contribution(*text);
    const auto same = std::find_if(merged.begin(), merged.end(),
                                   [&](const Contribution& other) { return other.head == one.head; });
    if (same != merged.end()) {
      same->peak_pages = std::max(same->peak_pages, one.peak_pages);
      same->jumps_to += one.jumps_to;
      same->threads_peak = std::max(same->threads_peak, one.threads_peak);
    } else if (merged.size() < count_max) {
      merged.push_back(one);
    }
  }
  return merged;
}
}  // namespace

std::string Home::participant_json(const Node& node) {
  return Contribution{"{\"node\":" + json_quote(node.name), node.pages_peak, node.counters.jumps_here,
                      node.counters.threads_peak}
      .json();
}

std::string Home::stats_json() const {
  Counters sum = counters_;
  add_counters(sum, departed_counters_);
  std::string nodes = Contribution{"{\"node\":" + json_quote(options_.node_name), counters_.peak_resident,
                                   counters_.jumps_here, counters_.threads_peak}
                          .json();
  for (const auto& [index, node] : lanes_->all()) {
    add_counters(sum, node->counters);
    nodes += "," + participant_json(*node);
  }
  const size_t there = 1 + lanes_->all().size();
  for (const Contribution& gone : merge_departed(departed_, there < kNodesMax ? kNodesMax - there : 0))
    nodes += "," + gone.json();
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
  number("memoryLimitBytes", options_.memory_pages * kPageBytes);
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

}  // namespace elastic
