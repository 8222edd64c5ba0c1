// Many pages at once over a lane: `bulkTls2` and `bulkTlsCpu` of reference.cpp.
#include <ctime>

#include "reference.hpp"
#include "reference_kit.hpp"

namespace elastic {

namespace {

constexpr size_t kBulkPages = 64;             // pages of one bulk frame, as eviction batches them
constexpr size_t kBulkQueueMax = 256u << 10;  // queued per direction, as the pager allows
constexpr uint64_t kBulkWindowNs = 20'000'000;

uint64_t thread_cpu_ns() {
  timespec used{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
  return static_cast<uint64_t>(used.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(used.tv_nsec);
}

// Sends, if it is to, as fast as the lane takes it and counts what comes; `on_bytes` sees the payload bytes
// of each turn and says whether to go on.
void pump_bulk(Lane& lane, bool sends, const std::function<bool(uint64_t bytes)>& on_bytes) {
  Waiter waiter(lane.fd());
  std::vector<PageMeta> metas(kBulkPages);
  for (size_t i = 0; i < kBulkPages; ++i) {
    metas[i].page = i + 1;
    metas[i].flags = kPageData;
  }
  std::vector<uint8_t> data(kBulkPages * kPagePayloadBytes, 0x11);
  const iovec parts[] = {{metas.data(), metas.size() * sizeof(PageMeta)}, {data.data(), data.size()}};
  FrameHeader header;
  header.type = static_cast<uint16_t>(FrameType::push);
  header.count = kBulkPages;
  Frame frame;
  for (bool go_on = true; go_on;) {
    const uint32_t more = sends && lane.established() ? EPOLLOUT : 0u;  // all may have gone at once
    lane.on_event(waiter.wait(lane.wanted_events() | more));
    must_be_ok(lane);
    uint64_t bytes = 0;
    while (lane.next_frame(frame)) bytes += frame.payload.size();
    if (sends && lane.established())
      while (lane.queued_bytes() < kBulkQueueMax) lane.send(header, parts);
    lane.flush();
    go_on = on_bytes(bytes);
  }
}

// One figure of each window in which something came: `of` its bytes, its length and the processor time of
// both sides. The first tenth of the time is not looked at.
std::vector<double> windows(const Options& options, bool both_ways,
                            const std::function<double(uint64_t bytes, uint64_t ns, uint64_t cpu_ns)>& of) {
  LaneListener listener("127.0.0.1", [](const std::string&) { return kBenchKey; });
  PeerProcess peer(options, [&] {
    auto lane = accept_lane(listener);
    pump_bulk(*lane, true, [](uint64_t) { return true; });
  });
  auto lane = Lane::dial("127.0.0.1", listener.port(), "1", kBenchKey);
  const uint64_t start_ns = now_ns();
  const auto length_ns = static_cast<uint64_t>(options.seconds * 1e9);
  uint64_t from_ns = 0, from_cpu_ns = 0, window_bytes = 0;
  std::vector<double> samples;
  pump_bulk(*lane, both_ways, [&](uint64_t bytes) {
    const uint64_t now = now_ns();
    window_bytes += bytes;
    const bool begins = from_ns == 0 || now - start_ns < length_ns / 10;
    if (begins || (now - from_ns >= kBulkWindowNs && window_bytes > 0)) {
      const uint64_t cpu_ns = thread_cpu_ns() + peer.cpu_ns();
      if (!begins) samples.push_back(of(window_bytes, now - from_ns, cpu_ns - from_cpu_ns));
      from_ns = now;
      from_cpu_ns = cpu_ns;
      window_bytes = 0;
    }
    return now - start_ns < length_ns;
  });
  return samples;
}

}  // namespace

void measure_bulk_tls(const Options& options) {
  const auto bytes_a_second = [](uint64_t bytes, uint64_t ns, uint64_t) {
    return static_cast<double>(bytes) * 1e9 / static_cast<double>(ns);
  };
  report("bulkTls2", options, windows(options, true, bytes_a_second), "B/s", true);
}

void measure_bulk_cpu(const Options& options) {
  const auto us_a_page = [](uint64_t bytes, uint64_t, uint64_t cpu_ns) {
    return static_cast<double>(cpu_ns) / 1000 * kPagePayloadBytes / static_cast<double>(bytes);
  };
  report("bulkTlsCpu", options, windows(options, false, us_a_page), "us", false);
}

}  // namespace elastic
