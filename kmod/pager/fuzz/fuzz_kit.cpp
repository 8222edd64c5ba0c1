// See fuzz_kit.hpp.
#include "fuzz_kit.hpp"

#include <cstdlib>

#include "../src/frame_check.hpp"
#include "../src/stats.hpp"

namespace elastic::fuzz {

namespace {

// Around the edges of what a page number may be.
uint64_t any_page(Input& in) {
  switch (in.below(8)) {
    case 0: return kPageNumberEnd - in.below(4);
    case 1: return 0xfe + in.below(6);  // the shell's own pages
    case 2: return in.take<uint64_t>();
    case 3: return in.below(4);
    default: return 0x10000 + in.below(64);
  }
}

uint32_t any_count(Input& in) {
  return in.rarely() ? in.take<uint32_t>() : static_cast<uint32_t>(in.below(8));
}

template <typename T>
void append(std::vector<uint8_t>& to, const T& value) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(&value);
  to.insert(to.end(), bytes, bytes + sizeof value);
}

void add_pages(Input& in, AnyFrame& frame) {
  frame.header.count = static_cast<uint32_t>(1 + in.below(6));
  size_t with_data = 0;
  for (uint32_t i = 0; i < frame.header.count; i++) {
    PageMeta meta;
    meta.page = any_page(in);
    meta.version = in.rarely() ? in.take<uint64_t>() : in.below(16);
    meta.flags = in.rarely() ? in.take<uint16_t>() : static_cast<uint16_t>(1 << in.below(5));
    meta.owner = in.rarely() ? in.take<uint16_t>() : static_cast<uint16_t>(in.below(4));
    with_data += meta.flags == kPageData ? 1 : 0;
    append(frame.payload, meta);
  }
  frame.payload.resize(frame.payload.size() + with_data * 4096, static_cast<uint8_t>(in.below(256)));
}

void add_region(Input& in, AnyFrame& frame) {
  RegionPayload region;
  region.start_page = any_page(in);
  region.page_count = in.rarely() ? in.take<uint64_t>() : in.below(64);
  region.prot = static_cast<uint32_t>(in.below(9));
  region.kind = static_cast<uint32_t>(in.below(4));
  append(frame.payload, region);
}

void add_status(Input& in, AnyFrame& frame) {
  StatusPayload status;
  status.pages_resident = in.take<uint8_t>();
  status.pages_limit = in.rarely() ? in.take<uint64_t>() : 64 * in.below(64);
  status.pages_taken = in.rarely() ? in.take<uint32_t>() : 0;
  append(frame.payload, status);
}

void add_hello(Input& in, AnyFrame& frame) {
  HelloPayload hello;
  hello.protocol = static_cast<uint32_t>(in.below(3));
  hello.node = static_cast<uint16_t>(in.below(4));
  hello.lane_kind = static_cast<uint16_t>(in.below(3));
  append(frame.payload, hello);
}

}  // namespace

void judged(uint64_t more) {
  static uint64_t count = 0;
  if (count == 0) atexit([] { std::fprintf(stderr, "judged: %lu\n", static_cast<unsigned long>(count)); });
  count += more;
}

AnyFrame any_frame(Input& in) {
  AnyFrame frame;
  FrameHeader& header = frame.header;
  const auto type = static_cast<FrameType>(in.below(static_cast<uint16_t>(FrameType::last) + 2));
  header.type = in.rarely() ? in.take<uint16_t>() : static_cast<uint16_t>(type);
  header.magic = in.rarely() ? in.take<uint32_t>() : kWireMagic;
  header.epoch = header.image = 1;
  header.flags = static_cast<uint16_t>(in.below(8));
  header.page = any_page(in);
  header.count = any_count(in);
  header.version = in.rarely() ? in.take<uint64_t>() : in.below(16);
  header.argument = in.rarely() ? in.take<uint32_t>() : static_cast<uint32_t>(in.below(8));
  switch (type) {
    case FrameType::pages:
    case FrameType::push:
    case FrameType::file_pages: add_pages(in, frame); break;
    case FrameType::map: add_region(in, frame); break;
    case FrameType::status: add_status(in, frame); break;
    case FrameType::hello: add_hello(in, frame); break;
    case FrameType::stats: frame.payload.resize(sizeof(Counters), static_cast<uint8_t>(in.below(256))); break;
    case FrameType::jump:
    case FrameType::back:
    case FrameType::setup:
    case FrameType::bye: {
      const auto some = in.take_bytes(in.below(128));
      frame.payload.assign(some.begin(), some.end());
      break;
    }
    default: break;
  }
  if (in.rarely()) frame.payload.resize(in.below(200), 0x41);
  header.payload_bytes = static_cast<uint32_t>(frame.payload.size());
  if (in.rarely()) header.payload_bytes = in.below(8) == 0 ? in.take<uint32_t>() : header.payload_bytes + 1;
  return frame;
}

void read_metas(const FrameHeader& header, std::span<const uint8_t> payload) {
  const auto type = static_cast<FrameType>(header.type);
  if (type != FrameType::pages && type != FrameType::push && type != FrameType::file_pages) return;
  size_t data_at = header.count * sizeof(PageMeta);
  for (uint32_t i = 0; i < header.count; i++) {
    PageMeta meta;
    std::memcpy(&meta, payload.data() + i * sizeof meta, sizeof meta);
    REQUIRE(meta.page < kPageNumberEnd);
    if (meta.flags != kPageData) continue;
    REQUIRE(data_at + 4096 <= payload.size());
    data_at += 4096;
  }
  REQUIRE(data_at == payload.size());
}

}  // namespace elastic::fuzz
