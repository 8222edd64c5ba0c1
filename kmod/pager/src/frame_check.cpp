// The rules of frame_check.hpp. Each message is the text its TypeScript twin gives too.
#include "frame_check.hpp"

#include <cstring>

#include "injector.hpp"

namespace elastic {

namespace {

constexpr uint32_t kPageBytesOnLane = 4096;
constexpr uint32_t kProtectionBits = 7;  // PROT_READ | PROT_WRITE | PROT_EXEC

using Problem = const char*;  // null: fine

bool is_range(uint64_t page, uint64_t count) {
  return count > 0 && page < kPageNumberEnd && count <= kPageNumberEnd - page;
}

// The pages from which a pager makes its calls in the shell process, and its filters: nobody's memory.
bool touches_shell(uint64_t page, uint64_t count) {
  constexpr uint64_t kFirst = kTrampoline / kPageBytesOnLane, kCount = kTrampolineBytes / kPageBytesOnLane;
  return page < kFirst + kCount && kFirst < page + count;
}

bool is_one_bit_of(uint16_t flags, uint16_t allowed) {
  return (flags & ~allowed) == 0 && flags != 0 && (flags & (flags - 1)) == 0;
}

// Metas, then the data of those that carry it. Each page has exactly one of the flags in `allowed`.
Problem pages_problem(const FrameHeader& header, std::span<const uint8_t> payload, uint16_t allowed) {
  if (header.count == 0 || header.count > kMaxPagesPerFrame) return "page count out of bounds";
  const size_t meta_bytes = header.count * sizeof(PageMeta);
  if (payload.size() < meta_bytes) return "payload shorter than its page metas";
  size_t with_data = 0;
  for (size_t i = 0; i < header.count; ++i) {
    PageMeta meta;
    std::memcpy(&meta, payload.data() + i * sizeof meta, sizeof meta);
    if (meta.page >= kPageNumberEnd) return "page number out of bounds";
    if (touches_shell(meta.page, 1)) return "the shell's own pages";
    if (!is_one_bit_of(meta.flags, allowed)) return "page flags not allowed here";
    if (meta.flags == kPageData) ++with_data;
  }
  const bool fits = payload.size() == meta_bytes + with_data * kPageBytesOnLane;
  return fits ? nullptr : "payload size does not fit its page metas";
}

Problem region_problem(std::span<const uint8_t> payload) {
  if (payload.size() != sizeof(RegionPayload)) return "wrong payload size";
  RegionPayload region;
  std::memcpy(&region, payload.data(), sizeof region);
  if (!is_range(region.start_page, region.page_count)) return "page range out of bounds";
  if (touches_shell(region.start_page, region.page_count)) return "the shell's own pages";
  if ((region.prot & ~kProtectionBits) != 0) return "unknown protection bits";
  if (region.kind != kRegionElastic && region.kind != kRegionReplica) return "unknown kind of region";
  return nullptr;
}

Problem empty_problem(std::span<const uint8_t> payload) {
  return payload.empty() ? nullptr : "wrong payload size";
}

Problem request_problem(const FrameHeader& header, std::span<const uint8_t> payload) {
  if (!payload.empty()) return "wrong payload size";
  if (header.count == 0 || header.count > kMaxPagesPerFrame) return "page count out of bounds";
  return is_range(header.page, header.count) ? nullptr : "page range out of bounds";
}

Problem range_problem(const FrameHeader& header, std::span<const uint8_t> payload) {
  if (!payload.empty()) return "wrong payload size";
  return is_range(header.page, header.count) ? nullptr : "page range out of bounds";
}

Problem layout_problem(const FrameHeader& header, std::span<const uint8_t> payload) {
  if (Problem problem = range_problem(header, payload)) return problem;
  return touches_shell(header.page, header.count) ? "the shell's own pages" : nullptr;
}

// Argument 1: the mapping ends. Any other: the contents of some pages, each of which is looked at.
Problem drop_problem(const FrameHeader& header, std::span<const uint8_t> payload) {
  if (header.argument != 1 && header.count > kMaxPagesPerFrame) return "page count out of bounds";
  return layout_problem(header, payload);
}

Problem protect_problem(const FrameHeader& header, std::span<const uint8_t> payload) {
  if (Problem problem = layout_problem(header, payload)) return problem;
  return (header.argument & ~kProtectionBits) == 0 ? nullptr : "unknown protection bits";
}

Problem give_back_problem(const FrameHeader& header, std::span<const uint8_t> payload) {
  if (!payload.empty()) return "wrong payload size";
  if (header.page == 0) return nullptr;  // all of them
  return is_range(header.page, header.count) ? nullptr : "page range out of bounds";
}

Problem at_most(std::span<const uint8_t> payload, uint32_t bytes) {
  return payload.size() <= bytes ? nullptr : "wrong payload size";
}

Problem exactly(std::span<const uint8_t> payload, size_t bytes) {
  return payload.size() == bytes ? nullptr : "wrong payload size";
}

// On a fresh connection it is frame 1. What resumes a lost one has no number, and names the last that has
// come: at least the other's first hello.
Problem hello_problem(const FrameHeader& header, std::span<const uint8_t> payload) {
  if (payload.size() != sizeof(HelloPayload)) return "wrong payload size";
  HelloPayload hello;
  std::memcpy(&hello, payload.data(), sizeof hello);
  if (hello.lane_kind > 1) return "unknown kind of lane";
  return (header.sequence == 0) == (header.version > 0) ? nullptr : "neither first nor resuming";
}

Problem jump_problem(std::span<const uint8_t> payload) {
  return payload.empty() ? "wrong payload size" : at_most(payload, kMaxContextBytes);
}

Problem echo_problem(const FrameHeader& header) {
  return header.argument <= kMaxPayloadBytes ? nullptr : "answer asked for is too large";
}

Problem cut_problem(const FrameHeader& header, std::span<const uint8_t> payload) {
  if (!payload.empty()) return "wrong payload size";
  return header.argument > 0 ? nullptr : "a cut has a number";
}

Problem payload_problem(const FrameHeader& header, std::span<const uint8_t> payload) {
  switch (static_cast<FrameType>(header.type)) {
    case FrameType::hello: return hello_problem(header, payload);
    case FrameType::get: return request_problem(header, payload);
    case FrameType::pages:
      return pages_problem(header, payload, kPageData | kPageZero | kPageMoved | kPageAbsent | kPagePinned);
    case FrameType::push: return pages_problem(header, payload, kPageData | kPageZero | kPageOffered);
    case FrameType::map: return region_problem(payload);
    case FrameType::drop: return drop_problem(header, payload);
    case FrameType::protect: return protect_problem(header, payload);
    case FrameType::layout_ack: return empty_problem(payload);
    case FrameType::jump: return jump_problem(payload);
    case FrameType::back: return at_most(payload, kMaxContextBytes);
    case FrameType::recall: return empty_problem(payload);
    case FrameType::thread_end: return empty_problem(payload);
    case FrameType::file_get: return request_problem(header, payload);
    case FrameType::file_pages: return pages_problem(header, payload, kPageData | kPageZero | kPageAbsent);
    case FrameType::status: return exactly(payload, sizeof(StatusPayload));
    case FrameType::stats: return at_most(payload, kMaxStatsBytes);
    case FrameType::bye: return at_most(payload, kMaxReasonBytes);
    case FrameType::reset: return empty_problem(payload);
    case FrameType::owner: return range_problem(header, payload);
    case FrameType::give_back: return give_back_problem(header, payload);
    case FrameType::echo: return echo_problem(header);
    case FrameType::echo_reply: return nullptr;
    case FrameType::setup: return at_most(payload, kMaxReasonBytes);
    case FrameType::cut: return cut_problem(header, payload);
    case FrameType::ack: return empty_problem(payload);
  }
  return "unknown frame type";
}

}  // namespace

const char* header_problem(const FrameHeader& header) {
  if (header.magic != kWireMagic) return "bad magic";
  const auto type = static_cast<FrameType>(header.type);
  if (type < FrameType::hello || type > FrameType::last) return "unknown frame type";
  if (header.payload_bytes > kMaxPayloadBytes) return "payload too large";
  return nullptr;
}

std::optional<std::string> frame_problem(const FrameHeader& header, std::span<const uint8_t> payload) {
  Problem problem = header_problem(header);
  if (problem == nullptr && header.payload_bytes != payload.size())
    problem = "payload size differs from its header";
  if (problem == nullptr) problem = payload_problem(header, payload);
  if (problem == nullptr) return std::nullopt;
  return std::string(problem);
}

}  // namespace elastic
