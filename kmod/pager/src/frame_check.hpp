// What a frame of each type must look like, as pure functions: everything from the network is untrusted, and
// the pager acts only on frames that pass. TypeScript twin: kmod/lane-frames.ts (same messages, kept equal by
// a test).
//
// Limits: these are the checks that need no knowledge of the connection or of the process. Sequence and
// acknowledgement are the lane's; versions, epochs, leases and whether a page exists are the pager's.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "wire.hpp"

namespace elastic {

constexpr uint64_t kPageNumberEnd = (1ull << 35) - 1;  // of user addresses: 47 bits but for the last page
constexpr uint32_t kMaxContextBytes = 64u << 10;       // payload of jump and back
constexpr uint32_t kMaxStatsBytes = 64u << 10;         // payload of stats
constexpr uint32_t kMaxReasonBytes = 4u << 10;         // payload of bye

// Why the fixed header alone is unacceptable (magic, type, payload size), or nothing.
const char* header_problem(const FrameHeader& header);

// Why the frame is unacceptable, as one line without a full stop, or nothing. `payload` holds the
// payload_bytes bytes that follow the header. Allocates only when there is a problem.
std::optional<std::string> frame_problem(const FrameHeader& header, std::span<const uint8_t> payload);

}  // namespace elastic
