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

}  // namespace

void measure_bulk_tls(const Options& options) {
  LaneListener listener("127.0.0.1", [](const std::string&) { return kBenchKey; });
  PeerProcess peer(options, [&] {
    auto lane = accept_lane(listener);
    pump_bulk(*lane, true, [](uint64_t) { return true; });
  });
  auto lane = Lane::dial("127.0.0.1", listener.port(), "1", kBenchKey);
  const uint64_t start_ns = now_ns();
  const auto length_ns = static_cast<uint64_t>(options.seconds * 1e9);
  uint64_t window_from_ns = 0;
  uint64_t window_bytes = 0;
  std::vector<double> samples;  // bytes per second of each window, of the arriving direction
  pump_bulk(*lane, true, [&](uint64_t bytes) {
    const uint64_t now = now_ns();
    window_bytes += bytes;
    if (window_from_ns == 0 || now - start_ns < length_ns / 10) {
      window_from_ns = now;
      window_bytes = 0;
    } else if (now - window_from_ns >= kBulkWindowNs) {
      samples.push_back(static_cast<double>(window_bytes) * 1e9 / static_cast<double>(now - window_from_ns));
      window_from_ns = now;
      window_bytes = 0;
    }
    return now - start_ns < length_ns;
  });
  report("bulkTls2", options, std::move(samples), "B/s", true);
}

void measure_bulk_cpu(const Options& options) {
  LaneListener listener("127.0.0.1", [](const std::string&) { return kBenchKey; });
  PeerProcess peer(options, [&] {
    auto lane = accept_lane(listener);
    pump_bulk(*lane, true, [](uint64_t) { return true; });
  });
  auto lane = Lane::dial("127.0.0.1", listener.port(), "1", kBenchKey);
  const uint64_t start_ns = now_ns();
  const auto length_ns = static_cast<uint64_t>(options.seconds * 1e9);
  uint64_t window_from_ns = 0, window_pages = 0, cpu_from_ns = 0;
  std::vector<double> samples;  // of each window
  const auto cpu_ns = [&] { return thread_cpu_ns() + peer.cpu_ns(); };
  pump_bulk(*lane, false, [&](uint64_t bytes) {
    const uint64_t now = now_ns();
    window_pages += bytes / kPagePayloadBytes;
    if (window_from_ns == 0 || now - start_ns < length_ns / 10) {
      window_from_ns = now;
      window_pages = 0;
      cpu_from_ns = cpu_ns();
    } else if (now - window_from_ns >= kBulkWindowNs && window_pages > 0) {
      const uint64_t used_ns = cpu_ns();
      samples.push_back(static_cast<double>(used_ns - cpu_from_ns) / 1000 /
                        static_cast<double>(window_pages));
      window_from_ns = now;
      window_pages = 0;
      cpu_from_ns = used_ns;
    }
    return now - start_ns < length_ns;
  });
  report("bulkTlsCpu", options, std::move(samples), "us", false);
}

}  // namespace elastic
