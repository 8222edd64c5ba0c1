// `elasticos-pager frame-lockstep`: the frame codec driven by lines of text, so that a test can compare it
// with its TypeScript twin (kmod/lane-frames.ts) over many random frames.
//
// Each line read is one frame in hexadecimal, header and payload; each line printed is either `bad REASON` or
// `ok FIELD…`: the header's fields in their order, decimal, and then for each page meta and each known
// payload its fields, groups separated by ` | `. A line that is no frame at all gives `bad short frame`.
#include "frame_lockstep.hpp"

#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <vector>

#include "frame_check.hpp"

namespace elastic {

namespace {

int nibble(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

// The bytes of one line; an odd or foreign character ends them.
std::vector<uint8_t> bytes_of(const std::string& line) {
  std::vector<uint8_t> bytes;
  bytes.reserve(line.size() / 2);
  for (size_t i = 0; i + 1 < line.size(); i += 2) {
    const int high = nibble(line[i]);
    const int low = nibble(line[i + 1]);
    if (high < 0 || low < 0) break;
    bytes.push_back(static_cast<uint8_t>(high << 4 | low));
  }
  return bytes;
}

template <typename Struct>
Struct at(std::span<const uint8_t> bytes, size_t offset) {
  Struct value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

void print_header(const FrameHeader& h) {
  std::printf("ok %u %u %u %u", h.magic, h.type, h.flags, h.payload_bytes);
  std::printf(" %u %u %u", h.epoch, h.image, h.count);
  std::printf(" %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64, h.sequence, h.ack, h.page, h.version);
  std::printf(" %u %u", h.last_written_cut, h.argument);
}

void print_payload(const FrameHeader& header, std::span<const uint8_t> payload) {
  switch (static_cast<FrameType>(header.type)) {
    case FrameType::pages:
    case FrameType::push:
    case FrameType::file_pages:
      for (size_t i = 0; i < header.count; ++i) {
        const auto meta = at<PageMeta>(payload, i * sizeof(PageMeta));
        std::printf(" | %" PRIu64 " %" PRIu64 " %u %u %u", meta.page, meta.version, meta.last_written_cut,
                    meta.flags, meta.owner);
      }
      break;
    case FrameType::hello: {
      const auto hello = at<HelloPayload>(payload, 0);
      std::printf(" | %u %u %u %" PRIu64 " %" PRIu64, hello.protocol, hello.node, hello.lane_kind,
                  hello.process_id, hello.lease_id);
      break;
    }
    case FrameType::map: {
      const auto region = at<RegionPayload>(payload, 0);
      std::printf(" | %" PRIu64 " %" PRIu64 " %u %u %" PRIu64, region.start_page, region.page_count,
                  region.prot, region.kind, region.birth_version);
      break;
    }
    case FrameType::status: {
      const auto status = at<StatusPayload>(payload, 0);
      std::printf(" | %" PRIu64 " %" PRIu64 " %" PRIu64 " %u %u", status.pages_resident, status.pages_limit,
                  status.pages_spilled, status.threads_running, status.pages_taken);
      break;
    }
    default: break;
  }
}

void answer(const std::vector<uint8_t>& bytes) {
  if (bytes.size() < sizeof(FrameHeader)) {
    std::printf("bad short frame\n");
    return;
  }
  const auto header = at<FrameHeader>(bytes, 0);
  const std::span<const uint8_t> payload(bytes.data() + sizeof header, bytes.size() - sizeof header);
  if (const auto problem = frame_problem(header, payload)) {
    std::printf("bad %s\n", problem->c_str());
    return;
  }
  print_header(header);
  print_payload(header, payload);
  std::printf("\n");
}

}  // namespace

int frame_lockstep(int, char**) {
  for (std::string line; std::getline(std::cin, line);) answer(bytes_of(line));
  return 0;
}

}  // namespace elastic
