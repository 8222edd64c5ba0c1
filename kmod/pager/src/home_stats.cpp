// The statistics of a run as one JSON object: the field names of the command line's --stats file. See
// home.hpp.
#include "home.hpp"

namespace elastic {

std::string Home::participant_json(const Node& node) {
  return format("{\"node\":%s,\"peakPages\":%lu,\"jumpsTo\":%lu,\"threadsPeak\":%lu}",
                json_quote(node.name).c_str(), node.pages_peak, node.counters.jumps_here,
                node.counters.threads_peak);
}

std::string Home::stats_json() const {
  Counters sum = counters_;
  add_counters(sum, departed_counters_);
  std::string nodes = format("{\"node\":%s,\"peakPages\":%lu,\"jumpsTo\":%lu,\"threadsPeak\":%lu}",
                             json_quote(options_.node_name).c_str(), counters_.peak_resident,
                             counters_.jumps_here, counters_.threads_peak);
  for (const auto& [index, node] : lanes_->all()) {
    add_counters(sum, node->counters);
    nodes += "," + participant_json(*node);
  }
  for (const std::string& text : departed_) nodes += "," + text;
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
